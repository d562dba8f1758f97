"""data/: image files as pixels and metadata, and back."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import COLOUR, GREY, ICC, encoded, exif, pixels_of, texts, webp

from vaedensity.data import image_metadata, tiff
from vaedensity.data.image_files import WRITERS, image_bytes, read_image
from vaedensity.errors import DamagedArchive

TAGS = {270: "what it shows", 305: "its maker", 315: "\u00fcber", 33432: "whose"}
KEPT = {
    "grey png": (encoded(GREY, "PNG"), ".png"),
    "colour png": (encoded(COLOUR, "PNG", pnginfo=texts(), icc_profile=ICC, exif=exif(), dpi=(72, 72)), ".png"),
    "two-valued png": (encoded(GREY, "PNG", "1", pnginfo=texts()), ".png"),
    "grey tiff": (encoded(GREY, "TIFF", tiffinfo=TAGS, icc_profile=ICC, dpi=(300, 300)), ".tif"),
    "colour tiff": (encoded(COLOUR, "TIFF", compression="tiff_lzw", tiffinfo=TAGS), ".tiff"),
    "two-valued tiff": (encoded(GREY, "TIFF", "1", compression="tiff_adobe_deflate", dpi=(200, 100)), ".tif"),
    "webp": (webp(COLOUR), ".webp"),
    "webp with all": (webp(COLOUR, exif=exif(), icc_profile=ICC, xmp=b"<x:xmpmeta/>"), ".webp"),
    "webp with a little": (webp(COLOUR[:3], xmp=b"odd"), ".webp"),
    "bmp": (encoded(COLOUR, "BMP"), ".bmp"),
    "grey bmp": (encoded(GREY, "BMP"), ".bmp"),
    "pgm": (encoded(GREY, "PPM"), ".pgm"),
    "ppm": (encoded(COLOUR, "PPM"), ".ppm"),
}


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def swapped(data: bytes) -> bytes:
    """A TIFF file of little-endian numbers with big-endian ones, its pixels those of one byte."""
    order, tags = tiff.read_tags(data)
    assert order == "<"
    (offset,) = struct.unpack("<I", tags[273].value)
    (size,) = struct.unpack("<I", tags[279].value.ljust(4, b"\0"))
    pixels = data[offset : offset + size]
    tags[273] = tags[273]._replace(value=struct.pack("<I", 8))
    body = b"MM\0*" + struct.pack(">I", 8 + len(pixels) + len(pixels) % 2) + pixels + b"\0" * (len(pixels) % 2)
    own = [tiff._ordered(tag, "<", ">") for _, tag in sorted(tags.items())]
    return body + tiff._directory(own, ">", len(body))


def ways(data: bytes) -> tuple[object, ...]:
    """How Pillow understands an image file."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        metas = {k: v for k, v in image.info.items() if k not in ("compression", "interlace")}
        tags = dict(image.getexif()) | dict(getattr(image, "tag_v2", {}))
        return image.mode, image.size, image.tobytes(), metas, {k: v for k, v in tags.items() if k not in tiff.STORAGE}


@pytest.mark.parametrize("name", KEPT)
def test_images_come_back_with_their_metadata(name: str) -> None:
    data, suffix = KEPT[name]
    image = read_image(data, suffix)
    assert image is not None and np.array_equal(image.pixels, pixels_of(data)) and image.pixels.dtype == np.uint8
    assert image.mode == Image.open(io.BytesIO(data)).mode
    back = image_bytes(image.pixels, image.mode, suffix, image.extras)
    assert ways(back) == ways(data)
    if suffix in (".bmp", ".pgm", ".ppm"):
        assert back == data and image.extras == b""


def test_png_chunks_are_kept_verbatim_and_before_the_pixels() -> None:
    own = chunk(b"prVt", b"\0\1\2") + chunk(b"tIME", b"\7\xe4\1\1\0\0\0") + chunk(b"tEXt", b"k\0v") * 2
    data = encoded(GREY, "PNG")
    early, late = data[:33] + own + data[33:], data[:-12] + own + data[-12:]
    for file in (early, late):
        image = read_image(file, ".png")
        assert image is not None and image.extras == own
        back = image_bytes(image.pixels, "L", ".png", own)
        assert back[:33] == data[:33] and back[33:].startswith(own + back[33 + len(own) :][:4] + b"IDAT")


