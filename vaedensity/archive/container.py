"""The bytes of a .vdz file: head, opening, framed blocks, closing, tail (docs/format.md, 2.2).

This file knows where bytes lie and how they are checked; it knows nothing of what they mean.
"""

import json
import struct
import zlib
from typing import Any, BinaryIO

from vaedensity.archive import varint
from vaedensity.archive.block import SINCE, Block, Directory
from vaedensity.archive.block_header import LONGEST_FRAME, SHORTEST_FRAME, Frame, unpack
from vaedensity.archive.streams import crc32, described, inflate, parse_record
from vaedensity.coding.early_layout import read_early
from vaedensity.errors import DamagedArchive

MAGIC = b"\x89VDZ\r\n\x1a\n"  # as PNG's: shows transfers that touch line ends or the high bit
END_MAGIC = b"VDZ\x1aend\n"
NEWEST = 5
FRAMED_SINCE = 5
HEAD = struct.Struct("<8sHH")  # magic, version, zero
LENGTH = struct.Struct("<I")  # of the record's stream
CHECKSUM = struct.Struct("<I")  # of head, length and stream
OPENING = HEAD.size + LENGTH.size + CHECKSUM.size
TAIL = struct.Struct("<QII8s")  # bytes of all blocks, of the closing, CRC-32 of the first OPENING bytes and it, end
DIGEST = 32
MAX_STREAM = 1 << 28
FEATURES: frozenset[str] = frozenset()
"""Names that a record may require and this reader knows."""


class Writer:
    """Writes head and record, blocks as they come, then the closing."""

    def __init__(self, f: BinaryIO, record: dict[str, Any]):
        self.f, self.blocks, self.length, self.payload_bytes = f, [], 0, 0  # type: BinaryIO, list[Block], int, int
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
        stream = zlib.compress(text, 9)
        head = HEAD.pack(MAGIC, FRAMED_SINCE, 0) + LENGTH.pack(len(stream))
        self.opening = head + CHECKSUM.pack(crc32(head, stream))
        self.stamp = stamp_of(self.opening)
        self.begin = len(self.opening) + len(stream)
        f.write(self.opening + stream)

    def add(self, array: int, first: int, items: int, coder: int, payload: bytes, items_checksum: int) -> None:
        """Write one block: items ``first`` .. ``first`` + ``items`` - 1 of an array; ``items_checksum``: CRC-32 of their bytes."""
        frame = Frame(array, first, items, coder, len(payload), items_checksum, crc32(self.stamp, payload))
        frame_bytes = frame.pack(self.stamp)
        size = len(frame_bytes) + len(payload)
        self.f.write(frame_bytes + payload)
        self.blocks.append(Block(array, first, items, coder, self.begin + self.length, size))
        self.length += size
        self.payload_bytes += len(payload)

    def mark(self) -> tuple[int, int, int]:
        """Where the next block will be written."""
        return len(self.blocks), self.length, self.payload_bytes

    def rewind(self, mark: tuple[int, int, int]) -> None:
        """Forget the blocks written since ``mark``."""
        blocks, self.length, self.payload_bytes = mark
        del self.blocks[blocks:]
        self.f.seek(self.begin + self.length)
        self.f.truncate()

    def copy(self, block: Block, f: BinaryIO, stamp: bytes) -> None:
        """Write a block of another archive with this ``stamp``, its payload as it stands there. Raises ValueError where it is damaged."""
        f.seek(block.begin)
        payload, items_checksum = payload_of(block, f.read(block.size), stamp)
        assert items_checksum is not None
        self.add(block.array, block.first, block.items, block.coder, payload, items_checksum)

    def finish(self, digests: list[bytes | None]) -> dict[str, int]:
        """Write closing and tail, given the SHA-256 of each array; returns bytes spent on ``header`` and on ``index``."""
        closing = zlib.compress(b"".join(d or bytes(DIGEST) for d in digests) + pack_index(self.blocks), 9)
        self.f.write(closing)
        self.f.write(TAIL.pack(self.length, len(closing), crc32(self.opening, closing), END_MAGIC))
        digests_bytes = min(len(closing), DIGEST * len(digests))
        frames = self.length - self.payload_bytes
        return {"header": self.begin + TAIL.size + digests_bytes, "index": len(closing) - digests_bytes + frames}


def pack_index(blocks: list[Block]) -> bytes:
    """Columns: number of blocks, then all arrays, coders, item counts, sizes."""
    out = varint.put(len(blocks)) + b"".join(varint.put(b.array) for b in blocks)
    out += bytes(b.coder for b in blocks) + b"".join(varint.put(b.items) for b in blocks)
    return out + b"".join(varint.put(b.size) for b in blocks)


