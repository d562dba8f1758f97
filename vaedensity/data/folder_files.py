"""Which files lie in a folder and its subfolders, and which of them are images by their names."""

import os
import re
import stat
from pathlib import Path, PurePath
from typing import NoReturn

from vaedensity.data.atomic import OwnFiles
from vaedensity.data.long_paths import LongPaths
from vaedensity.errors import UsageError

READ = (".png", ".bmp", ".pgm", ".ppm", ".pbm", ".pnm", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")
# Images, but of kinds that are not read: not to be passed over like a text file.
OTHERS = re.compile(
    r"\.(gif|jp2|j2k|jpx|jxl|jls|jpe|jfif|avif|heic|heif|tga|dds|ico|pcx|psd|xcf|exr|hdr|pam|pfm|dcm|dng|cr[23]|nef|arw"
    r"|raf|orf|rw2|fits?)"
)


def all_files(folder: Path, expected: str, own_files: OwnFiles = OwnFiles()) -> list[Path]:
    """All in a folder and its subfolders that is no folder, sorted, without ``own_files``; links to folders included.

    Raises UsageError where a subfolder cannot be read, or nothing is found; the message says that ``expected`` was.
    """

    def refuse(name: str, error: OSError) -> NoReturn:
        raise UsageError(f"{folder}: {name or 'it'} cannot be read ({error.strerror})") from error

    try:
        with LongPaths(os.fspath(folder)) as paths:
            walk = paths.walk(refuse, own_files.has)
            found = sorted(folder / name for name, state in walk if not stat.S_ISDIR(state.st_mode))
    except OSError as error:
        refuse("", error)
    if not found:
        raise UsageError(f"{folder}: the folder is empty; expected {expected}")
    return found


def require_regular(folder: Path, found: list[Path], expected: str) -> None:
    """Raise UsageError where a link, or what is no regular file, is among the files ``found`` in ``folder``."""
    with LongPaths(os.fspath(folder)) as paths:
        for name in (str(path.relative_to(folder)) for path in found):
            if not stat.S_ISREG(paths.state(name).st_mode):
                shown = name.replace(os.sep, "/")
                raise UsageError(f"{folder}: {shown} is a link or no regular file; expected {expected} only")


def is_image_name(name: str | Path) -> bool:
    """Whether a file of this name is an image of a kind that is read."""
    return PurePath(name).suffix.lower() in READ


def is_no_image(name: PurePath) -> bool:
    """Whether a file of this name, relative to the folder that was asked for, is no image: by its suffix, or hidden.

    Systems leave hidden files in folders: .DS_Store, ._x.png, .thumbnails/x.png.
    """
    suffix = name.suffix.lower()
    return any(part.startswith(".") for part in name.parts) or not (suffix in READ or OTHERS.fullmatch(suffix))


def holds_images(folder: Path) -> bool:
    """Whether any file in a folder, or below it, is an image by its name."""
    with LongPaths(os.fspath(folder)) as paths:
        walk = paths.walk(lambda name, error: None)
        return any(not stat.S_ISDIR(state.st_mode) and not is_no_image(PurePath(name)) for name, state in walk)
