"""Folders of equally sized images, in and out, pixel for pixel."""

import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vaedensity.data.byte_files import regular_files
from vaedensity.data.collection import Collection
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


def load_folder(path: Path) -> Collection:
    """All images of a folder and its subfolders, by sorted relative name.

    Refuses other files, links, and images that differ in size or mode: nothing is left out silently.
    """
    files = regular_files(path, "images")
    names = [p.relative_to(path).as_posix() for p in files]
    for p, name in zip(files, names):
        if p.suffix.lower() not in WRITERS:
            raise UsageError(
                f"{path}: {name} cannot be restored pixel for pixel; expected {', '.join(WRITERS)} files only; "
                "a folder of other files needs a sequence model (-m)"
            )
    first, mode = _open(files[0])
    stack = np.empty((len(files), *first.shape), np.uint8)
    for i, p in enumerate(files):
        pixels, found = _open(p)
        if pixels.shape != first.shape or found != mode:
            raise UsageError(
                f"{path}: {names[i]} is {found} {pixels.shape[1]}x{pixels.shape[0]}, {names[0]} is {mode} "
                f"{first.shape[1]}x{first.shape[0]}; expected images of one size and mode"
            )
        stack[i] = pixels
    note = {"kind": "folder", "name": path.resolve().name or "folder", "mode": mode, "files": names}
    return Collection(str(path), {"images": stack}, note, names)


def _open(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Pixels (H,W) or (H,W,3) uint8 and the image's mode."""
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) != 1:
                raise UsageError(f"{path}: holds {image.n_frames} frames; expected single images")
            mode = image.mode
            if path.suffix.lower() == ".webp" and mode != "RGB":
                raise UsageError(f"{path}: has mode {mode}, which .webp cannot hold; name it .png")
            if mode not in MODES or "transparency" in image.info:
                raise UsageError(f"{path}: has mode {mode}; expected grey (L, 1) or RGB; convert it first")
            return np.asarray(image).astype(np.uint8), mode
    except BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path}: not a readable image ({reason}); replace it or take it out") from error


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
