"""What the layouts of all versions have in common: how they end, the record's text, the index in columns."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vaedensity.errors import DamagedArchive

MAGIC, END = b"\x89VDZ\r\n\x1a\n", b"VDZ\x1aend\n"
HEAD, TAIL = 12, 24
FRAMED = 5  # first version of section 2.2
FEATURES: frozenset[str] = frozenset()
"""Names under ``requires`` that this reader knows."""
MOST_OPENED, MOST_ARRAYS, DEEPEST = 1 << 24, 1 << 20, 32
"""Of a record: brackets in its text, arrays, and parts that lie in each other (section 16, step 3)."""

TOO_DEEP = f"more than {DEEPEST} lists and objects of the record lie in each other"


class Index(NamedTuple):
    """One entry for each block, in the order of the file. ``arrays``: numbers of their arrays, None up to version 4;
    ``lengths``: all of their bytes; ``checksums``: CRC-32 of those, None from version 5 on, where frames have them."""

    coders: bytes
    items: list[int]
    lengths: list[int]
    arrays: list[int] | None = None
    checksums: tuple[int, ...] | None = None


class Layout(NamedTuple):
    """An archive but for its blocks. ``begin``: of the first block; ``digests``: SHA-256 of the data, up to version 4 one
    of all of them, from version 5 on one of each array, None where it is not known; ``stamp``: of frames."""

    record: dict[str, Any]
    columns: Index
    begin: int
    digests: list[str | None]
    stamp: bytes = b""


def read_tail(file: BinaryIO, path: Path, size: int, others: int, largest: int) -> tuple[int, int, int]:
    """(L, D, the checksum) of the tail of a file of ``size`` bytes; ``others``: its bytes before L; ``largest``: most of
    D. Raises DamagedArchive."""
    file.seek(size - TAIL)
    tail = file.read(TAIL)
    length, packed, checksum = struct.unpack("<QII", tail[:16])
    if tail[16:] != END or others + length + packed + TAIL != size or packed > largest:
        raise DamagedArchive(f"{path}: the end of the archive is missing or altered; get the file again")
    return length, packed, checksum


def load_record(text: bytes, version: int, path: Path) -> dict[str, Any]:
    """The record, a JSON object with a list of ``arrays``. Raises ValueError, or DamagedArchive where it requires what is not
    known here."""
    if (opened := sum(map(text.count, (b"[", b"{")))) > MOST_OPENED:
        raise ValueError(f"the record has {opened} brackets, expected at most {MOST_OPENED}")
    try:
        record = json.loads(text.decode())
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if not isinstance(record, dict):
        raise ValueError("the record is not one of an archive")
    _require_flat(record)
    required = record.get("requires", []) if version >= FRAMED else []
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ValueError("requires is not a list of names")
    if unknown := [name for name in required if name not in FEATURES]:
        said = ", ".join(ascii(name[:60]) for name in unknown[:4])
        raise DamagedArchive(f"{path}: requires {said}, which this reader does not know; update vaedensity")
    arrays = record.get("arrays")
    if not isinstance(arrays, list):
        raise ValueError("the record is not one of an archive")
    if len(arrays) > MOST_ARRAYS:
        raise ValueError(f"the record describes {len(arrays)} arrays, expected at most {MOST_ARRAYS}")
    return record


def _require_flat(record: dict[str, Any]) -> None:
    """Raise ValueError where more than DEEPEST lists and objects of ``record`` lie in each other, itself the first."""
    ways: list[Iterator[Any]] = [iter([record])]  # into each part that is open
    while ways:
        for part in ways[-1]:
            if isinstance(part, (dict, list)):
                if len(ways) > DEEPEST:
                    raise ValueError(TOO_DEEP)
                ways.append(iter(part.values() if isinstance(part, dict) else part))
                break
        else:
            ways.pop()


def require_filled(index: Index, length: int) -> None:
    """Raise ValueError unless the blocks have ``length`` bytes together."""
    if sum(index.lengths) != length:
        raise ValueError("the blocks do not fill the file")
