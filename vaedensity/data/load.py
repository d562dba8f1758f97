"""From what a user names - a data set, a file, a folder - to its arrays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.array_files import NotOnlyArrays, load_npy, load_npz
from vaedensity.data.byte_files import load_file, load_files
from vaedensity.data.collection import Collection, LoadOptions
from vaedensity.data.folder_files import holds_images, is_image_name
from vaedensity.data.named import is_named, load_named, names
from vaedensity.errors import UsageError

USUAL_NAMES = ("x_train", "x_test", "x", "images", "data", "arr_0")


def load(spec: str, options: LoadOptions = LoadOptions()) -> Collection:
    """What ``spec`` names, but no folder, to be packed: all arrays of a .npz file, the bytes of one that holds more.

    Otherwise as :func:`load_array`.
    """
    try:
        return _load(spec, options)
    except NotOnlyArrays as error:
        if not (path := Path(spec)).is_file():  # an array in it, which is no file
            raise
        return replace(load_file(path), remark=f"{error.found}; kept byte for byte")


def load_array(spec: str, options: LoadOptions = LoadOptions()) -> tuple[Collection, NDArray[Any]]:
    """The items that ``spec`` names, in memory, for fit and score.

    Parameters
    ----------
    spec
        A data set's name, a .npy file, a .npz file with or without ``:array``, any other file (its bytes), or a folder:
        of images, or with ``options.as_bytes`` of files of any kind. What exists on disk comes before a data set.
    options
        How to read it.

    Returns
    -------
    Collection, numpy.ndarray
        What was read, and the one array of it that is meant; ``remark`` says so where it holds others.

    Raises
    ------
    UsageError
        If there is no such data, or it cannot be read, or would not be whole.

    Examples
    --------
    >>> load_array("digits:test")[1].shape
    (297, 8, 8)
    """
    if not options.as_bytes and is_image_name(spec) and Path(spec).is_file():
        raise UsageError(f"{spec}: is one image; expected a folder of images")
    collection = _load_folder(Path(spec), options) if spec and Path(spec).is_dir() else _load(spec, options)
    array = main_array(collection)
    if len(collection.arrays) > 1:
        (name,) = (name for name, one in collection.arrays.items() if one is array)
        held = ", ".join(collection.arrays)
        collection = replace(collection, remark=f"{collection.source}: read {name} alone; it holds {held}")
    return collection, np.asarray(array)


def _load_folder(path: Path, options: LoadOptions) -> Collection:
    options.own_files.require_other(path)
    if options.as_bytes or (options.as_bytes is None and not holds_images(path)):
        return load_files(path, options.own_files)
    from vaedensity.data.folder import load_folder

    return load_folder(path, options.own_files, strict=options.strict)


def _load(spec: str, options: LoadOptions) -> Collection:
    if not spec:
        raise UsageError("an empty name is no data; expected the name of a data set, a file or a folder")
    path = Path(spec)
    options.own_files.require_other(path)
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


def main_array(collection: Collection) -> NDArray[Any]:
    """The one array that is meant: the only one, or the first of the usual names."""
    arrays = collection.arrays
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    for name in USUAL_NAMES:
        if name in arrays:
            return arrays[name]
    found = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
    raise UsageError(f"{collection.source}: which array? It holds {found}; name one as {collection.source}:NAME")
