"""Archives and model files taken apart, and put together again with every outer check right."""

import json
import struct
import zlib
from copy import copy
from dataclasses import dataclass, field
from typing import Any

MAGIC, END = b"\x89VDZ\r\n\x1a\n", b"VDZ\x1aend\n"
FRAMED, HEAD, TAIL, OPENING, DIGEST = 5, 12, 24, 20, 32


def put_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def get_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


@dataclass
class Part:
    """A block. ``checksum``: of its items, in a frame; ``said`` and ``listed``: what its frame and the index say instead of the
    truth, by field."""

    array: int
    first: int
    items: int
    coder: int
    payload: bytes
    checksum: int = 0
    said: dict[str, int] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)

    def copied(self) -> "Part":
        said, listed = dict(self.said), dict(self.listed)
        return Part(self.array, self.first, self.items, self.coder, self.payload, self.checksum, said, listed)

    def facts(self) -> dict[str, int]:
        """The fields, by name."""
        return {"array": self.array, "first": self.first, "items": self.items, "coder": self.coder & 255}

    def framed(self, stamp: bytes) -> bytes:
        """Frame and payload, in an archive with this ``stamp``."""
        checksum = zlib.crc32(stamp + self.payload)
        said = self.facts() | {"length": len(self.payload), "checksum": checksum} | self.said
        out = b"\xd7\x4b" + b"".join(put_varint(said[name]) for name in ("array", "first", "items"))
        out += bytes([said["coder"] & 255]) + put_varint(said["length"])
        out += struct.pack("<II", self.checksum, said["checksum"])
        return out + struct.pack("<H", said.get("check", zlib.crc32(stamp + out) & 0xFFFF)) + self.payload


@dataclass
class Parts:
    """An archive. ``text``: of the record; ``digests``: one for each array, of versions from 5 on; ``closing`` and ``directory``: in the
    place of what belongs there, before it is packed; ``streams``: packed, in the place of (record, closing or directory)."""

    version: int
    text: bytes
    parts: list[Part]
    digests: list[bytes] = field(default_factory=list)
    closing: bytes | None = None
    streams: dict[str, bytes] = field(default_factory=dict)
    zero: int = 0

    @property
    def record(self) -> Any:
        return json.loads(self.text)

    def with_record(self, record: Any) -> "Parts":
        """The same with another record."""
        other = self.copied()
        other.text = json.dumps(record, separators=(",", ":")).encode()
        return other

    def copied(self) -> "Parts":
        other = copy(self)
        other.parts, other.digests = [part.copied() for part in self.parts], [*self.digests]
        other.streams = dict(self.streams)
        return other

    def index(self, blocks: list[bytes]) -> bytes:
        """Number of blocks, then the columns, as of the version."""
        listed = [p.facts() | {"length": len(block)} | p.listed for p, block in zip(self.parts, blocks)]
        framed = self.version >= FRAMED
        out = put_varint(len(listed)) + (b"".join(put_varint(f["array"]) for f in listed) if framed else b"")
        out += bytes(f["coder"] & 255 for f in listed) + b"".join(put_varint(f["items"]) for f in listed)
        out += b"".join(put_varint(f["length"]) for f in listed)
        return out + (b"" if framed else b"".join(struct.pack("<I", zlib.crc32(b)) for b in blocks))

    def together(self) -> bytes:
        """The file."""
        head = MAGIC + struct.pack("<HH", self.version & 0xFFFF, self.zero)
        if self.version >= FRAMED:
            start = self.streams.get("record") or zlib.compress(self.text, 1)
            head += struct.pack("<I", len(start))
            head += struct.pack("<I", zlib.crc32(start, zlib.crc32(head)))
            blocks = [part.framed(head[16:]) for part in self.parts]
            closing = b"".join(self.digests) + self.index(blocks)
        else:
            blocks, start = [part.payload for part in self.parts], b""
            closing = put_varint(len(self.text)) + self.text + self.index(blocks)
        packed = self.streams.get("closing") or zlib.compress(closing if self.closing is None else self.closing, 1)
        body = b"".join(blocks)
        tail = struct.pack("<QII", len(body), len(packed), zlib.crc32(packed, zlib.crc32(head))) + END
        return head + start + body + packed + tail


