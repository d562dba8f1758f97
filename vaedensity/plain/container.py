"""The bytes around the blocks: head, tail, directory and record (sections 2 to 4), every field checked (section 16)."""

import json
import lzma
import math
import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vaedensity.errors import DamagedArchive

MAGIC, END = b"\x89VDZ\r\n\x1a\n", b"VDZ\x1aend\n"
SINCE = {0: 1, 1: 1, 2: 1, 16: 1, 17: 2, 18: 3, 19: 3, 20: 3, 21: 3, 22: 4}  # coder -> version that brought it
FIRST_MODEL_CODER, SERIES = 16, 22
COUPLED = (17, 19, 21)
LARGEST, MOST_DIMENSIONS, LONGEST_CHAIN = 1 << 48, 8, 4096
WRONG = (KeyError, TypeError, ValueError, AttributeError, SyntaxError, IndexError, RecursionError, struct.error)


def get_varint(data: bytes, at: int) -> tuple[int, int]:
    """(the varint at ``at``, where it ends). Raises ValueError."""
    value = 0
    for k in range(9):
        if at + k >= len(data):
            raise ValueError("a varint is cut off")
        byte = data[at + k]
        value |= (byte & 127) << 7 * k
        if byte < 128:
            if k and not byte:
                raise ValueError("a varint has unneeded bytes")
            return value, at + k + 1
    raise ValueError("a varint is too long")


@dataclass(frozen=True)
class Block:
    """Where a block lies in the file, what it holds, and how it is coded."""

    index: int
    coder: int
    items: int
    begin: int
    length: int
    checksum: int


class Entry:
    """One array of the record. ``item_shape``: (C,H,W) where it has a ``layout``; ``blocks``: its own. Raises WRONG."""

    def __init__(self, record: dict[str, Any], version: int):
        self.name, self.layout = record["name"], record.get("layout")
        self.shape, self.count = tuple(record["shape"]), record["blocks"]
        self.dtype = np.dtype(record["dtype"])
        self.blocks: list[Block] = []
        if not isinstance(self.name, str) or any(type(n) is not int or n < 0 for n in (*self.shape, self.count)):
            raise ValueError("an array is described by other than a name and whole numbers")
        if self.dtype.kind not in "biufcSUmMV" or self.dtype.str != record["dtype"] or self.dtype.names is not None:
            raise ValueError(f"array {self.name}: dtype {record['dtype']} is not plain")
        extent = self.dtype.itemsize * math.prod(max(1, n) for n in self.shape)
        if len(self.shape) > MOST_DIMENSIONS or extent > LARGEST:
            raise ValueError(f"array {self.name}: shape {list(self.shape)} is beyond the limits")
        self.nbytes = extent if all(self.shape) else 0
        self.rows = self.shape[0] if self.shape else 1
        self.item_shape: tuple[int, ...] | None = None
        if self.layout is not None:
            rest = self.shape[1:]
            rule, shape = None, None
            if len(rest) == 1 and version >= 4:
                rule, shape = "NT", (1, 1, *rest)
            elif len(rest) == 2:
                rule, shape = "NHW", (1, *rest)
            elif len(rest) == 3 and rest[2] in (1, 3):
                rule, shape = "NHWC", (rest[2], *rest[:2])
            elif len(rest) == 3 and rest[0] in (1, 3):
                rule, shape = "NCHW", rest
            if rule is None or self.layout != rule or self.dtype.str not in ("|u1", "|b1") or not all(rest):
                raise ValueError(f"array {self.name}: layout {self.layout} does not fit")
            self.item_shape = shape