def unpack_index(data: bytes, at: int, arrays: int, begin: int, length: int) -> list[Block]:
    """Undoes :func:`pack_index` at position ``at`` to the end; ``length``: bytes of all blocks. Raises ValueError."""
    count, at = varint.get(data, at)
    if count * SHORTEST_FRAME > length:
        raise ValueError(f"{count} blocks in {length} bytes")
    owners, at = varint.get_many(data, at, count)
    coders, at = data[at : at + count], at + count
    items, at = varint.get_many(data, at, count)
    sizes, at = varint.get_many(data, at, count)
    if at != len(data):
        raise ValueError("the index does not end where it should")
    blocks, firsts = [], [0] * arrays
    for array, coder, number, size in zip(owners, coders, items, sizes):
        if array >= arrays:
            raise ValueError("blocks belong to no array")
        blocks.append(Block(array, firsts[array], number, coder, begin, size))
        firsts[array] += number
        begin += size
    return blocks


def read_directory(f: BinaryIO, name: str) -> Directory:
    """Check head, tail and directory of a seekable file and return what it holds.

    Raises DamagedArchive with the reason; reads no block.
    """
    head, version, size = read_head(f, name)
    try:
        if version < FRAMED_SINCE:
            directory = read_early(f, name, head, version, size, END_MAGIC)
        else:
            directory = _read_framed(f, name, version, size)
        for block in directory.blocks:
            if SINCE.get(block.coder, NEWEST + 1) > version:
                raise ValueError(f"a block of coder {block.coder} in format version {version}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArchive(f"{name}: the directory cannot be read ({error})") from error
    return directory


def read_head(f: BinaryIO, name: str) -> tuple[bytes, int, int]:
    """(head, version, size of the file). Raises DamagedArchive."""
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
    return head, version, size


def read_opening(f: BinaryIO, name: str, size: int) -> tuple[dict[str, Any], bytes, int]:
    """(the record, the file's first OPENING bytes, where blocks begin). Raises DamagedArchive; of what makes no sense, ValueError."""
    f.seek(0)
    opening = f.read(OPENING)
    (length,) = LENGTH.unpack_from(opening, HEAD.size)
    (checksum,) = CHECKSUM.unpack_from(opening, HEAD.size + LENGTH.size)
    if length > min(MAX_STREAM, size - OPENING):
        raise DamagedArchive(f"{name}: the archive is cut off within its record, or altered; get the file again")
    stream = f.read(length)
    if crc32(opening[: -CHECKSUM.size], stream) != checksum:
        raise DamagedArchive(f"{name}: the record's checksum does not match; get the file again")
    record = parse_record(inflate(stream, MAX_STREAM))
    requires = record.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(feature, str) for feature in requires):
        raise ValueError("what it requires is no list of names")
    if unknown := sorted(set(requires) - FEATURES):
        raise DamagedArchive(
            f"{name}: needs {', '.join(map(repr, unknown))}, which this version of vaedensity does not know; update it"
        )
    return record, opening, OPENING + length


def _read_framed(f: BinaryIO, name: str, version: int, size: int) -> Directory:
    f.seek(size - TAIL.size)
    length, closing_length, checksum, end = TAIL.unpack(f.read(TAIL.size))
    damaged = (
        f"{name}: the end of the archive is missing or altered; get the file again, or see 'vaedensity repair --help'"
    )
    if end != END_MAGIC or OPENING + length + closing_length + TAIL.size > size:
        raise DamagedArchive(damaged)
    record, opening, begin = read_opening(f, name, size)
    if begin + length + closing_length + TAIL.size != size:
        raise DamagedArchive(damaged)
    if closing_length > MAX_STREAM:
        raise DamagedArchive(f"{name}: a closing of {closing_length} bytes is beyond the limit of {MAX_STREAM}")
    f.seek(begin + length)
    closing = f.read(closing_length)
    if crc32(opening, closing) != checksum:
        raise DamagedArchive(
            f"{name}: the index's checksum does not match; get the file again, or see 'vaedensity repair --help'"
        )
    data, arrays = inflate(closing, MAX_STREAM), len(described(record))
    if len(data) < DIGEST * arrays:
        raise ValueError("the digests are cut off")
    digests = [data[DIGEST * k : DIGEST * (k + 1)] for k in range(arrays)]
    blocks = unpack_index(data, DIGEST * arrays, arrays, begin, length)
    if sum(b.size for b in blocks) != length:
        raise ValueError("blocks and index do not add up")
    known = [d if any(d) else None for d in digests]
    return Directory(record, blocks, version, known, begin, stamp_of(opening))


def stamp_of(opening: bytes) -> bytes:
    """What tells an archive's frames from those of others: the CRC-32 in its opening."""
    return opening[-CHECKSUM.size :]


def payload_of(block: Block, data: bytes, stamp: bytes) -> tuple[bytes, int | None]:
    """(payload, CRC-32 of the items or None) of the bytes of a block of the archive with this ``stamp``. Raises ValueError where they
    are damaged."""
    if block.checksum is not None:
        if len(data) != block.size or zlib.crc32(data) != block.checksum:
            raise ValueError("its checksum does not match")
        return data, None
    frame, at = unpack(data[:LONGEST_FRAME], stamp)
    if len(data) != block.size or crc32(stamp, data[at:]) != frame.checksum:
        raise ValueError("its checksum does not match")
    said = (frame.array, frame.first, frame.items, frame.coder, at + frame.length)
    if said != (block.array, block.first, block.items, block.coder, block.size):
        raise ValueError("its frame says other than the index")
    return data[at:], frame.items_checksum