def test_tiff_tags_keep_number_type_and_value() -> None:
    tags = {270: "t", 65000: b"\1\2\3\4\5", 305: "soft"}
    image = read_image(encoded(GREY, "TIFF", tiffinfo=tags, dpi=(3, 7)), ".tif")
    assert image is not None
    _, found = tiff.read_tags(image_bytes(image.pixels, "L", ".tif", image.extras))
    kept = tiff.read_tags(image.extras)[1]
    assert set(kept) == {259, 270, 282, 283, 296, 305, 65000}
    assert {n: found[n] for n in kept} == kept and kept[65000].value == b"\1\2\3\4\5"
    assert struct.unpack("<II", kept[282].value)[0] == 3 * struct.unpack("<II", kept[282].value)[1]


def test_tiff_of_either_order() -> None:
    little = encoded(GREY, "TIFF", tiffinfo={270: "what it shows"}, dpi=(3, 7))
    big = swapped(little)
    assert np.array_equal(pixels_of(big), GREY)
    image, same = read_image(big, ".tif"), read_image(little, ".tif")
    assert image is not None and same is not None and image.extras == same.extras
    assert ways(image_bytes(image.pixels, "L", ".tif", image.extras))[:3] == ways(big)[:3]
    bigger = b"MM\0*" + struct.pack(">I", 8)
    own = [tiff._ordered(tag, "<", ">") for tag in tiff.read_tags(same.extras)[1].values()]
    assert image_bytes(GREY, "L", ".tif", bigger + tiff._directory(own, ">", 8)) == image_bytes(
        GREY, "L", ".tif", same.extras
    )


def changed_kind() -> bytes:
    f = io.BytesIO()
    Image.fromarray(GREY).save(f, "TIFF", tiffinfo={254: 1})
    return f.getvalue()


def progressive() -> bytes:
    rows = [b"\0" + bytes([n]) for n in range(4)]
    data = image_metadata.PNG_HEAD + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 4, 8, 0, 0, 0, 1))
    return data + chunk(b"IDAT", zlib.compress(b"".join([rows[0], rows[2], rows[1], rows[3]]))) + chunk(b"IEND")


def frames(form: str) -> bytes:
    f = io.BytesIO()
    images = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    images[0].save(f, form, save_all=True, append_images=images[1:], **({"lossless": True} if form == "WEBP" else {}))
    return f.getvalue()


PNG = encoded(GREY, "PNG")
NOT_KEPT = {
    "palette": (encoded(COLOUR, "PNG", "P"), ".png"),
    "alpha": (encoded(COLOUR, "PNG", "RGBA"), ".png"),
    "grey with alpha": (encoded(GREY, "PNG", "LA"), ".png"),
    "16 bit": (encoded(GREY.astype(np.uint16) * 100, "PNG"), ".png"),
    "transparent colour": (encoded(GREY, "PNG", transparency=3), ".png"),
    "frames png": (frames("PNG"), ".png"),
    "frames webp": (frames("WEBP"), ".webp"),
    "frames tiff": (frames("TIFF"), ".tif"),
    "after the end": (PNG + b"more", ".png"),
    "chunk after the end": (PNG + chunk(b"tEXt", b"k\0v"), ".png"),
    "two ends": (PNG + chunk(b"IEND"), ".png"),
    "damaged chunk": (PNG[:33] + chunk(b"tEXt", b"k\0v")[:-1] + b"\0" + PNG[33:], ".png"),
    "critical chunk": (PNG[:33] + chunk(b"XyZZ", b"1") + PNG[33:], ".png"),
    "two heads": (PNG[:33] + PNG[8:33] + PNG[33:], ".png"),
    "cut off": (PNG[:-20], ".png"),
    "empty": (b"", ".png"),
    "another format": (encoded(COLOUR, "JPEG"), ".png"),
    "png by another name": (PNG, ".tif"),
    "lossy webp": (encoded(COLOUR, "WEBP"), ".webp"),
    "webp with alpha": (webp(np.dstack([COLOUR, COLOUR[:, :, 0]])), ".webp"),
    "webp with more behind it": (webp(COLOUR) + b"more", ".webp"),
    "turned tiff": (encoded(GREY, "TIFF", tiffinfo={274: 6}), ".tif"),
    "tiff of another kind": (changed_kind(), ".tif"),
    "tiff with exif": (encoded(GREY, "TIFF", exif=exif(turned=False).tobytes()), ".tif"),
    "fax tiff": (encoded(GREY, "TIFF", "1", compression="group4"), ".tif"),
    "older fax tiff": (encoded(GREY, "TIFF", "1", compression="group3"), ".tif"),
    "progressive png": (progressive(), ".png"),
    "lossy tiff": (encoded(GREY, "TIFF", compression="jpeg"), ".tif"),
    "subsampled tiff": (encoded(COLOUR, "TIFF", compression="jpeg"), ".tif"),
    "16 bit tiff": (encoded(GREY.astype(np.uint16) * 100, "TIFF"), ".tif"),
    "cmyk tiff": (encoded(COLOUR, "TIFF", "CMYK"), ".tif"),
    "bmp that Pillow writes otherwise": (encoded(COLOUR, "BMP", dpi=(11, 11)), ".bmp"),
    "pgm with a comment": (b"P5\n# made by hand\n2 1\n255\nab", ".pgm"),
    "pgm of 16 bit": (b"P5 1 1 65535\n\1\2", ".pgm"),
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_what_would_not_come_back_whole_is_no_image(name: str) -> None:
    data, suffix = NOT_KEPT[name]
    assert read_image(data, suffix) is None
    if suffix == ".tif":  # before anybody tries to read the pixels, of which libtiff might complain
        with pytest.raises(ValueError):
            image_metadata.take(data, suffix)


@pytest.mark.parametrize("number", [2, 3, 4, 6, 7, 32946, 34712, 34925, 50000, 50001])
def test_pixels_whose_compression_would_change_are_not_kept(number: int) -> None:
    plain, field = encoded(GREY, "TIFF"), struct.pack("<HHII", tiff.COMPRESSION, 3, 1, 1)
    assert plain.count(field) == 1
    with pytest.raises(ValueError):
        image_metadata.take(plain.replace(field, struct.pack("<HHII", tiff.COMPRESSION, 3, 1, number)), ".tif")


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize("number", tiff.WRITTEN)
def test_tiffs_come_back_with_their_compression(number: int, mode: str) -> None:
    data = encoded(COLOUR, "TIFF", mode, compression=tiff.WRITTEN[number])
    image = read_image(data, ".tif")
    assert image is not None and (not image.extras) == (number == tiff.DEFLATE)
    with Image.open(io.BytesIO(image_bytes(image.pixels, mode, ".tif", image.extras))) as back:
        assert back.tag_v2[tiff.COMPRESSION] == number and back.tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_a_grey_png_of_few_bits_is_no_image() -> None:
    rows = b"".join(b"\0" + bytes([0b00011011]) for _ in range(3))
    data = image_metadata.PNG_HEAD + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, 2, 0, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    assert Image.open(io.BytesIO(data)).mode == "L" and read_image(data, ".png") is None
    rgb16 = image_metadata.PNG_HEAD + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    rgb16 += chunk(b"IDAT", zlib.compress(b"\0" + bytes(range(6)))) + chunk(b"IEND")
    assert Image.open(io.BytesIO(rgb16)).mode == "RGB" and read_image(rgb16, ".png") is None


def test_files_too_large_for_pillow_are_no_images_and_nobody_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = image_metadata.PNG_HEAD + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)  # which warns up to twice that
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert read_image(PNG, ".png") is None and read_image(bomb, ".png") is None
    assert said == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size)
    assert read_image(PNG, ".png") is not None


