"""Head, blocks, directory, tail: how archives of format versions 1 to 4 are laid out. They are read for ever, written no more."""

import re
import struct
from typing import Any, BinaryIO

from vaedensity.archive import varint
from vaedensity.archive.block import Block, Directory
from vaedensity.archive.streams import crc32, described, inflate, parse_record
from vaedensity.errors import DamagedArchive

HEAD_BYTES = 12
TAIL = struct.Struct("<QII8s")  # bytes of all blocks, of the directory, CRC-32 of head and directory, end
MAX_DIRECTORY = 1 << 30


def read_early(f: BinaryIO, name: str, head: bytes, version: int, size: int, end_magic: bytes) -> Directory:
    """The directory of a file of ``size`` bytes that begins with ``head``. Raises DamagedArchive; of what makes no sense,
    ValueError."""
    f.seek(size - TAIL.size)
    length, directory_length, checksum, end = TAIL.unpack(f.read(TAIL.size))
    if end != end_magic or HEAD_BYTES + length + directory_length + TAIL.size != size:
        raise DamagedArchive(f"{name}: the end of the archive is missing or altered; get the file again")
    if directory_length > MAX_DIRECTORY:
        raise DamagedArchive(f"{name}: a directory of {directory_length} bytes is beyond the limit of {MAX_DIRECTORY}")
    f.seek(HEAD_BYTES + length)
    directory = f.read(directory_length)
    if crc32(head, directory) != checksum:
        raise DamagedArchive(f"{name}: the directory's checksum does not match; get the file again")
    data = inflate(directory, MAX_DIRECTORY)
    text_length, at = varint.get(data, 0)
    record = parse_record(data[at : at + text_length])
    blocks = _unpack_index(data, at + text_length, _owners(record), length)
    if sum(b.size for b in blocks) != length:
        raise ValueError("blocks and index do not add up")
    digest = record.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("the digest is no SHA-256")
    return Directory(record, blocks, version, [bytes.fromhex(digest)], HEAD_BYTES)


def _owners(record: dict[str, Any]) -> list[int]:
    """How many blocks each array has."""
    entries = described(record)
    counts: list[Any] = [entry.get("blocks") if isinstance(entry, dict) else None for entry in entries]
    if any(type(n) is not int or n < 0 for n in counts):
        raise ValueError("an array is described by other than a name and whole numbers")
    return counts


def _unpack_index(data: bytes, at: int, owners: list[int], length: int) -> list[Block]:
    """The index from position ``at`` to the end: number of blocks, all coders, item counts, lengths, checksums. ``length``: bytes of
    all blocks."""
    count, at = varint.get(data, at)
    if count > length:
        raise ValueError(f"{count} blocks in {length} bytes")
    if count != sum(owners):
        raise ValueError("blocks belong to no array")
    coders, at = data[at : at + count], at + count
    items, at = varint.get_many(data, at, count)
    sizes, at = varint.get_many(data, at, count)
    if len(data) - at != 4 * count:
        raise ValueError("the index does not end where it should")
    checksums = struct.unpack(f"<{count}I", data[at:])
    blocks, begin, k = [], HEAD_BYTES, 0
    for array, own in enumerate(owners):
        first = 0
        for _ in range(own):
            blocks.append(Block(array, first, items[k], coders[k], begin, sizes[k], checksums[k]))
            first, begin, k = first + items[k], begin + sizes[k], k + 1
    return blocks
