"""Which files of a folder are images, by their names."""

import os
import stat
from pathlib import Path, PurePath

from vaedensity.data.long_paths import LongPaths

READ = (".png", ".bmp", ".pgm", ".ppm", ".pbm", ".pnm", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")
# Images, but of kinds that are not read: not to be passed over like a text file.
OTHERS = frozenset(
    [
        ".gif",
        ".jp2",
        ".j2k",
        ".jpx",
        ".jxl",
        ".jls",
        ".jpe",
        ".jfif",
        ".avif",
        ".heic",
        ".heif",
        ".tga",
        ".dds",
        ".ico",
        ".pcx",
        ".psd",
        ".xcf",
        ".exr",
        ".hdr",
        ".pam",
        ".pfm",
        ".dcm",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".raf",
        ".orf",
        ".rw2",
        ".fit",
        ".fits",
    ]
)


def is_image_name(name: str | Path) -> bool:
    """Whether a file of this name is an image of a kind that is read."""
    return PurePath(name).suffix.lower() in READ


def is_junk(name: PurePath) -> bool:
    """Whether a file of this name, relative to the folder that was asked for, is no image: by its suffix, or hidden, as
    what systems leave in folders (.DS_Store, ._x.png, .thumbnails/x.png)."""
    return any(part.startswith(".") for part in name.parts) or name.suffix.lower() not in (*READ, *OTHERS)


def holds_images(folder: Path) -> bool:
    """Whether any file in a folder, or below it, is an image by its name."""
    with LongPaths(os.fspath(folder)) as paths:
        walk = paths.walk(lambda name, error: None)
        return any(not stat.S_ISDIR(state.st_mode) and not is_junk(PurePath(name)) for name, state in walk)
