"""data/: folders of images for fit and score. What a file itself says of its depth and content decides."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trees import COLOUR, GREY, encoded, grow, webp

from vaedensity.data import image_metadata, tiff
from vaedensity.data.folder import load_folder
from vaedensity.data.image_files import WRITERS, read_image, save_image
from vaedensity.errors import UsageError

RNG = np.random.default_rng(7)
GREYS = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def picture(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image = image.convert(mode) if mode else image
    image.save(path, lossless=True) if path.suffix == ".webp" else image.save(path)


def put(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    for i, pixels in enumerate(images):
        picture(folder / f"{i}{suffix}", pixels)
    return folder


@pytest.mark.parametrize("images", [GREYS, COLOURS])
def test_load_folder_of_png(tmp_path: Path, images: np.ndarray) -> None:
    found = load_folder(put(tmp_path / "pictures", images))
    assert np.array_equal(found.arrays["images"], images)
    assert found.arrays["images"].dtype == np.uint8
    assert found.item_names == [f"{i}.png" for i in range(6)] and not found.meta


def test_load_folder_with_subfolders_sorts_by_relative_name(tmp_path: Path) -> None:
    picture(tmp_path / "b" / "0.png", GREYS[0])
    picture(tmp_path / "a" / "deep" / "1.png", GREYS[1])
    picture(tmp_path / "c.png", GREYS[2])
    found = load_folder(tmp_path)
    assert found.item_names == ["a/deep/1.png", "b/0.png", "c.png"]
    assert np.array_equal(found.arrays["images"], GREYS[[1, 0, 2]])


def test_load_folder_of_bilevel_images_gives_zeros_and_ones(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", GREYS[0] > 128)
    found = load_folder(tmp_path)
    assert np.array_equal(found.arrays["images"][0], (GREYS[0] > 128).astype(np.uint8))


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(s, m) for s in WRITERS for m in ("L", "RGB", "1") if not (s == ".webp" and m != "RGB")],
)
def test_every_format_gives_its_pixels_and_mode_back(tmp_path: Path, suffix: str, mode: str) -> None:
    pixels = COLOURS[0] if mode == "RGB" else (GREYS[0] > 99).astype(np.uint8) if mode == "1" else GREYS[0]
    with open(tmp_path / f"x{suffix}", "wb") as f:
        save_image(f, pixels, mode, suffix)
    with Image.open(tmp_path / f"x{suffix}") as image:
        assert image.mode == mode
    assert np.array_equal(load_folder(tmp_path).arrays["images"][0], pixels)


def sixteen_bit(path: Path) -> None:
    Image.fromarray(GREYS[0].astype(np.uint16) * 257).save(path)


def two_frames(path: Path) -> None:
    Image.fromarray(GREYS[0]).save(path, format="PNG", save_all=True, append_images=[Image.fromarray(GREYS[1])])


def transparent(path: Path) -> None:
    Image.fromarray(GREYS[0]).save(path, transparency=3)


@pytest.mark.parametrize(
    "make",
    [
        sixteen_bit,
        two_frames,
        transparent,
        lambda path: picture(path, GREYS[0], "P"),
        lambda path: picture(path, COLOURS[0], "RGBA"),
        lambda path: picture(path, GREYS[0], "LA"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"GIF"),
    ],
)
def test_images_that_would_lose_something_are_refused_by_name(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "odd.png")
    with pytest.raises(UsageError, match=r"odd\.png"):
        load_folder(tmp_path)


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on what it finds
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp"])
def test_altered_image_files_are_read_or_refused_but_never_crash(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / f"x{suffix}", COLOURS[0])
    whole = (tmp_path / f"x{suffix}").read_bytes()
    rng, refusals = np.random.default_rng(3), 0
    for _ in range(150):
        altered = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, min(len(whole), 200), 2):
            if at < len(altered):
                altered[at] = rng.integers(256)
        (tmp_path / f"x{suffix}").write_bytes(altered)
        try:
            found = load_folder(tmp_path)
        except UsageError as error:
            assert f"x{suffix}" in str(error)
            refusals += 1
        else:
            assert len(found.arrays["images"]) == 1
    assert refusals > 10


# Depth: what has other than 8 bits or two values is not fitted, and goes into archives byte for byte

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
        assert image.mode == mode
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


# One image in a file


def stack_of(first: bytes, more: bytes) -> bytes:
    """A TIFF file with the pixels of more images behind its own, of which no tag speaks, as ImageJ writes stacks."""
    assert first[:8] == b"II*\0\10\0\0\0"  # the pixels come last
    return first + more


def frames(form: str, **options: object) -> bytes:
    f, images = io.BytesIO(), [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    images[0].save(f, form, save_all=True, append_images=images[1:], **options)
    return f.getvalue()


PNM = encoded(GREY, "PPM")
SEVERAL = {
    "frames.png": frames("PNG"),
    "pages.tif": frames("TIFF"),
    "frames.webp": frames("WEBP", lossless=True),
    "two.png": encoded(GREY, "PNG") * 2,
    "after.png": encoded(GREY, "PNG") + b"\0",
    "two.pgm": PNM + PNM,
    "after.ppm": encoded(COLOUR, "PPM") + b"x",
    "two.pbm": b"P4 8 1 \xaa" * 2,
    "text.pgm": b"P2 2 1 255 7 8 9",
    "after.webp": webp(COLOUR) + b"more",
    "stack.tif": stack_of(encoded(GREY, "TIFF"), GREY.tobytes()),
    "zeros.tif": stack_of(encoded(GREY, "TIFF"), bytes(GREY.size)),
    "stack.tiff": stack_of(encoded(GREY, "TIFF"), b"\1"),
    "pictures.jpg": frames("MPO"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_image_files_that_hold_more_than_one_image_are_neither_fitted_nor_taken_for_one(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match=name):
        load_folder(grow(tmp_path / "p", {name: SEVERAL[name]}))
    suffix = Path(name).suffix
    if suffix not in (".jpg", ".pbm"):  # which are bytes in archives, always
        assert read_image(SEVERAL[name], suffix) is None


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.bmp", "a.pgm", "a.ppm", "a.tif", "a.webp", "a.jpg", "b.pgm", "a.pbm", "b.pbm", "c.tif", "d.tif"],
)
def test_image_files_of_one_image_are_read(tmp_path: Path, name: str) -> None:
    data = {
        "a.png": encoded(GREY, "PNG"),
        "a.bmp": encoded(GREY, "BMP"),
        "a.pgm": PNM,
        "a.ppm": encoded(COLOUR, "PPM"),
        "a.tif": encoded(GREY, "TIFF"),
        "a.webp": webp(COLOUR),
        "a.jpg": encoded(COLOUR, "JPEG"),
        "b.pgm": b"P2 # made by hand\n2 1 255 7 # seven\n8",
        "a.pbm": b"P4 8 1 \xaa",
        "b.pbm": b"P1\n2 2\n01 10\n",
        "c.tif": encoded(COLOUR, "TIFF", compression="tiff_lzw", tiffinfo={270: "odd"}),
        "d.tif": encoded(GREY, "TIFF") + bytes(9),  # padding
    }[name]
    found = load_folder(grow(tmp_path / "p", {name: data}))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(found.arrays["images"][0], np.asarray(image).astype(np.uint8))
