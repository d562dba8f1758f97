"""From a DATA or INPUT argument to a collection."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.byte_files import load_file, load_files
from vaedensity.data.collection import Collection, LoadOptions
from vaedensity.data.files import load_npy, load_npz, main_array
from vaedensity.data.named import is_named, load_named, names
from vaedensity.errors import UsageError


def load(spec: str, options: LoadOptions = LoadOptions()) -> Collection:
    """A data set's name, a .npy file, a .npz file with or without ``:array``, any other file (its bytes), or a
    folder: of images, or with ``options.as_bytes`` of files of any kind.

    What exists on disk comes before a name. Raises UsageError.
    """
    if not spec:
        raise UsageError("an empty name is no data; expected the name of a data set, a file or a folder")
    path = Path(spec)
    if path.is_dir():
        if options.as_bytes:
            return load_files(path)
        from vaedensity.data.folder import load_folder

        return load_folder(path)
    if path.is_file() and path.suffix.lower() == ".npy":
        return replace(load_npy(path), disk_bytes=path.stat().st_size)
    if path.is_file() and path.suffix.lower() == ".npz":
        return replace(load_npz(path, None), disk_bytes=path.stat().st_size)
    if path.exists():
        return load_file(path)
    file, colon, member = spec.rpartition(":")
    if colon and Path(file).is_file() and file.lower().endswith(".npz"):
        return load_npz(Path(file), member)
    if is_named(spec):
        return load_named(spec, options)
    raise UsageError(f"{spec}: no such file or folder, and no data set of that name ({', '.join(names())})")


def load_array(spec: str, options: LoadOptions = LoadOptions()) -> tuple[Collection, NDArray[Any]]:
    """The collection and its array of items in memory, for fit and score."""
    collection = load(spec, options)
    return collection, np.asarray(main_array(collection, options))