def take_apart(data: bytes) -> Parts:
    """What a sound archive is made of. Raises IndexError, ValueError, KeyError, TypeError, struct.error or zlib.error for others."""
    (version,) = struct.unpack_from("<H", data, 8)
    length, size = struct.unpack_from("<QI", data, len(data) - TAIL)
    if version < FRAMED:
        inside = zlib.decompress(data[HEAD + length : HEAD + length + size])
        count, at = get_varint(inside, 0)
        text, at = inside[at : at + count], at + count
        owners = [k for k, entry in enumerate(json.loads(text)["arrays"]) for _ in range(entry["blocks"])]
        return Parts(version, text, _parts(data, HEAD, inside, at, owners))
    (packed,) = struct.unpack_from("<I", data, HEAD)
    text = zlib.decompress(data[OPENING : OPENING + packed])
    begin = OPENING + packed + length
    inside, arrays = zlib.decompress(data[begin : begin + size]), len(json.loads(text)["arrays"])
    digests = [inside[DIGEST * k : DIGEST * (k + 1)] for k in range(arrays)]
    return Parts(version, text, _parts(data, OPENING + packed, inside, DIGEST * arrays, None), digests)


def _parts(data: bytes, begin: int, index: bytes, at: int, owners: list[int] | None) -> list[Part]:
    count, at = get_varint(index, at)

    def column(at: int) -> tuple[list[int], int]:
        values = []
        for _ in range(count):
            value, at = get_varint(index, at)
            values.append(value)
        return values, at

    framed = owners is None
    if framed:
        owners, at = column(at)
    coders, at = index[at : at + count], at + count
    items, at = column(at)
    sizes, at = column(at)
    parts, firsts = [], dict.fromkeys(owners or (), 0)
    for array, coder, number, size in zip(owners or (), coders, items, sizes):
        block = data[begin : begin + size]
        checksum = 0
        if framed:
            where = 2
            for _ in range(3):
                _, where = get_varint(block, where)
            _, where = get_varint(block, where + 1)
            (checksum,) = struct.unpack_from("<I", block, where)
            block = block[where + 10 :]
        parts.append(Part(array, firsts[array], number, coder, block, checksum))
        firsts[array] += number
        begin += size
    return parts


def to_early(parts: Parts, version: int, sha256: str) -> Parts:
    """A version-5 archive as one of an earlier version, of the same blocks in order of their arrays; ``sha256``: of all data."""
    record = parts.record
    counts = [sum(p.array == k for p in parts.parts) for k in range(len(record["arrays"]))]
    entries = [entry | {"blocks": count} for entry, count in zip(record["arrays"], counts)]
    ordered = sorted((part.copied() for part in parts.parts), key=lambda p: p.array)
    return Parts(version, b"", ordered).with_record(record | {"arrays": entries, "sha256": sha256})


@dataclass
class ModelParts:
    """A model file: the header of its tensors, the record in it, and the tensors' bytes."""

    tensors: dict[str, Any]
    record: Any
    data: bytes

    def together(self, text: str | None = None) -> bytes:
        """The file; ``text`` in the place of the record's."""
        said = json.dumps(self.record) if text is None else text
        header = json.dumps({"__metadata__": {"vaedensity": said}, **self.tensors}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header + self.data


def take_model_apart(data: bytes) -> ModelParts:
    """What a sound model file is made of. Raises ValueError, KeyError, TypeError, AttributeError or struct.error for others."""
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    record = json.loads(header.pop("__metadata__")["vaedensity"])
    return ModelParts(header, record, data[8 + size :])
