"""Folders of equally sized images, in and out."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vaedensity.data.atomic import OwnFiles
from vaedensity.data.byte_files import all_files, require_regular
from vaedensity.data.collection import Collection
from vaedensity.data.image_depth import Unfit, require_eight_bits, require_one_image
from vaedensity.data.image_names import READ, is_image_name, is_junk
from vaedensity.errors import UsageError

# Formats that give the same pixels back when written.
WRITERS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "optimize": True},
    ".bmp": {"format": "BMP"},
    ".pgm": {"format": "PPM"},
    ".ppm": {"format": "PPM"},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},
}
MODES = ("L", "RGB", "1")
DEEP_MODES = ("I", "I;16", "I;16B", "F")  # grey of more than 8 bits
FORMATS = ("PNG", "BMP", "PPM", "TIFF", "WEBP", "JPEG")
# What Pillow raises on files that are cut off, altered or something else.
BROKEN = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    zlib.error,
)


def load_folder(path: Path, own_files: OwnFiles = OwnFiles(), *, strict: bool = False) -> Collection:
    """All images of a folder and its subfolders, by sorted relative name, for fit and score; without ``own_files``.

    Other files are ``skipped``, or with ``strict`` refused; so are, in any case, links, and images that cannot be read, are not of
    8 bits, or differ in size or mode.
    """
    files, skipped = [], []
    for p in all_files(path, "images", own_files):
        aside = is_junk(p.relative_to(path)) and not (p.is_symlink() and p.is_dir())
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
    meta = {"kind": "folder", "name": path.resolve().name or "folder", "mode": mode, "files": names}
    others = tuple(p.relative_to(path).as_posix() for p in skipped)
    return Collection(str(path), {"images": stack}, meta, names, skipped=others)


def _open(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Pixels (H,W) or (H,W,3) uint8 and the image's mode."""
    if not is_image_name(path):
        raise UsageError(
            f"{path}: is an image of a kind that is not read; expected {', '.join(READ)} files; convert it"
        )
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode in (*MODES, *DEEP_MODES):
                require_eight_bits(data, image)
            require_one_image(data, image)
            if image.mode not in MODES or "transparency" in image.info:
                raise Unfit(f"mode {image.mode}, expected grey (L, 1) or RGB without transparency; convert it first")
            return np.asarray(image).astype(np.uint8), image.mode
    except Unfit as error:
        raise UsageError(f"{path}: {error}") from error
    except BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnidentifiedImageError):  # whose text is of an object in memory
            reason = "its bytes are of no image format that is known"
        raise UsageError(f"{path}: no image that can be read: {reason}; replace it or take it out") from error


# The same pixels with less effort.
QUICK: dict[str, dict[str, Any]] = {
    "PNG": {"optimize": False, "compress_level": 1},
    "WEBP": {"quality": 0, "method": 0},
}


def save_image(
    f: BinaryIO, pixels: NDArray[np.uint8], mode: str, suffix: str, *, quick: bool = False, **options: Any
) -> None:
    """Write pixels (H,W) or (H,W,3) in the format of ``suffix``; ``quick``: larger but sooner; ``options`` are Pillow's."""
    image = Image.fromarray(pixels * 255 if mode == "1" else pixels)
    if mode == "1":
        image = image.convert("1", dither=Image.Dither.NONE)
    writer = WRITERS[suffix.lower()] | options
    image.save(f, **(writer | QUICK.get(writer["format"], {}) if quick else writer))
