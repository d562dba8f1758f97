"""Arrays in .npy and .npz files, in and out, never unpickled."""

import os
import re
import shutil
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.collection import Collection, LoadOptions
from vaedensity.data.disk_array import DiskArray, FileArray
from vaedensity.data.tree_names import escaped
from vaedensity.data.whole import require_arrays_alone, require_member_alone, require_npy_alone
from vaedensity.errors import UsageError, changed

# What numpy and zipfile raise on files that are cut off, altered, encrypted or something else.
BROKEN = (
    ValueError,
    TypeError,
    OverflowError,
    OSError,
    EOFError,
    KeyError,
    IndexError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class NotOnlyArrays(UsageError):
    """A .npy or .npz file of which reading arrays would lose something; as bytes it can be kept. ``found``: what is amiss."""

    def __init__(self, found: str, remedy: str):
        super().__init__(f"{found}; {remedy}")
        self.found = found


def load_npy(path: Path) -> Collection:
    """One array, read when it is needed. Raises UsageError where the file holds anything else."""
    try:
        since = path.stat()
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays, as .npz files do")
        require_npy_alone(path, array)
    except BROKEN as error:
        raise NotOnlyArrays(
            f"{path}: cannot be taken as one array ({_reason(error)})",
            "expected one array of numbers, as numpy.save writes it",
        ) from error
    return Collection(
        str(path), {escaped(path.stem): _unmapped(path, array, since)}, {"kind": "npy", "name": path.name}
    )


def _unmapped(path: Path, array: Any, since: os.stat_result) -> Any:
    """``array``, mapped from the file ``path``, as one whose reading survives that the file is cut off."""
    try:
        if array.ndim and array.size and array.dtype.itemsize and array.flags.c_contiguous:
            return FileArray(path, array.dtype, array.shape, array.offset, since)
        return np.load(path, allow_pickle=False)
    except BROKEN as error:
        raise changed(path) from error


def load_npz(path: Path, member: str | None) -> Collection:
    """All arrays of an .npz file, or the one named ``member``. Raises UsageError where the file, or the member, holds
    anything else."""
    try:
        f = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(f, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, as .npy files do")
        with f:
            if member is not None and member not in f.files:
                raise UsageError(f"{path}: no array {member!r}; it holds {', '.join(f.files)}")
            if member is None:
                require_arrays_alone(path, f.zip)
            elif f.zip.namelist().count(f"{member}.npy") != 1:
                raise ValueError(f"it holds {member}.npy {f.zip.namelist().count(f'{member}.npy')} times")
            arrays = {name: f[f"{name}.npy"] for name in f.files if member in (None, name)}
            for name, array in arrays.items():
                require_member_alone(f.zip, name, array)
    except BROKEN as error:
        raise NotOnlyArrays(
            f"{path}: cannot be taken as arrays alone ({_reason(error)})",
            "expected arrays of numbers, as numpy.savez writes them",
        ) from error
    if member is not None:
        return Collection(f"{path}:{member}", arrays, {"kind": "npy", "name": f"{path.stem}-{_plain(member)}.npy"})
    return Collection(str(path), arrays, {"kind": "npz", "name": path.name})


def main_array(collection: Collection, options: LoadOptions) -> NDArray[Any]:
    """The one array that is meant: the only one, or the first of the usual names."""
    arrays = collection.arrays
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    for name in options.usual_names:
        if name in arrays:
            return arrays[name]
    found = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
    raise UsageError(f"{collection.source}: which array? It holds {found}; name one as {collection.source}:NAME")


class _Checked:
    """A file that numpy cannot hand to C's stdio, which loses the last bytes on a full disk without a word."""

    def __init__(self, f: BinaryIO):
        self.write = f.write


def save_npy(f: BinaryIO, array: NDArray[Any]) -> None:
    """Write a .npy file; unlike numpy.save it notices every byte that could not be written."""
    np.lib.format.write_array(_Checked(f), array, allow_pickle=False)  # type: ignore[arg-type]


def save_npz(f: BinaryIO, arrays: dict[str, Any]) -> None:
    """Write an .npz file; unlike numpy.savez it takes any array name, and arrays on disk."""
    with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED, allowZip64=True) as z:
        for name, array in arrays.items():
            with z.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(array, DiskArray):
                    with open(array.path, "rb") as whole:
                        shutil.copyfileobj(whole, member, 1 << 20)
                else:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _plain(member: str) -> str:
    """An array's name as part of a file's name."""
    return re.sub(r"[/\\:\0]", "-", member)


def _reason(error: BaseException) -> str:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return "it holds Python objects, which are never loaded"
    return (str(error).splitlines() or [type(error).__name__])[0]
