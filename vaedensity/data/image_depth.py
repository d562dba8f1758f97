"""What an image file itself says of its depth, and of what it holds beside one image: libraries round and pass over."""

import re
from contextlib import suppress

from PIL import Image

from vaedensity.data import metadata, tiff

BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 277, 339
REMEDY = "convert it, or pack it with compress, which keeps files as they are"
RASTER = {b"P4": lambda w, h: -(-w // 8) * h, b"P5": lambda w, h: w * h, b"P6": lambda w, h: 3 * w * h}
SAMPLES = {b"P1": 1, b"P2": 1, b"P3": 3}  # written as text


class Unfit(ValueError):
    """An image that may be whole but is none that fit and score take; the message says why and what to do."""


def require_eight_bits(data: bytes, image: Image.Image) -> None:
    """Raise Unfit unless the values of an opened image file ``data`` are of 8 bits, or two, as they are in the file."""
    match image.format:
        case "PNG":
            if data[12:16] != b"IHDR" or data.count(b"\0\0\0\x0dIHDR") != 1:
                raise Unfit(f"its header is not where it should be, or there twice; {REMEDY}")
            depths = {data[24]}
        case "BMP":
            at = 28 if int.from_bytes(data[14:18], "little") >= 40 else 24
            bits = int.from_bytes(data[at : at + 2], "little")
            if bits == 32:
                raise Unfit(f"32 bits a pixel, of which 8 are left over, expected grey or RGB; {REMEDY}")
            depths = {5} if bits == 16 else {8}
        case "TIFF":
            depths, bands = set(image.tag_v2.get(BITS_PER_SAMPLE, (1,))), len(image.getbands())
            if (samples := int(image.tag_v2.get(SAMPLES_PER_PIXEL, 1))) != bands:
                raise Unfit(f"{samples} values a pixel, expected {bands}: grey or RGB; {REMEDY}")
            if set(image.tag_v2.get(SAMPLE_FORMAT, (1,))) != {1}:
                raise Unfit(f"values with a sign or fractions, expected 0 to 255; {REMEDY}")
        case "PPM":
            highest = _pnm(data)[3]
            if highest != 255 and image.mode != "1":
                raise Unfit(f"values from 0 to {highest}, expected 8 bits a channel (0 to 255); {REMEDY}")
            depths = {8}
        case _:
            depths = {8}
    if depths != {8} and not (depths == {1} and image.mode == "1"):
        found = ", ".join(map(str, sorted(depths)))
        raise Unfit(f"{found} bits a channel, expected 8; {REMEDY}")


def require_one_image(data: bytes, image: Image.Image) -> None:
    """Raise Unfit where an opened image file ``data`` holds more than one image, or bytes behind it."""
    count = getattr(image, "n_frames", 1)
    if count != 1:
        raise Unfit(f"{count} images or frames in one file, expected one; make a file of each")
    more = 0
    match image.format:
        case "PNG":
            more = len(data) - metadata.png_end(data)
        case "WEBP":
            more = len(data) - 8 - int.from_bytes(data[4:8], "little")
        case "PPM":
            more = _behind_pnm(data)
        case "TIFF":
            with suppress(ValueError):  # a form of TIFF whose bytes cannot all be named
                more = tiff.bytes_of_nothing(data)
    if more > 0:
        raise Unfit(f"{more} bytes that belong to no image, or to further ones; expected one image; save it anew")


def _pnm(data: bytes) -> tuple[int, int, int, int]:
    """(where the raster begins, width, height, highest value) of a PBM, PGM or PPM file. Raises ValueError."""
    numbers, at = [], 2
    count = 2 if data[:2] in (b"P1", b"P4") else 3
    while len(numbers) < count:
        found = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([0-9]{1,9})").match(data, at)
        if found is None:
            raise ValueError("its header is not that of a PBM, PGM or PPM file")
        numbers.append(int(found[1]))
        at = found.end()
    width, height, highest = (*numbers, 1)[:3]
    return at + 1, width, height, highest


def _behind_pnm(data: bytes) -> int:
    """Bytes behind the image of a PBM, PGM or PPM file of 8 bits."""
    at, width, height, _ = _pnm(data)
    kind = data[:2]
    if kind in RASTER:
        return len(data) - at - RASTER[kind](width, height)
    text = re.sub(rb"#[^\r\n]*", b"", data[at - 1 :])
    found = len(text.translate(None, b" \t\r\n\v\f")) if kind == b"P1" else len(text.split())
    return found - SAMPLES[kind] * width * height