# Putting back what an archive holds

EXTRAS = {KEPT[name][1]: read_image(*KEPT[name]).extras for name in ("colour png", "webp with all", "grey tiff")}
TAG = struct.pack("<HHII", 270, 2, 4, 0x41424344)


def tiff_extras(*entries: bytes, tail: bytes = bytes(4), values: bytes = b"") -> bytes:
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + tail + values


FOREIGN = {
    "an IDAT chunk": (chunk(b"tEXt", b"k\0v") + chunk(b"IDAT", b""), ".png"),
    "an IHDR chunk": (chunk(b"IHDR", bytes(13)), ".png"),
    "an IEND chunk": (chunk(b"IEND"), ".png"),
    "a palette": (chunk(b"PLTE", bytes(3)), ".png"),
    "transparency": (chunk(b"tRNS", bytes(2)), ".png"),
    "frames": (chunk(b"acTL", bytes(8)), ".png"),
    "half a chunk": (EXTRAS[".png"][:-1], ".png"),
    "a bad checksum": (EXTRAS[".png"][:-1] + b"\xff", ".png"),
    "a long chunk": (b"\xff\xff\xff\xfftEXtk\0v\0\0\0\0", ".png"),
    "a chunk without a name": (chunk(b"t\0Xt"), ".png"),
    "two parts": (b"\0\0", ".webp"),
    "four parts": (b"\0\0\0\0", ".webp"),
    "a part that is cut off": (b"\0\0\5abcd", ".webp"),
    "an endless number": (b"\xff" * 20, ".webp"),
    "a long number": (b"\0\0\x80\0", ".webp"),
    "no TIFF": (b"III\0" + EXTRAS[".tif"][4:], ".tif"),
    "structure": (tiff_extras(struct.pack("<HHII", 256, 3, 1, 5)), ".tif"),
    "a compression that is lossy": (tiff_extras(struct.pack("<HHII", 259, 3, 1, 7)), ".tif"),
    "two compressions": (tiff_extras(struct.pack("<HHIHH", 259, 3, 2, 1, 5)), ".tif"),
    "orientation": (tiff_extras(struct.pack("<HHII", 274, 3, 1, 6)), ".tif"),
    "other tables": (tiff_extras(struct.pack("<HHII", 34665, 4, 1, 8)), ".tif"),
    "two directories": (tiff_extras(TAG, tail=b"\0\0\0\1"), ".tif"),
    "a tag twice": (tiff_extras(TAG, TAG), ".tif"),
    "a type": (tiff_extras(struct.pack("<HHII", 270, 99, 4, 0)), ".tif"),
    "a value of nothing": (tiff_extras(struct.pack("<HHII", 270, 2, 0, 0)), ".tif"),
    "a value beyond the end": (tiff_extras(struct.pack("<HHII", 270, 2, 9, 26), values=bytes(8)), ".tif"),
    "values in one place": (
        tiff_extras(*(struct.pack("<HHII", n, 2, 9, 38) for n in (270, 271)), values=bytes(9)),
        ".tif",
    ),
    "metadata of a format without": (b"x", ".bmp"),
    "metadata of no format": (b"x", ".jpg"),
}


