"""Files of any kind, and folders of them, as their bytes."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from vaedensity.data.atomic import OwnFiles
from vaedensity.data.collection import Collection
from vaedensity.data.disk_array import FileArray
from vaedensity.data.folder_files import all_files, require_regular
from vaedensity.data.long_paths import LongPaths
from vaedensity.errors import UsageError, changed


def load_file(path: Path) -> Collection:
    """Any regular file as the array ``bytes`` (n,) uint8, read when it is needed; n may be 0.

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
    """All files of a folder and its subfolders, one after the other by sorted relative name, as ``bytes`` (n,) uint8.

    For fit and score; :class:`~vaedensity.data.tree.Tree` reads folders for archives.

    Raises UsageError for links and for what is no regular file or cannot be read: of files, nothing is left out
    silently but ``own_files``.
    """
    found = all_files(path, "regular files", own_files)
    require_regular(path, found, "regular files")
    names = [p.relative_to(path).as_posix() for p in found]
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
    return Collection(str(path), {"bytes": data}, files=tuple(zip(names, sizes)))


def places(collection: Collection, length: int, count: int) -> tuple[list[str], list[int]]:
    """Where ``count`` pieces of ``length`` bytes of a collection begin: the file of each piece, and the offset in it.

    >>> places(Collection("folder", {}, files=(("a", 5), ("b", 9))), 4, 3)
    (['a', 'a', 'b'], [0, 4, 3])
    """
    names, sizes = zip(*(collection.files or [(collection.meta["name"], 0)]))
    starts = np.arange(count, dtype=np.int64) * length
    begins = np.cumsum([0, *sizes[:-1]])
    at = np.searchsorted(begins, starts, side="right") - 1  # of files that begin together the last, which is not empty
    return [names[i] for i in at], (starts - begins[at]).tolist()
