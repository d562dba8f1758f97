"""Whether an array file was read to its last byte: .npy and .npz files may hold more than the arrays that numpy sees.

Not looked at are how members of a .npz file are compressed, and their dates.
"""

import os
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

from numpy.lib import format as npy

from vaedensity.items import why_not_stored

LOCAL_HEADER, CENTRAL_HEADER, END, ZIP64_END = 30, 46, 22, 56 + 20
DESCRIBED = 0x08  # flag of a member that was written to a pipe: its size follows it


def require_npy_alone(path: Path, array: Any) -> None:
    """Raise ValueError unless the .npy file ``path`` holds ``array``, as an archive can, and nothing else."""
    with open(path, "rb") as f:
        _require_end(f, array, os.fstat(f.fileno()).st_size)


def require_member_alone(z: ZipFile, name: str, array: Any) -> None:
    """Raise ValueError unless the member of the array ``name`` holds ``array``, as an archive can, and nothing else."""
    with z.open(f"{name}.npy") as f:
        _require_end(f, array, z.getinfo(f"{name}.npy").file_size)


def _require_end(f: IO[bytes], array: Any, size: int) -> None:
    if reason := why_not_stored(array):
        raise ValueError(reason)
    version = npy.read_magic(f)
    header = f.read(int.from_bytes(f.read(2 if version == (1, 0) else 4), "little"))
    more = size - npy.MAGIC_LEN - (2 if version == (1, 0) else 4) - len(header) - array.nbytes
    if more:
        raise ValueError(f"{more} more bytes follow the array")
    if b"#" in header:
        raise ValueError("its header holds a remark")


def require_arrays_alone(path: Path, z: ZipFile) -> None:
    """Raise ValueError unless a zip file is made of .npy members with different names, one after the other."""
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


def _end_of(f: IO[bytes], member: ZipInfo) -> int:
    """Where in a zip file a member ends, what describes it behind its bytes included."""
    f.seek(member.header_offset)
    head = f.read(LOCAL_HEADER)
    end = (
        member.header_offset
        + LOCAL_HEADER
        + int.from_bytes(head[26:28], "little")
        + int.from_bytes(head[28:30], "little")
    )
    end += member.compress_size
    if member.flag_bits & DESCRIBED:
        f.seek(end)
        behind = f.read(4 + 4 + 8)
        signed = 4 if behind.startswith(b"PK\x07\x08") else 0
        if behind[signed : signed + 4] == member.CRC.to_bytes(4, "little"):
            wide = behind[signed + 4 : signed + 12] == member.compress_size.to_bytes(8, "little")
            end += signed + (20 if wide else 12)
    return end


def _name_bytes(member: ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
