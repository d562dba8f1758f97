"""Image files as pixels and metadata, and back: the same pixels, mode and metadata, in a file of other bytes.

A file is taken apart only where it comes back in the same form: not a progressive PNG, nor a TIFF in tiles or of a
compression that Pillow does not write as it finds it (docs/archives.md).
"""

import io
import struct
import warnings
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaedensity.data import image_metadata, tiff
from vaedensity.data.tree_meta import MODES
from vaedensity.errors import DamagedArchive

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
# The same pixels with less effort.
QUICK: dict[str, dict[str, Any]] = {
    "PNG": {"optimize": False, "compress_level": 1},
    "WEBP": {"quality": 0, "method": 0},
}
LARGEST_FILE = 1 << 28  # larger ones are not worth the memory of taking them apart
# What Pillow says on how pixels were stored, which may change.
STORAGE_INFOS = ("compression", "interlace")
# What writing may raise where an archive holds what no image can be.
UNWRITABLE = (ValueError, TypeError, KeyError, SystemError, OverflowError, struct.error)


class ImageFile(NamedTuple):
    """What an image file holds.

    ``pixels`` are (H,W) or (H,W,3) uint8, 0 and 1 in the two-valued ``mode`` "1"; ``extras`` are its metadata, as
    `image_metadata` takes them out.
    """

    pixels: NDArray[np.uint8]
    mode: str
    extras: bytes


def read_image(data: bytes, suffix: str) -> ImageFile | None:
    """What the image file ``data`` holds, or None where :func:`image_bytes` would not give back all that it shows.

    That is tried here. Of BMP, PGM and PPM files every byte has to come back. ``suffix`` is that of the file's name in
    lower case, one of WRITERS.
    """
    try:
        extras = image_metadata.take(data, suffix) if suffix in image_metadata.KEPT_OF else b""
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Pillow only half understands is kept as bytes
            pixels, mode, infos = _open(data, suffix)
            if mode not in MODES or (suffix == ".webp" and mode != "RGB"):
                return None
            back = image_bytes(pixels, mode, suffix, extras, quick=True)
            if suffix not in image_metadata.KEPT_OF:
                return ImageFile(pixels, mode, extras) if back == data else None
            same_pixels, same_mode, same_infos = _open(back, suffix)
            same = mode == same_mode and np.array_equal(pixels, same_pixels) and infos == same_infos
            same = same and image_metadata.take(back, suffix) == extras and _form(data, suffix) == _form(back, suffix)
            return ImageFile(pixels, mode, extras) if same else None
    except Exception:  # however Pillow stumbles over somebody's file, its bytes can be kept
        return None


def image_bytes(pixels: NDArray[np.uint8], mode: str, suffix: str, extras: bytes, *, quick: bool = False) -> bytes:
    """The bytes of a file with the parts of an :class:`ImageFile`; ``quick``: larger but sooner.

    Raises DamagedArchive where there can be no such image.
    """
    try:
        if mode == "1" and pixels.max() > 1:
            raise ValueError("its values are other than 0 and 1")
        f = io.BytesIO()
        options = {"compression": tiff.writer(extras)} if image_metadata.KEPT_OF.get(suffix) == "tiff" else {}
        save_image(f, np.ascontiguousarray(pixels), mode, suffix, quick=quick, **options)
        return image_metadata.put(f.getvalue(), suffix, extras)
    except UNWRITABLE as error:
        raise DamagedArchive(f"the archive holds an image that cannot be written ({error})") from error


def _open(data: bytes, suffix: str) -> tuple[NDArray[np.uint8], str, dict[object, object]]:
    """Pixels, mode and what Pillow says on a file of one image. Raises whatever Pillow does."""
    with Image.open(io.BytesIO(data), formats=[WRITERS[suffix]["format"]]) as image:
        if getattr(image, "n_frames", 1) != 1 or "transparency" in image.info or image.mode not in MODES:
            raise ValueError("no plain image")
        pixels = np.asarray(image).astype(np.uint8)
        return pixels, image.mode, {k: v for k, v in image.info.items() if k not in STORAGE_INFOS}


def _form(data: bytes, suffix: str) -> object:
    """What decides how the stored numbers are shown, and must be the same in both files."""
    kind = image_metadata.KEPT_OF[suffix]
    return image_metadata.png_form(data) if kind == "png" else tiff.meaning(data) if kind == "tiff" else None


def save_image(
    f: BinaryIO, pixels: NDArray[np.uint8], mode: str, suffix: str, *, quick: bool = False, **options: Any
) -> None:
    """Write pixels (H,W) or (H,W,3) uint8 in the format of ``suffix``.

    ``quick``: larger but sooner; further ``options`` are Pillow's.
    """
    image = Image.fromarray(pixels * 255 if mode == "1" else pixels)
    if mode == "1":
        image = image.convert("1", dither=Image.Dither.NONE)
    writer = WRITERS[suffix.lower()] | options
    image.save(f, **(writer | QUICK.get(writer["format"], {}) if quick else writer))
