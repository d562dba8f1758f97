"""data/: depth comes from the file. What has other than 8 bits or two values is not fitted, and goes into archives byte for byte."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import COLOUR, GREY, encoded, grow

from vaedensity.data import image_metadata, tiff
from vaedensity.data.folder import load_folder
from vaedensity.data.image_files import read_image
from vaedensity.errors import UsageError

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png(depth: int, colour: int, width: int = 4, height: int = 3) -> bytes:
    """A PNG file of any depth and kind of colour, made by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes([0]) + bytes(range(-(-width * depth * CHANNELS[colour] // 8)))
    palette = chunk(b"PLTE", bytes(range(12))) if colour == 3 else b""
    return (
        image_metadata.PNG_HEAD
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + palette
        + chunk(b"IDAT", zlib.compress(row * height))
        + chunk(b"IEND", b"")
    )


def tiff_of(bits: int, channels: int) -> bytes:
    """An uncompressed TIFF file of 3x2 pixels, made by hand."""
    strip = bytes(range(-(-3 * bits * channels // 8) * 2))
    short = lambda *numbers: struct.pack(f"<{len(numbers)}H", *numbers)  # noqa: E731
    values = {256: (3,), 257: (2,), 258: (bits,) * channels, 259: (1,), 262: (2 if channels == 3 else 1,), 273: (8,)}
    values |= {277: (channels,), 278: (2,), 279: (len(strip),)}
    tags = [tiff.Tag(number, 3, len(value), short(*value)) for number, value in sorted(values.items())]
    body = b"II*\0" + struct.pack("<I", 8 + len(strip) + len(strip) % 2) + strip + b"\0" * (len(strip) % 2)
    return body + tiff._directory(tags, "<", len(body))


def bmp16() -> bytes:
    """Five bits a channel, which Pillow stretches to eight."""
    pixels = struct.pack("<4H", 1, 2, 3, 4)
    head = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, len(pixels), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54) + head + pixels


WRONG = {
    "grey16.png": (png(16, 0), "16 bits a channel, expected 8"),
    "rgb16.png": (png(16, 2), "16 bits a channel, expected 8"),
    "grey-alpha16.png": (png(16, 4), "mode"),
    "rgba16.png": (png(16, 6), "mode RGBA"),
    "grey2.png": (png(2, 0), "2 bits a channel, expected 8"),
    "grey4.png": (png(4, 0), "4 bits a channel, expected 8"),
    "palette1.png": (png(1, 3), "mode P"),
    "palette8.png": (png(8, 3), "mode P"),
    "grey16.tif": (tiff_of(16, 1), "16 bits a channel, expected 8"),
    "rgb16.tif": (tiff_of(16, 3), "16 bits a channel, expected 8"),
    "grey4.tif": (tiff_of(4, 1), "4 bits a channel, expected 8"),
    "grey12.tif": (tiff_of(12, 1), "12 bits a channel, expected 8"),
    "grey16.pgm": (b"P5 2 1 65535\n" + bytes(4), "values from 0 to 65535"),
    "grey10.pgm": (b"P5 2 1 1023\n" + bytes(4), "values from 0 to 1023"),
    "grey7.pgm": (b"P5 2 1 100\n" + bytes(2), "values from 0 to 100"),
    "two.pgm": (b"P5 2 1 1\n" + bytes(2), "values from 0 to 1,"),
    "rgb16.ppm": (b"P6 1 1 65535\n" + bytes(6), "values from 0 to 65535"),
    "text.pgm": (b"P2 2 1 15 7 8", "values from 0 to 15"),
    "five.bmp": (bmp16(), "5 bits a channel, expected 8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_depths_are_named_and_refused_and_never_taken_apart(tmp_path: Path, name: str) -> None:
    data, words = WRONG[name]
    with pytest.raises(UsageError) as refusal:
        load_folder(grow(tmp_path / "p", {name: data}))
    assert name in str(refusal.value) and words in str(refusal.value)
    assert read_image(data, Path(name).suffix) is None


@pytest.mark.parametrize(
    ("name", "data", "mode"),
    [
        ("a.png", png(8, 0), "L"),
        ("a.png", png(8, 2), "RGB"),
        ("a.png", png(1, 0), "1"),
        ("a.tif", tiff_of(8, 1), "L"),
        ("a.tif", tiff_of(8, 3), "RGB"),
        ("a.tif", tiff_of(1, 1), "1"),
        ("a.bmp", encoded(GREY, "BMP", "1"), "1"),
        ("a.bmp", encoded(COLOUR, "BMP"), "RGB"),
        ("a.pbm", b"P4 8 1 \xaa", "1"),
        ("a.jpg", encoded(GREY, "JPEG"), "L"),
        ("a.jpeg", encoded(COLOUR, "JPEG"), "RGB"),
    ],
)
def test_eight_bits_and_two_values_are_read_as_they_are(tmp_path: Path, name: str, data: bytes, mode: str) -> None:
    found = load_folder(grow(tmp_path / "p", {name: data}))
    with Image.open(io.BytesIO(data)) as image:
        assert found.meta["mode"] == image.mode == mode
        assert np.array_equal(found.arrays["images"][0], np.asarray(image).astype(np.uint8))


def test_a_jpeg_file_of_inks_or_an_image_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    for name, data in {"inks.jpg": encoded(COLOUR, "JPEG", "CMYK"), "x.png": encoded(GREY, "GIF")}.items():
        with pytest.raises(UsageError, match=name):
            load_folder(grow(tmp_path / name, {name: data}))


@pytest.mark.parametrize(
    ("suffix", "data", "words"),
    [
        (".bmp", encoded(np.dstack([COLOUR, COLOUR[..., :1]]), "BMP"), "32 bits a pixel|mode RGBA"),
        (
            ".png",
            image_metadata.PNG_HEAD
            + struct.pack(">I", 4)
            + b"teSt"
            + b"\x08" * 4
            + struct.pack(">I", zlib.crc32(b"teSt" + b"\x08" * 4))
            + png(16, 2)[8:],
            "header is not where|no image that can be read",
        ),
        (".png", png(8, 2)[:33] + png(16, 2)[8:33] + png(8, 2)[33:], "there twice|no image that can be read"),
    ],
    ids=["a fourth byte", "a chunk before the header", "two headers"],
)
def test_values_that_would_be_left_over_or_misread_are_refused(
    tmp_path: Path, suffix: str, data: bytes, words: str
) -> None:
    grow(tmp_path, {f"a{suffix}": data, f"b{suffix}": data})
    with pytest.raises(UsageError, match=words):
        load_folder(tmp_path)


@pytest.mark.parametrize(("tags", "words"), [({258: 8, 339: 2}, "values with a sign"), ({258: 8, 339: 1}, None)])
def test_tiff_values_with_a_sign_are_refused(tmp_path: Path, tags: dict[int, int], words: str | None) -> None:
    f = io.BytesIO()
    Image.fromarray(GREY).save(f, "TIFF", tiffinfo=tags)
    grow(tmp_path, {"a.tif": f.getvalue(), "b.tif": f.getvalue()})
    if words is None:
        assert len(load_folder(tmp_path).arrays["images"]) == 2
        return
    with pytest.raises(UsageError, match=words):
        load_folder(tmp_path)
