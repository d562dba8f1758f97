"""Folders with whatever is in them, and what is there to be compared."""

import io
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from vaedensity.data.collection import Collection

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (9, 11), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
UNDECODABLE = b"caf\xe9.bin"


def exif(turned: bool = True) -> Image.Exif:
    tags = Image.Exif()
    tags[271] = "Maker"
    if turned:
        tags[274] = 6
    tags.get_ifd(0x8769)[36867] = "2020:01:01 00:00:00"
    return tags


def texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a title")
    info.add_text("Long", "x" * 3000, zip=True)
    info.add_itxt("Comment", "\u00fcml\u00e4ut", lang="de")
    return info


def encoded(pixels: np.ndarray, form: str, mode: str | None = None, **options: Any) -> bytes:
    """An image file's bytes."""
    f, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(f, form, **options)
    return f.getvalue()


def webp(pixels: np.ndarray, **options: Any) -> bytes:
    return encoded(pixels, "WEBP", lossless=True, exact=True, **options)


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def grow(folder: Path, files: dict[str, bytes]) -> Path:
    """Make files; the name of an empty folder ends in ``/``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        place = folder / name
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.write_bytes(data)
    return folder


def harvest(folder: Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything in a folder and the folder itself: type, permissions, time of change, and bytes or target."""
    root = os.fsencode(folder)
    found = {}
    for parent, folders, files in os.walk(root):
        for name in [b"", *folders, *files] if parent == root else [*folders, *files]:
            place = os.path.join(parent, name)
            state = os.lstat(place)
            content: Any = None
            if stat.S_ISLNK(state.st_mode):
                content = os.readlink(place)
            elif stat.S_ISREG(state.st_mode):
                with open(place, "rb") as f:
                    content = f.read()
            found[os.path.relpath(place, root)] = (oct(state.st_mode), state.st_mtime_ns, content)
    return found


def packed(collection: Collection) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Restore metadata and arrays of a collection as they come back from an archive."""
    return collection.meta | {"arrays": {name: name for name in collection.arrays}}, dict(collection.arrays)


def always(key: object, images: object) -> bool:
    return True


def never(key: object, images: object) -> bool:
    return False
