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

    Their names are ``files`` of the restore metadata, their lengths ``sizes``. Empty subfolders, times and permissions
    are not kept.

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
    meta = {"kind": "files", "name": path.resolve().name or "folder", "files": names, "sizes": sizes}
    return Collection(str(path), {"bytes": data}, meta)


def places(meta: dict[str, Any], length: int, count: int) -> tuple[list[str], list[int]]:
    """Where ``count`` pieces of ``length`` bytes begin: the file of each piece, and the offset in it.

    ``meta`` is what :func:`load_file` or :func:`load_files` says of the bytes.
    """
    names = meta.get("files", [meta["name"]])
    starts = np.arange(count, dtype=np.int64) * length
    begins = np.cumsum([0, *meta.get("sizes", [])[:-1]])
    at = np.searchsorted(begins, starts, side="right") - 1  # of files that begin together the last, which is not empty
    return [names[i] for i in at], (starts - begins[at]).tolist()
