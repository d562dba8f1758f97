"""The bytes of a .vdz file: head, blocks, directory, tail (docs/format.md).

This file knows where bytes lie and how they are checked; it knows nothing of what they mean.
"""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from vaedensity.coding import varint
from vaedensity.errors import DamagedArchive

MAGIC = b"\x89VDZ\r\n\x1a\n"  # as PNG's: shows transfers that touch line ends or the high bit
END_MAGIC = b"VDZ\x1aend\n"
NEWEST = 4
HEAD = struct.Struct("<8sHH")  # magic, version, zero
TAIL = struct.Struct("<QII8s")  # bytes of all blocks, of the directory, CRC-32 of head and directory, end
MAX_DIRECTORY = 1 << 30
MODEL_CODERS = {
    16: 1,
    17: 2,
    18: 3,
    19: 3,
    20: 3,
    21: 3,
    22: 4,
}  # and the format version that brought each; others are classical
COUPLED_CODERS = frozenset({17, 19, 21})
DEFLATE_BEST = 1032  # no deflate stream is longer than this many times its input


@dataclass(frozen=True)
class Block:
    """One block: which coder made it, how many items it holds, its length and CRC-32."""

    coder: int
    items: int
    length: int
    checksum: int


@dataclass(frozen=True)
class Directory:
    """``record``: JSON that describes the archive. ``blocks``: in file order. ``version``: of the format."""

    record: dict[str, Any]
    blocks: list[Block]
    version: int


class Writer:
    """Writes blocks as they come, then the directory."""

    def __init__(self, f: BinaryIO, version: int):
        self.f, self.blocks, self.length = f, [], 0  # type: BinaryIO, list[Block], int
        self.head = HEAD.pack(MAGIC, version, 0)
        f.write(self.head)

    def add(self, coder: int, items: int, payload: bytes) -> None:
        self.f.write(payload)
        self.blocks.append(Block(coder, items, len(payload), zlib.crc32(payload)))
        self.length += len(payload)

    def finish(self, record: dict[str, Any]) -> dict[str, int]:
        """Write directory and tail; returns bytes spent on ``header`` and on ``index``."""
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
        index = pack_index(self.blocks)
        directory = zlib.compress(varint.put(len(text)) + text + index, 9)
        self.f.write(directory)
        checksum = zlib.crc32(directory, zlib.crc32(self.head))
        self.f.write(TAIL.pack(self.length, len(directory), checksum, END_MAGIC))
        alone = len(zlib.compress(varint.put(len(text)) + text, 9))
        return {"header": HEAD.size + TAIL.size + alone, "index": len(directory) - alone}


def pack_index(blocks: list[Block]) -> bytes:
    """Columns: number of blocks, then all coders, item counts, lengths, checksums."""
    out = varint.put(len(blocks)) + bytes(b.coder for b in blocks)
    out += b"".join(varint.put(b.items) for b in blocks) + b"".join(varint.put(b.length) for b in blocks)
    return out + b"".join(struct.pack("<I", b.checksum) for b in blocks)


def unpack_index(data: bytes, at: int) -> list[Block]:
    """Undoes :func:`pack_index` at position ``at`` to the end. Raises ValueError."""
    count, at = varint.get(data, at)
    if count > len(data):
        raise ValueError(f"{count} blocks in {len(data)} bytes of index")
    coders, at = data[at : at + count], at + count
    columns: list[list[int]] = [[], []]
    for column in columns:
        for _ in range(count):
            value, at = varint.get(data, at)
            column.append(value)
    if len(data) - at != 4 * count:
        raise ValueError("the index does not end where it should")
    checksums = struct.unpack(f"<{count}I", data[at:])
    return [Block(*entry) for entry in zip(coders, columns[0], columns[1], checksums)]


def read_directory(f: BinaryIO, name: str) -> Directory:
    """Check head, tail and directory of a seekable file and return what it holds.

    Raises DamagedArchive with the reason; reads no block.
    """
    size = f.seek(0, 2)
    if size < HEAD.size + TAIL.size:
        raise DamagedArchive(f"{name}: {size} bytes are too few for a .vdz archive; it is cut off or something else")
    f.seek(0)
    head = f.read(HEAD.size)
    magic, version, zero = HEAD.unpack(head)
    if magic != MAGIC:
        raise DamagedArchive(f"{name}: not a .vdz archive (it begins with {head[:8].hex()}, expected {MAGIC.hex()})")
    if not 1 <= version <= NEWEST or zero != 0:
        raise DamagedArchive(
            f"{name}: format version {version}.{zero} is not known, expected 1.0 to {NEWEST}.0; update vaedensity"
        )
    f.seek(size - TAIL.size)
    length, directory_length, checksum, end = TAIL.unpack(f.read(TAIL.size))
    if end != END_MAGIC or HEAD.size + length + directory_length + TAIL.size != size:
        raise DamagedArchive(f"{name}: the end of the archive is missing or altered; get the file again")
    if directory_length > MAX_DIRECTORY:
        raise DamagedArchive(f"{name}: a directory of {directory_length} bytes is beyond the limit of {MAX_DIRECTORY}")
    f.seek(HEAD.size + length)
    directory = f.read(directory_length)
    if zlib.crc32(directory, zlib.crc32(head)) != checksum:
        raise DamagedArchive(f"{name}: the directory's checksum does not match; get the file again")
    try:
        limit = min(MAX_DIRECTORY, DEFLATE_BEST * len(directory) + 1024)
        inflater = zlib.decompressobj()
        data = inflater.decompress(directory, limit)
        if not inflater.eof or inflater.unused_data:
            raise ValueError("the directory's stream does not end with it")
        text_length, at = varint.get(data, 0)
        record = json.loads(data[at : at + text_length].decode())
        blocks = unpack_index(data, at + text_length)
        if not isinstance(record, dict) or sum(b.length for b in blocks) != length:
            raise ValueError("blocks and index do not add up")
        for block in blocks:
            if MODEL_CODERS.get(block.coder, 1) > version:
                raise ValueError(f"a block of coder {block.coder} in format version {version}")
    except (ValueError, zlib.error, RecursionError) as error:
        raise DamagedArchive(f"{name}: the directory cannot be read ({error})") from error
    return Directory(record, blocks, version)
