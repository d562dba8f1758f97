"""The layout of versions 1 to 4 (sections 2 and 3): blocks, then one directory."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from vaedensity.errors import DamagedArchive
from vaedensity.numpy_decoder.layout import HEAD, Index, Layout, load_record, read_tail, require_filled
from vaedensity.numpy_decoder.streams import inflate
from vaedensity.numpy_decoder.varints import get_varint, get_varints

LARGEST = 1 << 30  # bytes of the directory, packed or not


def read_early(file: BinaryIO, path: Path, size: int, version: int) -> Layout:
    """The directory of a file of ``size`` bytes. Raises DamagedArchive, ValueError, KeyError."""
    length, packed_length, checksum = read_tail(file, path, size, HEAD, LARGEST)
    file.seek(0)
    head = file.read(HEAD)
    file.seek(HEAD + length)
    packed = file.read(packed_length)
    if zlib.crc32(head + packed) != checksum:
        raise DamagedArchive(f"{path}: the directory's checksum does not match; get the file again")
    data = inflate(packed, LARGEST)
    count, at = get_varint(data, 0)
    if at + count > len(data):
        raise ValueError("the record is cut off")
    record = load_record(data[at : at + count], version, path)
    index = _index(data, at + count)
    require_filled(index, length)
    if not isinstance(record["sha256"], str):
        raise ValueError("the digest is not as it should be")
    return Layout(record, index, HEAD, [record["sha256"]])


def _index(data: bytes, at: int) -> Index:
    """The four columns, to the end of the directory."""
    count, at = get_varint(data, at)
    coders, at = data[at : at + count], at + count
    items, at = get_varints(data, at, count)
    lengths, at = get_varints(data, at, count)
    if len(data) - at != 4 * count or len(coders) != count:
        raise ValueError("the index does not end where it should")
    return Index(coders, items, lengths, checksums=struct.unpack(f"<{count}I", data[at:]))
