"""Archives of version 5 written by hand from section 2.2, so that tests can alter any part of them."""

import hashlib
import json
import lzma
import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import goldens
import numpy as np

from vaedensity.numpy_decoder.container import Directory

LZMA2 = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 24}]


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def coded(coder: int, raw: bytes, element: int = 1) -> bytes:
    """The payload of a fallback block."""
    if coder == 0:
        return raw
    if coder == 1:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflater.compress(raw) + deflater.flush()
    if coder == 3:
        raw = b"".join(raw[k::element] for k in range(element))
    return lzma.compress(raw, lzma.FORMAT_RAW, filters=LZMA2)


@dataclass(frozen=True)
class Part:
    """A block. ``raw``: the bytes of its items; ``payload``: what its coder made of them; ``said``: what its frame says
    in place of the truth, by the name of the field; ``listed``: what the closing says so."""

    array: int
    first: int
    items: int
    coder: int
    raw: bytes
    payload: bytes
    said: dict[str, Any] = field(default_factory=dict)
    listed: dict[str, Any] = field(default_factory=dict)

    def bytes(self, stamp: bytes) -> bytes:
        """Frame and payload, in an archive with this ``stamp``."""
        said = {
            "marker": b"\xd7\x4b",
            "array": self.array,
            "first": self.first,
            "items": self.items,
            "coder": self.coder,
            "length": len(self.payload),
            "items_checksum": zlib.crc32(self.raw),
            "checksum": zlib.crc32(stamp + self.payload),
        } | self.said
        start = said["marker"] + b"".join(varint(said[name]) for name in ("array", "first", "items"))
        start += bytes([said["coder"]]) + varint(said["length"])
        start += struct.pack("<II", said["items_checksum"], said["checksum"])
        return start + struct.pack("<H", said.get("check", zlib.crc32(stamp + start) % 65536)) + self.payload


def cut(number: int, array: np.ndarray, *blocks: tuple[int, int]) -> list[Part]:
    """The parts of an array, one for each (coder, items)."""
    parts, first = [], 0
    rows = np.atleast_1d(array)
    for coder, items in blocks:
        raw = rows[first : first + items].tobytes()
        parts.append(Part(number, first, items, coder, raw, coded(coder, raw, array.itemsize)))
        first += items
    assert first == len(rows)
    return parts


def entry(name: str, array: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"name": name, "dtype": array.dtype.str, "shape": list(array.shape), **more}


def record(arrays: dict[str, np.ndarray], **more: Any) -> dict[str, Any]:
    """A record that restores ``arrays`` as all.npz."""
    collections = [{"kind": "npz", "name": "all.npz", "arrays": {name: name for name in arrays}}]
    entries = [entry(name, array) for name, array in arrays.items()]
    return {"arrays": entries, "meta": {"collections": collections}, "by": "hand", **more}


def digest(arrays: dict[str, np.ndarray]) -> bytes:
    """What the closing begins with: the SHA-256 of each array."""
    return b"".join(hashlib.sha256(array.tobytes()).digest() for array in arrays.values())


def written(
    text: Any,
    parts: list[Part],
    sha256: bytes,
    *,
    version: int = 5,
    zero: int = 0,
    between: bytes = b"",
    closing: bytes | None = None,
    packed: tuple[Any, Any] = (zlib.compress, zlib.compress),
    limits: tuple[int, int] = (0, 0),
) -> bytes:
    """The archive. ``text``: the record, or its bytes; ``between``: bytes after the blocks; ``closing``: other than what
    belongs there; ``packed``: what makes the two streams; ``limits``: added to what is said of R and D."""
    start = packed[0](text if isinstance(text, bytes) else json.dumps(text).encode())
    head = b"\x89VDZ\r\n\x1a\n" + struct.pack("<HHI", version, zero, len(start) + limits[0])
    head += struct.pack("<I", zlib.crc32(head + start))
    blocks = [part.bytes(head[16:]) for part in parts]
    if closing is None:
        listed = [
            {"array": p.array, "coder": p.coder, "items": p.items, "length": len(block)} | p.listed
            for p, block in zip(parts, blocks)
        ]
        closing = sha256 + varint(len(parts)) + b"".join(varint(fact["array"]) for fact in listed)
        closing += bytes(fact["coder"] for fact in listed)
        closing += b"".join(varint(fact[name]) for name in ("items", "length") for fact in listed)
    end = packed[1](closing)
    body = b"".join(blocks) + between
    tail = struct.pack("<QII", len(body), len(end) + limits[1], zlib.crc32(head + end))
    return head + start + body + end + tail + b"VDZ\x1aend\n"


def of_golden(name: str) -> tuple[dict[str, Any], list[Part], bytes]:
    """(record, parts, digests) of a golden's blocks as they are in version 5; its arrays are restored as all.npz."""
    arrays = goldens.arrays(name)
    with open(goldens.archive(name), "rb") as file:
        directory = Directory(file, goldens.archive(name))
        parts = []
        for block in directory.blocks:
            array = np.atleast_1d(arrays[directory.arrays[block.array].name])
            raw = array[block.first : block.first + block.items].tobytes()
            parts.append(Part(block.array, block.first, block.items, block.coder, raw, directory.payload(block)[0]))
    ordered = {array.name: arrays[array.name] for array in directory.arrays}
    text = record(ordered, model=directory.model)
    for described, array in zip(text["arrays"], directory.arrays):
        described |= {"layout": array.layout} if array.layout else {}
    return text, parts, digest(ordered)


def with_model(
    name: str, model: Path | None = None, coders: tuple[int, ...] = (2,)
) -> tuple[dict[str, Any], list[Part], bytes]:
    """As ``of_golden``, with the model file inside, in one block for each of ``coders``."""
    text, parts, _ = of_golden(name)
    whole = (model or goldens.model(name)).read_bytes()
    if len(whole) % 2:
        (size,) = struct.unpack("<Q", whole[:8])
        whole = struct.pack("<Q", size + 1) + whole[8 : 8 + size] + b" " + whole[8 + size :]
    inside = np.frombuffer(whole, "<i2")
    counts = [len(part) for part in np.array_split(inside, max(1, len(coders)))]
    at = len(text["arrays"])
    text["arrays"].append(entry("model", inside))
    text["model"] = {**text["model"], "array": "model"}
    mixed = cut(at, inside, *zip(coders, counts))
    mixed = [*mixed[:1], *parts, *mixed[1:]]
    return text, mixed, digest(goldens.arrays(name) | {"model": inside})


def altered(parts: list[Part], k: int, **changes: Any) -> list[Part]:
    """``parts`` with fields of one of them replaced."""
    return [replace(part, **changes) if i == k else part for i, part in enumerate(parts)]
