"""Arrays in .npy and .npz files, in and out, never unpickled.

Reading rejects a file that holds more than its arrays, since that would be lost. How members of a .npz file are
compressed, and their dates, do not count.
"""

import os
import re
import shutil
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.collection import Collection
from vaedensity.data.disk_array import DiskArray, FileArray
from vaedensity.data.tree_names import escaped
from vaedensity.errors import UsageError, changed, first_line
from vaedensity.items import why_not_stored

LOCAL_HEADER, CENTRAL_HEADER, END, ZIP64_END = 30, 46, 22, 56 + 20  # bytes of the parts of a zip file
DESCRIBED = 0x08  # flag of a member that was written to a pipe: its size follows it

# What numpy and zipfile raise on files that are cut off, altered, encrypted or something else.
BROKEN = (
    *(ValueError, TypeError, OverflowError, OSError, EOFError, KeyError, IndexError, RuntimeError, SyntaxError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


class NotOnlyArrays(UsageError):
    """A .npy or .npz file that holds more than arrays, or less. Its bytes can be kept. ``found``: what is wrong."""

    def __init__(self, found: str, remedy: str):
        super().__init__(f"{found}; {remedy}")
        self.found = found


def load_npy(path: Path) -> Collection:
    """One array, read when it is needed. Raises UsageError where the file holds anything else."""
    try:
        since = path.stat()
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.memmap):
            raise ValueError("it holds several arrays, as .npz files do")
        with open(path, "rb") as f:
            _require_alone(f, array, os.fstat(f.fileno()).st_size)
    except BROKEN as error:
        raise NotOnlyArrays(
            f"{path}: cannot be taken as one array ({_reason(error)})",
            "expected one array of numbers, as numpy.save writes it",
        ) from error
    try:  # reading a mapped array would end the process where the file is cut off
        if array.ndim and array.size and array.dtype.itemsize and array.flags.c_contiguous:
            safe: Any = FileArray(path, array.dtype, array.shape, array.offset, since)
        else:
            safe = np.load(path, allow_pickle=False)
    except BROKEN as error:
        raise changed(path) from error
    return Collection(str(path), {escaped(path.stem): safe}, {"kind": "npy", "name": path.name})


def load_npz(path: Path, member: str | None) -> Collection:
    """All arrays of an .npz file, or the one named ``member``.

    Raises UsageError where the file, or the member, holds anything else.
    """
    try:
        f = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(f, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, as .npy files do")
        with f:
            if member is not None and member not in f.files:
                raise UsageError(f"{path}: no array {member!r}; it holds {', '.join(f.files)}")
            z = f.zip
            assert z is not None  # it is only when f is closed
            if member is None:
                _require_arrays_alone(path, z)
            elif (count := z.namelist().count(f"{member}.npy")) != 1:
                raise ValueError(f"it holds {member}.npy {count} times")
            arrays = {name: f[f"{name}.npy"] for name in f.files if member in (None, name)}
            for name, array in arrays.items():
                with z.open(f"{name}.npy") as one:
                    _require_alone(one, array, z.getinfo(f"{name}.npy").file_size)
    except BROKEN as error:
        raise NotOnlyArrays(
            f"{path}: cannot be taken as arrays alone ({_reason(error)})",
            "expected arrays of numbers, as numpy.savez writes them",
        ) from error
    if member is not None:
        plain = re.sub(r"[/\\:\0]", "-", member)
        return Collection(f"{path}:{member}", arrays, {"kind": "npy", "name": f"{path.stem}-{plain}.npy"})
    return Collection(str(path), arrays, {"kind": "npz", "name": path.name})


def _require_alone(f: IO[bytes], array: NDArray[Any], size: int) -> None:
    """Raise ValueError unless the .npy file ``f`` of ``size`` bytes holds ``array``, as an archive can, and no more."""
    if reason := why_not_stored(array):
        raise ValueError(reason)
    version = np.lib.format.read_magic(f)
    header = f.read(int.from_bytes(f.read(2 if version == (1, 0) else 4), "little"))
    more = size - np.lib.format.MAGIC_LEN - (2 if version == (1, 0) else 4) - len(header) - array.nbytes
    if more:
        raise ValueError(f"{more} more bytes follow the array")
    if b"#" in header:
        raise ValueError("its header holds a remark")


def _require_arrays_alone(path: Path, z: zipfile.ZipFile) -> None:
    """Raise ValueError unless a zip file consists of .npy members with different names, one after the other."""
    names = z.namelist()
    if not names:
        raise ValueError("it holds none")
    if odd := [name for name in names if not name.endswith(".npy")]:
        raise ValueError(f"{odd[0]} is none")
    if len(set(names)) < len(names):
        raise ValueError(f"{max(names, key=names.count)} is there {max(map(names.count, names))} times")
    members = z.infolist()
    if z.comment or any(member.comment for member in members):
        raise ValueError("it holds a remark")
    with open(path, "rb") as f:
        end = 0
        for member in sorted(members, key=lambda m: m.header_offset):
            _require_adjacent(end, member.header_offset)
            end = _end_of(f, member)
        _require_adjacent(end, z.start_dir)
        f.seek(0, os.SEEK_END)
        size = f.tell()
    entries = sum(CENTRAL_HEADER + len(_name_bytes(member)) + len(member.extra) for member in members)
    if size - z.start_dir - entries not in (END, END + ZIP64_END):
        raise ValueError("its directory holds more than the names")


def _require_adjacent(end: int, begin: int) -> None:
    if begin != end:
        raise ValueError(f"{abs(begin - end)} bytes lie {'between' if begin > end else 'in two of'} its members")


def _end_of(f: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where in a zip file a member ends, with the description behind its bytes."""
    f.seek(member.header_offset)
    head = f.read(LOCAL_HEADER)
    names, extra = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
    end = member.header_offset + LOCAL_HEADER + names + extra + member.compress_size
    if member.flag_bits & DESCRIBED:
        f.seek(end)
        behind = f.read(4 + 4 + 8)
        signed = 4 if behind.startswith(b"PK\x07\x08") else 0
        if behind[signed : signed + 4] == member.CRC.to_bytes(4, "little"):
            wide = behind[signed + 4 : signed + 12] == member.compress_size.to_bytes(8, "little")
            end += signed + (20 if wide else 12)
    return end


def _name_bytes(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")


class _Checked:
    """A file that numpy cannot hand to C's stdio, which loses the last bytes on a full disk without a word."""

    def __init__(self, f: BinaryIO):
        self.write = f.write


def save_npy(f: BinaryIO, array: NDArray[Any]) -> None:
    """Write a .npy file; unlike numpy.save it notices every byte that could not be written."""
    np.lib.format.write_array(_Checked(f), array, allow_pickle=False)


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


def _reason(error: BaseException) -> str:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return "it holds Python objects, which are never loaded"
    return first_line(error)
