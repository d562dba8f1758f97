"""Fallback codecs: what a block may not hold is rejected, whatever the library that decodes it says."""

import lzma

import numpy as np
import pytest

from vaedensity.archive.block import DEFLATE, LOST, LZMA, LZMA_PLANES, RAW, Codec
from vaedensity.archive.fallback import _lzma, decode, deflate, encode

DATA = bytes(range(100)) * 3


@pytest.mark.parametrize(
    ("codec", "payload", "width", "says"),
    [
        (RAW, DATA[:-1], 1, "found 299 bytes, expected 300"),
        (RAW, DATA + b"x", 1, "found 301 bytes"),
        (DEFLATE, b"\xff\xff", 1, "deflate: Error"),
        (DEFLATE, deflate(DATA)[:-1], 1, "does not end where its block does"),
        (DEFLATE, deflate(DATA) + b"x", 1, "does not end where its block does"),
        (DEFLATE, deflate(DATA + b"x"), 1, "301 bytes|does not end"),
        (DEFLATE, deflate(DATA[:-1]), 1, "299 bytes"),
        (LZMA, b"\x42\x42", 1, "lzma2: Corrupt"),
        (LZMA, _lzma(DATA)[:-1], 1, "does not end where its block does"),
        (LZMA, _lzma(DATA) + b"x", 1, "does not end where its block does"),
        (LZMA, _lzma(DATA[:-1]), 1, "299 bytes"),
        (LZMA_PLANES, b"\x42\x42", 2, "lzma2: Corrupt"),
        (LOST, b"", 1, "a block of kind lost holds no bytes"),
    ],
)
def test_what_is_rejected(codec: Codec, payload: bytes, width: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode(codec, payload, len(DATA), width)


def test_the_smallest_is_taken() -> None:
    noise = np.random.default_rng(0).bytes(500)
    assert encode(noise) == (RAW, noise)
    assert encode(b"\0" * 40)[0] == DEFLATE
    assert encode(DATA * 20)[0] == LZMA
    assert encode((np.arange(3000, dtype="<i4") ** 2).tobytes(), 4)[0] == LZMA_PLANES


def test_a_decoder_needs_but_the_largest_dictionary() -> None:
    far = np.random.default_rng(0).bytes(70_000)
    payload = _lzma(far + far)
    assert len(payload) < 71_000 and decode(LZMA, payload, 140_000) == far + far
    with pytest.raises(lzma.LZMAError):
        small = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 12}]
        lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=small).decompress(payload)
