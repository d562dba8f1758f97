"""Streams of the standard library's decoders: directories (section 16, step 3) and fallback blocks (section 6)."""

import lzma
import zlib

import numpy as np

RAW, DEFLATE, PLANES = 0, 1, 3


def inflate(packed: bytes, largest: int) -> bytes:
    """The whole content of a zlib stream that ends where its bytes end, ``largest`` bytes at most. Raises ValueError."""
    limit = min(largest, 1032 * len(packed) + 1024)
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(packed, limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(data) > limit:
        raise ValueError(f"a stream holds more than {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise ValueError("a stream does not end where its bytes end")
    return data


def decode_fallback(coder: int, payload: bytes, size: int, element: int) -> bytes:
    """The ``size`` bytes of a block of coder 0 to 3 whose elements have ``element`` bytes. Raises ValueError."""
    if coder == RAW:
        out, whole = payload, True
    elif coder == DEFLATE:
        inflater = zlib.decompressobj(-15)
        try:
            out = inflater.decompress(payload, size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        whole = inflater.eof and not inflater.unused_data
    else:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}])
        try:
            out = decoder.decompress(payload, size + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise ValueError(str(error)) from error
        whole = decoder.eof and not decoder.unused_data
    if len(out) != size or not whole:
        raise ValueError("its bytes are not those of its items")
    return np.frombuffer(out, np.uint8).reshape(element, -1).T.tobytes() if coder == PLANES else out
