"""Fallback codecs, for what no model fits: raw, deflate, LZMA2, LZMA2 of byte planes. The smallest wins.

docs/format.md, "Fallback codecs".
"""

import lzma
import zlib

import numpy as np

from vaedensity.archive.block import DEFLATE, LZMA, LZMA_PLANES, RAW, Codec

WIDEST = 16  # bytes of an element that is worth taking apart
LEAST_DICTIONARY, DICTIONARY = 1 << 12, 1 << 24
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": DICTIONARY}]


def deflate(data: bytes) -> bytes:
    """A raw deflate stream."""
    coder = zlib.compressobj(6, zlib.DEFLATED, -15)
    return coder.compress(data) + coder.flush()


def encode(data: bytes, width: int = 1) -> tuple[Codec, bytes]:
    """(codec, payload), the shortest, of elements of ``width`` bytes each."""
    candidates = [(RAW, data), (DEFLATE, deflate(data)), (LZMA, _lzma(data))]
    if 1 < width <= WIDEST and len(data) > width:
        candidates.append((LZMA_PLANES, _lzma(to_planes(data, width))))
    return min(candidates, key=lambda pair: len(pair[1]))


def estimate(data: bytes) -> int:
    """About what :func:`encode` makes of ``data``, or somewhat more, in a fraction of the time."""
    return len(_lzma(data, preset=0))


def encode_verified(data: bytes, width: int = 1) -> tuple[Codec, bytes]:
    """:func:`encode`, decoded and compared; falls back to the raw bytes, which cannot go wrong."""
    codec, payload = encode(data, width)
    try:
        good = decode(codec, payload, len(data), width) == data
    except ValueError:
        good = False
    return (codec, payload) if good else (RAW, data)


def decode(codec: Codec, payload: bytes, size: int, width: int = 1) -> bytes:
    """The ``size`` bytes behind ``payload``; never allocates more. Raises ValueError on anything else."""
    if codec == RAW:
        data = payload
    elif codec == DEFLATE:
        inflater = zlib.decompressobj(-15)
        try:
            data = inflater.decompress(payload, size + 1)
        except zlib.error as error:
            raise ValueError(f"deflate: {error}") from error
        if not inflater.eof or inflater.unused_data:
            raise ValueError("deflate: the stream does not end where its block does")
    elif codec in (LZMA, LZMA_PLANES):
        expander = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        try:
            data = expander.decompress(payload, size + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise ValueError(f"lzma2: {error}") from error
        if not expander.eof or expander.unused_data:
            raise ValueError("lzma2: the stream does not end where its block does")
    else:
        raise ValueError(f"a block of kind {codec.kind.name.lower()} holds no bytes")
    if len(data) != size:
        raise ValueError(f"found {len(data)} bytes, expected {size}")
    return from_planes(data, width) if codec == LZMA_PLANES else data


def to_planes(data: bytes, width: int) -> bytes:
    """First all first bytes of the elements, then all second ones, and so on."""
    return np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()


def from_planes(data: bytes, width: int) -> bytes:
    """Undoes :func:`to_planes`."""
    return np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()


def _lzma(data: bytes, preset: int = 9) -> bytes:
    # as wide as the data is enough, and preparing more takes longer than coding a small block
    dictionary = min(DICTIONARY, max(LEAST_DICTIONARY, 1 << len(data).bit_length()))
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[{**_FILTERS[0], "preset": preset, "dict_size": dictionary}])
