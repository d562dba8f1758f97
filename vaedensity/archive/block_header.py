"""What stands before each block's payload and says what it is, so that blocks are found without an index (docs/format.md, 2.2)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from vaedensity.archive import varint
from vaedensity.archive.streams import crc32

MARKER = b"\xd7\x4b"
CHECKSUMS = struct.Struct("<II")  # CRC-32 of the items, of the payload
CHECK = struct.Struct("<H")
SHORTEST_FRAME = len(MARKER) + 4 + 1 + CHECKSUMS.size + CHECK.size
LONGEST_FRAME = len(MARKER) + 4 * varint.LONGEST + 1 + CHECKSUMS.size + CHECK.size
WINDOW = 1 << 20
MOST_IN_VAIN = 8  # times the bytes of all blocks: damage makes none be read in vain more than about once


@dataclass(frozen=True)
class Frame:
    """Number of the array, first item and items, coder, bytes of the payload; CRC-32 of the items, and of the archive's stamp and the
    payload."""

    array: int
    first: int
    items: int
    coder: int
    length: int
    items_checksum: int
    checksum: int

    def pack(self, stamp: bytes) -> bytes:
        out = MARKER + varint.put(self.array) + varint.put(self.first) + varint.put(self.items)
        out += bytes([self.coder]) + varint.put(self.length) + CHECKSUMS.pack(self.items_checksum, self.checksum)
        return out + CHECK.pack(crc32(stamp, out) & 0xFFFF)


def unpack(data: bytes, stamp: bytes) -> tuple[Frame, int]:
    """(the frame that ``data`` begins with, where its payload begins). Raises ValueError where there is none of the archive with this
    ``stamp``."""
    if not data.startswith(MARKER):
        raise ValueError("no block begins here")
    array, at = varint.get(data, len(MARKER))
    first, at = varint.get(data, at)
    items, at = varint.get(data, at)
    if at >= len(data):
        raise ValueError("a frame is cut off")
    coder, at = data[at], at + 1
    length, at = varint.get(data, at)
    end = at + CHECKSUMS.size
    if end + CHECK.size > len(data):
        raise ValueError("a frame is cut off")
    if CHECK.unpack_from(data, end)[0] != crc32(stamp, data[:end]) & 0xFFFF:
        raise ValueError("a frame is damaged")
    return Frame(array, first, items, coder, length, *CHECKSUMS.unpack_from(data, at)), end + CHECK.size


def scan(f: BinaryIO, begin: int, end: int, stamp: bytes) -> Iterator[tuple[int, Frame, int]]:
    """(offset, frame, bytes of frame and payload) of every whole block from ``begin`` to ``end`` of the file, damage passed over.

    A block is whole where its frame's check and its payload's CRC-32 are right, both of them with the archive's ``stamp``: blocks of
    an archive that lies in this one's are not taken for its own. Raises ValueError where so many frames claim so many
    bytes for nothing that the file was made to keep its reader busy.
    """
    window, at, in_vain = _Window(f, end), begin, 0
    while (at := window.find(MARKER, at)) < end:
        try:
            frame, start = unpack(window.part(at, LONGEST_FRAME), stamp)
            if frame.length > end - at - start:
                raise ValueError("a block is cut off")
        except ValueError:
            at += 1
            continue
        f.seek(at + start)
        if _checksum(f, frame.length, stamp) == frame.checksum:
            yield at, frame, start + frame.length
            at += start + frame.length
            continue
        at, in_vain = at + 1, in_vain + frame.length
        if in_vain > MOST_IN_VAIN * (end - begin):
            raise ValueError("its frames claim each other's bytes")


def _checksum(f: BinaryIO, length: int, stamp: bytes) -> int:
    checksum = zlib.crc32(stamp)
    while length:
        part = f.read(min(length, WINDOW))
        if not part:
            return -1
        checksum, length = zlib.crc32(part, checksum), length - len(part)
    return checksum


class _Window:
    """The file up to ``end``, of which one piece is in memory, so that looking at each byte of it reads each about once."""

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
