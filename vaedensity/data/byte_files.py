"""Files of any kind, and folders of them, as their bytes."""

import os
import stat
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vaedensity.data.atomic import OwnFiles
from vaedensity.data.collection import Collection
from vaedensity.data.disk_array import FileArray
from vaedensity.data.long_paths import LongPaths
from vaedensity.errors import UsageError, changed


def load_file(path: Path) -> Collection:
    """Any regular file: its array ``bytes`` (n,) uint8, read when it is needed, n may be 0.

    Raises UsageError where there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no regular file; expected a file to read the bytes of")
    try:
        if size := path.stat().st_size:
            data: Any = FileArray(path, np.dtype(np.uint8), (size,))
        else:  # files that the system makes up while they are read have no size
            data = np.frombuffer(path.read_bytes(), np.uint8)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return Collection(str(path), {"bytes": data}, {"kind": "file", "name": path.name}, disk_bytes=data.size)


def load_files(path: Path, own_files: OwnFiles = OwnFiles()) -> Collection:
    """All files of a folder and its subfolders, by sorted relative name, one after the other: the array
    ``bytes`` (n,) uint8; restore metadata's ``sizes`` are the bytes of each of its ``files``.

    Refuses links and what is no regular file: of files, nothing is left out silently but those that this run writes. Empty subfolders, times and
    rights are not kept. Raises UsageError.
    """
    names = [p.relative_to(path).as_posix() for p in regular_files(path, "regular files", own_files)]
    try:
        with LongPaths(os.fspath(path)) as paths:
            sizes = [paths.state(os.path.normpath(name)).st_size for name in names]
            data, begin = np.empty(sum(sizes), np.uint8), 0
            for name, size in zip(names, sizes):
                with open(os.path.normpath(name), "rb", opener=paths.opener) as f:
                    if f.readinto(data[begin : begin + size].data) != size or f.read(1):
                        raise changed(f"{path}: {name}")
                begin += size
    except OSError as error:
        raise UsageError(f"{path}: {error.filename} cannot be read ({error.strerror or error})") from error
    meta = {"kind": "files", "name": path.resolve().name or "folder", "files": names, "sizes": sizes}
    return Collection(str(path), {"bytes": data}, meta)


def places(meta: dict[str, Any], length: int, count: int) -> tuple[list[str], list[int]]:
    """(file, offset in it) of the first byte of each of ``count`` pieces of ``length`` bytes of what :func:`load_file` and
    :func:`load_files` read, from their ``meta``."""
    names = meta.get("files", [meta["name"]])
    starts = np.arange(count, dtype=np.int64) * length
    begins = np.cumsum([0, *meta.get("sizes", [])[:-1]])
    at = np.searchsorted(begins, starts, side="right") - 1  # of files that begin together the last, which is not empty
    return [names[i] for i in at], (starts - begins[at]).tolist()


def regular_files(folder: Path, expected: str, own_files: OwnFiles = OwnFiles()) -> list[Path]:
    """The files of a folder and its subfolders, sorted, one at least; without ``own_files``.

    Raises UsageError for a link, what is no regular file, and a subfolder that cannot be read; ``expected``, in
    words, is what the line says to put there.
    """
    return require_regular(folder, all_files(folder, expected, own_files), expected)


def all_files(folder: Path, expected: str, own_files: OwnFiles = OwnFiles()) -> list[Path]:
    """Whatever lies in a folder and its subfolders and is no folder, sorted, one at least; links to folders are among it."""

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


def require_regular(folder: Path, found: list[Path], expected: str) -> list[Path]:
    """``found``, unless a link or what is no regular file is among it: UsageError."""
    with LongPaths(os.fspath(folder)) as paths:
        for name in (str(path.relative_to(folder)) for path in found):
            if not stat.S_ISREG(paths.state(name).st_mode):
                shown = name.replace(os.sep, "/")
                raise UsageError(f"{folder}: {shown} is a link or no regular file; expected {expected} only")
    return found