class Directory:
    """All that an open archive says of itself before a block is read. Raises DamagedArchive.

    ``arrays``: in order, each with its blocks. ``note``: how they become files. ``model``: None or its ``sha256`` and
    ``name``. ``particles``: of items of coupled coders.
    """

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path
        version, length, packed = self._frame()
        try:
            inflater = zlib.decompressobj()
            data = inflater.decompress(packed, min(1 << 30, 1032 * len(packed) + 1024))
            if not inflater.eof or inflater.unused_data:
                raise ValueError("the directory's stream does not end with it")
            size, at = get_varint(data, 0)
            if at + size > len(data):
                raise ValueError("the record is cut off")
            record = json.loads(data[at : at + size].decode())
            self.blocks = _index(data, at + size, version)
            if sum(b.length for b in self.blocks) != length:
                raise ValueError("the blocks do not fill the file")
            self._read_record(record, version)
        except (*WRONG, zlib.error) as error:
            raise DamagedArchive(f"{path}: the directory makes no sense ({error})") from error

    def _frame(self) -> tuple[int, int, bytes]:
        """(version, bytes of blocks, the directory as stored), from the head and the tail."""
        size = self.file.seek(0, 2)
        if size < 36:
            raise DamagedArchive(
                f"{self.path}: {size} bytes are too few for a .vdz archive; it is cut off or another file"
            )
        self.file.seek(0)
        head = self.file.read(12)
        version, zero = struct.unpack("<HH", head[8:])
        if head[:8] != MAGIC:
            raise DamagedArchive(
                f"{self.path}: not a .vdz archive (it begins with {head[:8].hex()}, not {MAGIC.hex()})"
            )
        if not 1 <= version <= 4 or zero:
            raise DamagedArchive(
                f"{self.path}: format version {version}.{zero}, expected 1.0 to 4.0; update vaedensity"
            )
        self.file.seek(size - 24)
        tail = self.file.read(24)
        length, packed_length, checksum = struct.unpack("<QII", tail[:16])
        if tail[16:] != END or length + packed_length + 36 != size or packed_length > 1 << 30:
            raise DamagedArchive(f"{self.path}: the end of the archive is missing or altered; get the file again")
        self.file.seek(12 + length)
        packed = self.file.read(packed_length)
        if zlib.crc32(head + packed) != checksum:
            raise DamagedArchive(f"{self.path}: the directory's checksum does not match; get the file again")
        return version, length, packed

    def _read_record(self, record: Any, version: int) -> None:
        if (
            not isinstance(record, dict)
            or not isinstance(record["note"], dict)
            or not isinstance(record["arrays"], list)
        ):
            raise ValueError("the record is not one of an archive")
        self.note, self.sha256, self.model = record["note"], record["sha256"], record.get("model")
        if self.model is not None and not all(isinstance(self.model[key], str) for key in ("sha256", "name")):
            raise ValueError("the model is not named")
        self.particles = 1 if self.model is None else self.model.get("particles", 1)
        if type(self.particles) is not int or not 1 <= self.particles <= 256:
            raise ValueError(f"{self.particles} particles, expected 1 to 256")
        self.arrays = [Entry(entry, version) for entry in record["arrays"]]
        if not isinstance(self.sha256, str) or len({a.name for a in self.arrays}) != len(self.arrays):
            raise ValueError("the digest or the names are not as they should be")
        begin = 0
        for array in self.arrays:
            array.blocks = self.blocks[begin : begin + array.count]
            begin += array.count
            items = sum(b.items for b in array.blocks)
            if items != (array.rows if array.nbytes else 0) or (array.blocks and not array.nbytes):
                raise ValueError(f"array {array.name}: its blocks do not add up to its items")
            for block in array.blocks:
                if block.coder >= FIRST_MODEL_CODER and (
                    array.item_shape is None
                    or self.model is None
                    or not 1 <= block.items <= LONGEST_CHAIN
                    or (block.coder in COUPLED) != (self.particles > 1)
                    or (block.coder == SERIES) != (array.layout == "NT")
                ):
                    raise ValueError(f"array {array.name}: a block says it needs a model that cannot fit")
        if begin != len(self.blocks):
            raise ValueError("the arrays do not own all blocks")

    def payload(self, block: Block) -> bytes:
        """A block's bytes, its CRC-32 checked."""
        self.file.seek(block.begin)
        payload = self.file.read(block.length)
        if len(payload) != block.length or zlib.crc32(payload) != block.checksum:
            raise DamagedArchive(
                f"{self.path}: block {block.index} of {len(self.blocks)} is damaged (its checksum does not match)"
            )
        return payload


def _index(data: bytes, at: int, version: int) -> list[Block]:
    """The four columns of the index, to the end of the directory."""
    count, at = get_varint(data, at)
    coders, at = data[at : at + count], at + count
    columns = []
    for _ in range(2):
        column = []
        for _ in range(count):
            value, at = get_varint(data, at)
            column.append(value)
        columns.append(column)
    if len(data) - at != 4 * count or len(coders) != count:
        raise ValueError("the index does not end where it should")
    for coder in coders:
        if SINCE.get(coder, version + 1) > version:
            raise ValueError(f"a block of coder {coder} in format version {version}")
    checksums = struct.unpack(f"<{count}I", data[at:])
    begins = accumulate(columns[1], initial=12)
    return [Block(i, *entry) for i, entry in enumerate(zip(coders, columns[0], begins, columns[1], checksums))]


def decode_classical(coder: int, payload: bytes, size: int) -> bytes:
    """The ``size`` bytes of a block of coder 0, 1 or 2 (section 6). Raises ValueError."""
    if coder == 0:
        out, whole = payload, True
    elif coder == 1:
        inflater = zlib.decompressobj(-15)
        try:
            out = inflater.decompress(payload, size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        whole = inflater.eof and not inflater.unused_data
    else:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}])
        try:
            out = decoder.decompress(payload, size + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise ValueError(str(error)) from error
        whole = decoder.eof and not decoder.unused_data
    if len(out) != size or not whole:
        raise ValueError("its bytes are not those of its items")
    return out
