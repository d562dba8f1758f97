"""Archives and model files taken apart, and put together again with every outer check right."""

import hashlib
import json
import struct
import zlib
from copy import copy
from dataclasses import dataclass, field
from typing import Any

MAGIC, END = b"\x89vdz\r\n\x1a\n", b"vdz\x1aend\n"
VERSION, FIXED, FOOTER, DIGEST = 1, 20, 24, 32
NAMES = {"I8": "|i1", "I16": "<i2", "I32": "<i4"}


def put_varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def get_varint(data: bytes, at: int) -> tuple[int, int]:
    """(the number at this position, the position after it)."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


@dataclass
class Part:
    """A block. ``said`` and ``listed``: what its header and the index say instead of the truth, by field."""

    array: int
    first: int
    items: int
    codec: int
    payload: bytes
    items_checksum: int = 0
    said: dict[str, int] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)

    def copied(self) -> "Part":
        """The same, to be altered."""
        other = copy(self)
        other.said, other.listed = dict(self.said), dict(self.listed)
        return other

    def facts(self) -> dict[str, int]:
        """The fields, by name."""
        return {"array": self.array, "first": self.first, "items": self.items, "codec": self.codec & 255}

    def together(self, archive_id: bytes) -> bytes:
        """Block header and payload, in an archive with this id."""
        checksum = zlib.crc32(archive_id + self.payload)
        said = self.facts() | {"length": len(self.payload), "checksum": checksum} | self.said
        out = b"\xd7\x4b" + b"".join(put_varint(said[name]) for name in ("array", "first", "items"))
        out += bytes([said["codec"] & 255]) + put_varint(said["length"])
        out += struct.pack("<II", self.items_checksum, said["checksum"])
        return out + struct.pack("<H", said.get("check", zlib.crc32(archive_id + out) & 0xFFFF)) + self.payload


@dataclass
class Parts:
    """An archive.

    ``text``: the record's; ``digests``: one for each array; ``index``: in the place of digests and index, before it is
    packed; ``streams``: packed, in the place of "header" or "index".
    """

    text: bytes
    parts: list[Part]
    digests: list[bytes] = field(default_factory=list)
    index: bytes | None = None
    streams: dict[str, bytes] = field(default_factory=dict)
    version: int = VERSION
    zero: int = 0

    @property
    def record(self) -> Any:
        """Parsed anew: altering it alters nothing."""
        return json.loads(self.text)

    def with_record(self, record: Any) -> "Parts":
        """The same with another record."""
        other = self.copied()
        other.text = json.dumps(record, separators=(",", ":")).encode()
        return other

    def copied(self) -> "Parts":
        """The same, to be altered."""
        other = copy(self)
        other.parts, other.digests = [part.copied() for part in self.parts], [*self.digests]
        other.streams = dict(self.streams)
        return other

    def columns(self, blocks: list[bytes]) -> bytes:
        """The index after the digests: number of blocks, then their arrays, codecs, items and bytes."""
        listed = [p.facts() | {"length": len(block)} | p.listed for p, block in zip(self.parts, blocks)]
        out = put_varint(len(listed)) + b"".join(put_varint(f["array"]) for f in listed)
        out += bytes(f["codec"] & 255 for f in listed) + b"".join(put_varint(f["items"]) for f in listed)
        return out + b"".join(put_varint(f["length"]) for f in listed)

    def together(self) -> bytes:
        """The file."""
        header = self.streams.get("header") or zlib.compress(self.text, 1)
        fixed = MAGIC + struct.pack("<HHI", self.version & 0xFFFF, self.zero, len(header))
        fixed += struct.pack("<I", zlib.crc32(header, zlib.crc32(fixed)))
        blocks = [part.together(fixed[16:]) for part in self.parts]
        index = b"".join(self.digests) + self.columns(blocks) if self.index is None else self.index
        packed = self.streams.get("index") or zlib.compress(index, 1)
        body = b"".join(blocks)
        footer = struct.pack("<QII", len(body), len(packed), zlib.crc32(packed, zlib.crc32(fixed))) + END
        return fixed + header + body + packed + footer


def take_apart(data: bytes) -> Parts:
    """What a sound archive is made of.

    Raises IndexError, ValueError, KeyError, TypeError, struct.error or zlib.error for others.
    """
    length, size = struct.unpack_from("<QI", data, len(data) - FOOTER)
    (packed,) = struct.unpack_from("<I", data, 12)
    text = zlib.decompress(data[FIXED : FIXED + packed])
    begin = FIXED + packed
    index, arrays = zlib.decompress(data[begin + length : begin + length + size]), len(json.loads(text)["arrays"])
    digests = [index[DIGEST * k : DIGEST * (k + 1)] for k in range(arrays)]
    return Parts(text, _parts(data, begin, index, DIGEST * arrays), digests)


def _parts(data: bytes, begin: int, index: bytes, at: int) -> list[Part]:
    count, at = get_varint(index, at)

    def column(at: int) -> tuple[list[int], int]:
        values = []
        for _ in range(count):
            value, at = get_varint(index, at)
            values.append(value)
        return values, at

    owners, at = column(at)
    codecs, at = index[at : at + count], at + count
    items, at = column(at)
    sizes, at = column(at)
    parts, firsts = [], dict.fromkeys(owners, 0)
    for array, codec, number, size in zip(owners, codecs, items, sizes):
        block, where = data[begin : begin + size], 2
        for _ in range(3):
            _, where = get_varint(block, where)
        _, where = get_varint(block, where + 1)
        (checksum,) = struct.unpack_from("<I", block, where)
        parts.append(Part(array, firsts[array], number, codec, block[where + 10 :], checksum))
        firsts[array] += number
        begin += size
    return parts


@dataclass
class ModelParts:
    """A model file: the header of its tensors, the record in it, and the tensors' bytes."""

    tensors: dict[str, Any]
    record: Any
    data: bytes

    def together(self, text: str | None = None, *, signed: bool = True) -> bytes:
        """The file; ``text`` in the place of the record's. ``signed``: with the SHA-256 of what it holds now, if it has
        one."""
        record = self.record
        if signed and isinstance(record, dict) and "sha256" in record:
            record = record | {"sha256": self.sha256() or record["sha256"]}
        said = json.dumps(record) if text is None else text
        header = json.dumps({"__metadata__": {"vaedensity": said}, **self.tensors}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header + self.data

    def sha256(self) -> str | None:
        """Of all that decides coded bits (docs/format.md, "Network SHA-256"); None of what makes no sense."""
        try:
            facts = {key: self.record[key] for key in ("config", "direct_steps", "values")}
            facts["config"] = facts["config"] | {"unit": self.record["unit"]}
            digest = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
            for name, entry in sorted(self.tensors.items()):
                if name.startswith("integer/"):
                    begin, end = entry["data_offsets"]
                    said = f"\n{name} {NAMES[entry['dtype']]} {tuple(entry['shape'])}\n"
                    digest.update(said.encode() + self.data[begin:end])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return digest.hexdigest()


def take_model_apart(data: bytes) -> ModelParts:
    """What a sound model file is made of.

    Raises ValueError, KeyError, TypeError, AttributeError or struct.error for others.
    """
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    record = json.loads(header.pop("__metadata__")["vaedensity"])
    return ModelParts(header, record, data[8 + size :])
