"""Coders for what no model fits: raw, deflate, LZMA2. The smallest wins."""

import lzma
import zlib

RAW, DEFLATE, LZMA2 = 0, 1, 2
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 24}]


def deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(6, zlib.DEFLATED, -15)
    return coder.compress(data) + coder.flush()


def encode(data: bytes) -> tuple[int, bytes]:
    """(coder, payload), the shortest of the three."""
    candidates = [(RAW, data), (DEFLATE, deflate(data))]
    candidates.append((LZMA2, lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)))
    return min(candidates, key=lambda pair: len(pair[1]))


def encode_verified(data: bytes) -> tuple[int, bytes]:
    """:func:`encode`, decoded and compared; falls back to the raw bytes, which cannot go wrong."""
    coder, payload = encode(data)
    try:
        good = decode(coder, payload, len(data)) == data
    except ValueError:
        good = False
    return (coder, payload) if good else (RAW, data)


def decode(coder: int, payload: bytes, size: int) -> bytes:
    """The ``size`` bytes behind ``payload``; never allocates more. Raises ValueError on anything else."""
    if coder == RAW:
        data = payload
    elif coder == DEFLATE:
        inflater = zlib.decompressobj(-15)
        try:
            data = inflater.decompress(payload, size + 1)
        except zlib.error as error:
            raise ValueError(f"deflate: {error}") from error
        if not inflater.eof or inflater.unused_data:
            raise ValueError("deflate: the stream does not end where its block does")
    elif coder == LZMA2:
        expander = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        try:
            data = expander.decompress(payload, size + 1)
        except lzma.LZMAError as error:
            raise ValueError(f"lzma2: {error}") from error
        if not expander.eof or expander.unused_data:
            raise ValueError("lzma2: the stream does not end where its block does")
    else:
        raise ValueError(f"coder {coder} is not known")
    if len(data) != size:
        raise ValueError(f"found {len(data)} bytes, expected {size}")
    return data
