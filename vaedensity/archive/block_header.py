"""What stands before each payload and says what it is, so that blocks are found without an index.

docs/format.md, "Block header".
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from vaedensity.archive import varint
from vaedensity.archive.block import Codec, codec_of
from vaedensity.archive.record import crc32

MARKER = b"\xd7\x4b"
CHECKSUMS = struct.Struct("<II")  # of the items, of the payload
CHECK = struct.Struct("<H")  # of the block header
SHORTEST = len(MARKER) + 4 + 1 + CHECKSUMS.size + CHECK.size
LONGEST = len(MARKER) + 4 * varint.LONGEST + 1 + CHECKSUMS.size + CHECK.size
WINDOW = 1 << 20
MOST_IN_VAIN = 8  # times the bytes of all blocks: damage makes none be read in vain more than about once


@dataclass(frozen=True)
class BlockHeader:
    """``array``: its number; ``first``, ``items``: which items; ``length``: bytes of the payload; ``items_checksum``:
    CRC-32 of the items' bytes; ``checksum``: CRC-32 of the archive id and the payload."""

    array: int
    first: int
    items: int
    codec: Codec
    length: int
    items_checksum: int
    checksum: int

    def pack(self, archive_id: bytes) -> bytes:
        """Its bytes in the archive with this id."""
        out = MARKER + varint.put(self.array) + varint.put(self.first) + varint.put(self.items)
        out += bytes([self.codec.byte]) + varint.put(self.length) + CHECKSUMS.pack(self.items_checksum, self.checksum)
        return out + CHECK.pack(crc32(archive_id, out) & 0xFFFF)


def unpack(data: bytes, archive_id: bytes) -> tuple[BlockHeader, int]:
    """(the block header that ``data`` begins with, where its payload begins). Raises ValueError where there is none of
    the archive with this id."""
    if not data.startswith(MARKER):
        raise ValueError("no block begins here")
    array, at = varint.get(data, len(MARKER))
    first, at = varint.get(data, at)
    items, at = varint.get(data, at)
    if at >= len(data):
        raise ValueError("a block header is cut off")
    byte, at = data[at], at + 1
    length, at = varint.get(data, at)
    end = at + CHECKSUMS.size
    if end + CHECK.size > len(data):
        raise ValueError("a block header is cut off")
    if CHECK.unpack_from(data, end)[0] != crc32(archive_id, data[:end]) & 0xFFFF:
        raise ValueError("a block header is damaged")
    return BlockHeader(array, first, items, codec_of(byte), length, *CHECKSUMS.unpack_from(data, at)), end + CHECK.size


def scan(f: BinaryIO, begin: int, end: int, archive_id: bytes) -> Iterator[tuple[int, BlockHeader, int]]:
    """(offset, block header, bytes of block header and payload) of every whole block from ``begin`` to ``end`` of the
    file.

    Damage is passed over. A block is whole where its header's check and its payload's checksum are right, both of them
    with the archive's id: blocks of an archive that lies in this one's are not taken for its own. Raises ValueError
    where so many headers claim so many bytes for nothing that the file was made to keep its reader busy."""
    window, at, in_vain = _Window(f, end), begin, 0
    while (at := window.find(MARKER, at)) < end:
        try:
            header, start = unpack(window.part(at, LONGEST), archive_id)
            if header.length > end - at - start:
                raise ValueError("a block is cut off")
        except ValueError:
            at += 1
            continue
        f.seek(at + start)
        if _checksum(f, header.length, archive_id) == header.checksum:
            yield at, header, start + header.length
            at += start + header.length
            continue
        at, in_vain = at + 1, in_vain + header.length
        if in_vain > MOST_IN_VAIN * (end - begin):
            raise ValueError("its block headers claim each other's bytes")


def _checksum(f: BinaryIO, length: int, archive_id: bytes) -> int:
    checksum = zlib.crc32(archive_id)
    while length:
        part = f.read(min(length, WINDOW))
        if not part:
            return -1
        checksum, length = zlib.crc32(part, checksum), length - len(part)
    return checksum


class _Window:
    """The file up to ``end``, of which one piece is in memory, so that looking at each byte of it reads each about
    once."""

    def __init__(self, f: BinaryIO, end: int):
        self.f, self.end, self.begin, self.data = f, end, 0, b""

    def part(self, at: int, size: int) -> bytes:
        """So many bytes from ``at`` on, fewer at the end."""
        size = min(size, self.end - at)
        if not self.begin <= at <= at + size <= self.begin + len(self.data):
            self.f.seek(at)
            self.begin, self.data = at, self.f.read(min(WINDOW, self.end - at))
        return self.data[at - self.begin : at - self.begin + size]

    def find(self, what: bytes, at: int) -> int:
        """Offset of the next ``what`` from ``at`` on, the end where there is none."""
        while len(self.part(at, len(what))) == len(what):
            found = self.data.find(what, at - self.begin)
            if found >= 0:
                return self.begin + found
            at = self.begin + len(self.data) - len(what) + 1
        return self.end
