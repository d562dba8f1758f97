"""The layout of version 5 (section 2.2): an opening with the record, blocks in frames, a closing with the index."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vaedensity.errors import DamagedArchive
from vaedensity.numpy_decoder.layout import HEAD, Index, Layout, load_record, read_tail, require_filled
from vaedensity.numpy_decoder.streams import inflate
from vaedensity.numpy_decoder.varints import get_varint, get_varints

OPENING = HEAD + 8
MARKER = b"\xd7\x4b"
SHORTEST = 17  # bytes of a frame
UNKNOWN = bytes(32)
LARGEST = 1 << 28  # bytes of the record and of the closing, packed or not


@dataclass(frozen=True)
class Frame:
    """What a block says of itself. ``first``: items of its array before it; ``length``: bytes of its payload;
    ``items_checksum``, ``checksum``: CRC-32 of its items, and of the stamp and its payload; ``size``: its own bytes."""

    array: int
    first: int
    items: int
    coder: int
    length: int
    items_checksum: int
    checksum: int
    size: int


def read_framed(file: BinaryIO, path: Path, size: int, version: int) -> Layout:
    """Opening and closing of a file of ``size`` bytes. Raises DamagedArchive, ValueError, KeyError, TypeError."""
    file.seek(0)
    opening = file.read(OPENING)
    record_length, record_checksum = struct.unpack("<II", opening[HEAD:])
    length, closing_length, checksum = read_tail(file, path, size, OPENING + record_length, LARGEST)
    if record_length > LARGEST:
        raise DamagedArchive(f"{path}: a record of {record_length} bytes is beyond the limit of {LARGEST}")
    file.seek(OPENING)
    record_packed = file.read(record_length)
    file.seek(OPENING + record_length + length)
    closing_packed = file.read(closing_length)
    if zlib.crc32(opening[:16] + record_packed) != record_checksum:
        raise DamagedArchive(f"{path}: the opening's checksum does not match; get the file again")
    if zlib.crc32(opening + closing_packed) != checksum:
        raise DamagedArchive(f"{path}: the closing's checksum does not match; get the file again")
    text, closing = inflate(record_packed, LARGEST), inflate(closing_packed, LARGEST)
    record = load_record(text, version, path)
    at = len(UNKNOWN) * len(record["arrays"])
    digests = [closing[begin : begin + len(UNKNOWN)] for begin in range(0, at, len(UNKNOWN))]
    index = _index(closing, at, length)
    require_filled(index, length)
    known = [None if digest == UNKNOWN else digest.hex() for digest in digests]
    return Layout(record, index, OPENING + record_length, known, opening[16:])


def _index(closing: bytes, at: int, length: int) -> Index:
    """The columns of the closing, from ``at`` to its end. ``length``: bytes of all blocks."""
    count, at = get_varint(closing, at)
    if SHORTEST * count > length:
        raise ValueError(f"{count} blocks in {length} bytes")
    arrays, at = get_varints(closing, at, count)
    coders, at = closing[at : at + count], at + count
    items, at = get_varints(closing, at, count)
    lengths, at = get_varints(closing, at, count)
    if at != len(closing) or len(coders) != count:
        raise ValueError("the index does not end where it should")
    return Index(coders, items, lengths, arrays=arrays)


def get_frame(data: bytes, stamp: bytes) -> Frame:
    """The frame that ``data`` begins with, its check passed, in an archive with this ``stamp``. Raises ValueError."""
    if not data.startswith(MARKER):
        raise ValueError("it does not begin with a frame")
    (array, first, items), at = get_varints(data, len(MARKER), 3)
    if at >= len(data):
        raise ValueError("its frame is cut off")
    coder = data[at]
    length, at = get_varint(data, at + 1)
    if at + 10 > len(data):
        raise ValueError("its frame is cut off")
    items_checksum, checksum, check = struct.unpack_from("<IIH", data, at)
    if zlib.crc32(stamp + data[: at + 8]) & 0xFFFF != check:
        raise ValueError("its frame's checksum does not match")
    return Frame(array, first, items, coder, length, items_checksum, checksum, at + 10)
