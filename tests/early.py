"""A writer of archives of format versions 1 to 4, which the package reads for ever and writes no more."""

import json
import struct
import zlib
from typing import Any, BinaryIO, NamedTuple

from vaedensity.archive import varint
from vaedensity.archive.container import END_MAGIC, FOOTER, HEAD, MAGIC
from vaedensity.archive.reader import ArchiveFile


def early_record(archive: ArchiveFile) -> dict[str, Any]:
    """The record of an archive as one of format version 4 has it; of several arrays without the right digest."""
    record = json.loads(json.dumps(archive.record))
    for entry, array in zip(record["arrays"], archive.arrays):
        entry["blocks"] = len(array.blocks)
    digest = archive.digests[0] if len(archive.digests) == 1 else None
    return record | {"sha256": (digest or bytes(32)).hex()}


class Block(NamedTuple):
    coder: int
    items: int
    length: int
    checksum: int


class EarlyWriter:
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
        self.f.write(FOOTER.pack(self.length, len(directory), checksum, END_MAGIC))
        alone = len(zlib.compress(varint.put(len(text)) + text, 9))
        return {"header": HEAD.size + FOOTER.size + alone, "index": len(directory) - alone}


def pack_index(blocks: list[Block]) -> bytes:
    """Columns: number of blocks, then all coders, item counts, lengths, checksums."""
    out = varint.put(len(blocks)) + bytes(b.coder for b in blocks)
    out += b"".join(varint.put(b.items) for b in blocks) + b"".join(varint.put(b.length) for b in blocks)
    return out + b"".join(struct.pack("<I", b.checksum) for b in blocks)