@pytest.mark.parametrize("suffix", EXTRAS)
def test_good_metadata_pass(suffix: str) -> None:
    assert EXTRAS[suffix]
    image_metadata.check(EXTRAS[suffix], suffix)
    image_metadata.check(b"", suffix)
    image_metadata.check(tiff_extras(TAG), ".tiff")


@pytest.mark.parametrize("name", FOREIGN)
def test_what_are_no_metadata_is_refused(name: str) -> None:
    extras, suffix = FOREIGN[name]
    with pytest.raises(ValueError):
        image_metadata.check(extras, suffix)
    if suffix in WRITERS:
        pixels, mode = (COLOUR, "RGB") if suffix == ".webp" else (GREY, "L")
        with pytest.raises(DamagedArchive, match=r"^the archive holds an image that cannot be written \([^\n]+\)$"):
            image_bytes(pixels, mode, suffix, extras)


@pytest.mark.parametrize("suffix", EXTRAS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_altered_metadata_never_crash(suffix: str, data: st.DataObject) -> None:
    extras = bytearray(EXTRAS[suffix])
    for _ in range(data.draw(st.integers(1, 3))):
        extras[data.draw(st.integers(0, min(len(extras) - 1, 90)))] = data.draw(st.integers(0, 255))
    pixels, mode = (COLOUR, "RGB") if suffix == ".webp" else (GREY, "L")
    try:
        back = image_bytes(pixels, mode, suffix, bytes(extras))
    except DamagedArchive:
        return
    assert len(back) <= len(image_bytes(pixels, mode, suffix, b"")) + 2 * len(extras) + 600


def test_two_valued_images_of_other_values_are_refused() -> None:
    with pytest.raises(DamagedArchive, match="0 and 1"):
        image_bytes(np.full((2, 2), 2, np.uint8), "1", ".png", b"")
    assert pixels_of(image_bytes(np.eye(2, dtype=np.uint8), "1", ".png", b"")).tolist() == [
        [True, False],
        [False, True],
    ]


def test_restore_metadata_is_checked_without_pillow() -> None:
    modules = ", ".join(f"vaedensity.data.{name}" for name in ("restore", "tree", "image_metadata"))
    code = f"import sys; sys.modules['PIL'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tiff_files_come_back_without_bytes_of_nothing() -> None:
    """So that what was restored can be taken for an image again."""
    first = read_image(encoded(GREY, "TIFF", tiffinfo={270: "what it shows"}, dpi=(300, 300)), ".tif")
    assert first is not None and first.extras
    for pixels, mode in ((GREY, "L"), (COLOUR, "RGB"), ((GREY > 99).astype(np.uint8), "1")):
        back = image_bytes(pixels, mode, ".tif", first.extras)
        assert tiff.bytes_of_nothing(back) == 0
        again = read_image(back, ".tif")
        assert again is not None and again.extras == first.extras and np.array_equal(again.pixels, pixels)


def test_compressed_pixels_with_more_behind_them_are_no_image() -> None:
    """zlib's stream in a PNG file may be followed by other bytes, within its chunk."""
    plain = encoded(GREY, "PNG")
    at = plain.index(b"IDAT")
    size = int.from_bytes(plain[at - 4 : at], "big")
    body = b"IDAT" + plain[at + 4 : at + 4 + size] + b"hidden"
    hidden = (
        plain[: at - 4]
        + struct.pack(">I", size + 6)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + plain[at + 8 + size :]
    )
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(hidden))), GREY)
    assert read_image(plain, ".png") is not None and read_image(hidden, ".png") is None
