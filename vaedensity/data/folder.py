"""Folders of images of one size and mode, for fit and score.

What a file itself says of its depth is looked at, too: libraries round deeper values, and pass over further images.
"""

import io
import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from vaedensity.data import image_metadata, tiff
from vaedensity.data.atomic import OwnFiles
from vaedensity.data.collection import Collection
from vaedensity.data.folder_files import READ, all_files, is_image_name, is_no_image, require_regular
from vaedensity.data.tree_meta import MODES
from vaedensity.errors import UsageError, first_line

DEEP_MODES = ("I", "I;16", "I;16B", "F")  # grey of more than 8 bits
FORMATS = ("PNG", "BMP", "PPM", "TIFF", "WEBP", "JPEG")
# What Pillow raises on files that are cut off, altered or something else.
BROKEN = (
    *(UnidentifiedImageError, Image.DecompressionBombError, struct.error, zlib.error, OSError, EOFError, ValueError),
    *(TypeError, KeyError, IndexError, OverflowError, RuntimeError, SyntaxError),
)
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 277, 339  # tags of TIFF
REMEDY = "convert it, or pack it with compress, which keeps files as they are"
SAMPLES = {b"P1": 1, b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3}  # a pixel, of PBM, PGM and PPM files


class Unfit(ValueError):
    """A whole image of a kind that fit and score do not take; the message says why and what to do."""


def load_folder(path: Path, own_files: OwnFiles = OwnFiles(), *, strict: bool = False) -> Collection:
    """All images of a folder and its subfolders, by sorted relative name.

    Parameters
    ----------
    path
        The folder.
    own_files
        What this run writes, which is left out.
    strict
        Whether other files are an error; else they become ``skipped``.

    Returns
    -------
    Collection
        Its array ``images`` is (N,H,W) or (N,H,W,3) uint8; ``item_names`` are the images' names.

    Raises
    ------
    UsageError
        For links and for images that cannot be read, hold other than 8 bits a channel (or two values), or differ in
        size or mode.
    """
    files: list[Path] = []
    skipped: list[Path] = []
    for p in all_files(path, "images", own_files):
        aside = is_no_image(p.relative_to(path)) and not (p.is_symlink() and p.is_dir())
        (skipped if aside else files).append(p)
    require_regular(path, files, "images")
    if not files or (strict and skipped):
        few = ", ".join(p.relative_to(path).as_posix() for p in skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        raise UsageError(f"{path}: {len(skipped)} files are no images ({few}); expected {', '.join(READ)} files")
    names = [p.relative_to(path).as_posix() for p in files]
    first, mode = _open(files[0])
    stack = np.empty((len(files), *first.shape), np.uint8)
    for i, p in enumerate(files):
        pixels, found_mode = _open(p)
        if pixels.shape != first.shape or found_mode != mode:
            raise UsageError(
                f"{path}: {names[i]} is {found_mode} {pixels.shape[1]}x{pixels.shape[0]}, {names[0]} is {mode} "
                f"{first.shape[1]}x{first.shape[0]}; expected images of one size and mode"
            )
        stack[i] = pixels
    others = tuple(p.relative_to(path).as_posix() for p in skipped)
    return Collection(str(path), {"images": stack}, item_names=names, skipped=others)


def _open(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Pixels (H,W) or (H,W,3) uint8 and the image's mode."""
    if not is_image_name(path):
        kinds = ", ".join(READ)
        raise UsageError(f"{path}: is an image of a kind that is not read; expected {kinds} files; convert it")
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode in (*MODES, *DEEP_MODES):
                _require_eight_bits(data, image)
            _require_one_image(data, image)
            if image.mode not in MODES or "transparency" in image.info:
                raise Unfit(f"mode {image.mode}, expected grey (L, 1) or RGB without transparency; convert it first")
            return np.asarray(image).astype(np.uint8), image.mode
    except Unfit as error:
        raise UsageError(f"{path}: {error}") from error
    except BROKEN as error:
        reason = first_line(error)
        if isinstance(error, UnidentifiedImageError):  # whose text is of an object in memory
            reason = "its bytes are of no image format that is known"
        raise UsageError(f"{path}: no image that can be read: {reason}; replace it or take it out") from error


def _require_eight_bits(data: bytes, image: Image.Image) -> None:
    """Raise Unfit unless the values in an image file ``data``, opened as ``image``, have 8 bits, or are two."""
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
        case "TIFF" if isinstance(image, TiffImageFile):
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


def _require_one_image(data: bytes, image: Image.Image) -> None:
    """Raise Unfit where an image file ``data``, opened as ``image``, holds more images, or bytes behind it."""
    count = getattr(image, "n_frames", 1)
    if count != 1:
        raise Unfit(f"{count} images or frames in one file, expected one; make a file of each")
    more = 0
    match image.format:
        case "PNG":
            more = len(data) - image_metadata.png_end(data)
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
    at, numbers = 2, list[int]()
    while len(numbers) < (2 if data[:2] in (b"P1", b"P4") else 3):
        found = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([0-9]{1,9})").match(data, at)
        if found is None:
            raise ValueError("its header is not that of a PBM, PGM or PPM file")
        numbers.append(int(found[1]))
        at = found.end()
    width, height, highest = (*numbers, 1)[:3]
    return at + 1, width, height, highest


def _behind_pnm(data: bytes) -> int:
    """Bytes behind the image of a PBM, PGM or PPM file of 8 bits; numbers where it is written as text."""
    at, width, height, _ = _pnm(data)
    kind = data[:2]
    if kind == b"P4":
        return len(data) - at - -(-width // 8) * height
    if kind in (b"P5", b"P6"):
        return len(data) - at - SAMPLES[kind] * width * height
    text = re.sub(rb"#[^\r\n]*", b"", data[at - 1 :])
    found = len(text.translate(None, b" \t\r\n\v\f")) if kind == b"P1" else len(text.split())
    return found - SAMPLES[kind] * width * height
