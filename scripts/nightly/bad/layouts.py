"""Archives whose layout, record or index makes no sense, each for one reason."""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scripts.nightly.bad.case import DAMAGED, USAGE, Case, changed
from scripts.nightly.fuzzing.parts import Parts, put_varint, take_apart, to_early
from scripts.nightly.fuzzing.tiny import packed

DATA = np.arange(12, dtype=np.uint8).reshape(4, 3)


def base() -> Parts:
    """A sound archive of an array "x", 4 items of 3 bytes, to be restored as x.npy."""
    return take_apart(packed({"x": DATA}, {"kind": "npy", "name": "x.npy"}))


def layouts() -> Iterator[Case]:
    """Head, opening, closing, tail."""
    whole = base().together()
    yield Case("empty", DAMAGED, b"")
    yield Case("too-short", DAMAGED, whole[:35])
    yield Case("cut-in-the-opening", DAMAGED, whole[:20] + whole[-18:])
    yield Case("text", DAMAGED, b"hello " * 10)
    yield Case("text-mode-transfer", DAMAGED, whole.replace(b"\r\n", b"\n", 1))
    for name, version, zero in (
        ("version-0", 0, 0),
        ("version-6", 6, 0),
        ("version-5-1", 5, 1),
        ("version-259", 259, 0),
    ):
        yield Case(name, DAMAGED, whole[:8] + struct.pack("<HH", version, zero) + whole[12:])
    yield Case("half", DAMAGED, whole[: len(whole) // 2])
    yield Case("last-byte-missing", DAMAGED, whole[:-1])
    yield Case("byte-appended", DAMAGED, whole + b"\0")
    yield Case("byte-inside", DAMAGED, whole[:60] + b"\0" + whole[60:])
    yield Case("record-longer-than-the-file", DAMAGED, whole[:12] + struct.pack("<I", 1 << 20) + whole[16:])
    yield Case("record-altered", DAMAGED, whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    yield Case("index-altered", DAMAGED, whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:])
    yield Case("lengths-do-not-add-up", DAMAGED, whole[:-24] + struct.pack("<Q", 3) + whole[-16:])
    parts = base()
    for name, stream in {
        "record-no-stream": b"no zlib stream",
        "record-then-more": zlib.compress(parts.text) + b"x",
        "record-cut-off": zlib.compress(parts.text)[:-4],
        "record-no-json": zlib.compress(b"{]"),
        "record-no-utf-8": zlib.compress(b'{"arrays": "\xff"}'),
        "record-no-object": zlib.compress(b"[]"),
        "record-deep": zlib.compress(b"[" * 100_000),
        "record-deep-inside": zlib.compress(json.dumps(parts.record | {"by": nested(40)}).encode()),
        "record-of-brackets": zlib.compress(b"[" * ((1 << 24) + 1), 9),
    }.items():
        parts.streams = {"record": stream}
        yield Case(name, DAMAGED, parts.together())
    parts = base()
    index = parts.index([p.framed(b"") for p in parts.parts])
    for name, closing in {
        "digests-cut-off": b"",
        "index-missing": bytes(32),
        "index-cut-off": bytes(32) + index[:-1],
        "index-then-more": bytes(32) + index + b"\0",
        "number-written-longer": bytes(32) + b"\x81\0" + index[1:],
        "number-too-long": bytes(32) + b"\xff" * 10,
        "more-blocks-than-room": bytes(32) + put_varint(1000) + bytes(4000),
    }.items():
        parts.closing = closing
        yield Case(name, DAMAGED, parts.together())


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def indices() -> Iterator[Case]:
    """Blocks that are not those of the arrays, and frames that say other than the index."""

    def case(name: str, change: Callable[[Parts], Any], status: int = DAMAGED) -> Case:
        parts = base()
        change(parts)
        return Case(name, status, parts.together())

    for field, value in (("array", 1), ("coder", 9), ("coder", 16), ("items", 3), ("items", 0), ("length", 40)):
        yield case(f"index-says-{field}-{value}", lambda p, f=field, v=value: p.parts[0].listed.update({f: v}))
    for field, value in (
        ("array", 1),
        ("first", 1),
        ("items", 3),
        ("coder", 1),
        ("length", 11),
        ("checksum", 0),
        ("check", 0),
    ):
        yield case(f"frame-says-{field}-{value}", lambda p, f=field, v=value: p.parts[0].said.update({f: v}))
    yield case("block-of-no-array", lambda p: setattr(p.parts[0], "array", 1))
    yield case("coder-unknown", lambda p: setattr(p.parts[0], "coder", 4))
    yield case("coder-23", lambda p: setattr(p.parts[0], "coder", 23))
    yield case("block-twice", lambda p: p.parts.append(p.parts[0]))
    yield case("no-blocks", lambda p: p.parts.clear())
    yield case("block-lost", lambda p: changed(p.parts[0], coder=15, payload=b"", checksum=0))
    yield case("items-checksum", lambda p: changed(p.parts[0], checksum=1))
    yield case("raw-too-short", lambda p: changed(p.parts[0], payload=p.parts[0].payload[:11]))
    yield case("raw-too-long", lambda p: changed(p.parts[0], payload=p.parts[0].payload + b"\0"))
    yield case("deflate-of-nothing", lambda p: changed(p.parts[0], coder=1, payload=b"\xff"))
    yield case("deflate-then-more", lambda p: changed(p.parts[0], coder=1, payload=deflated(DATA.tobytes()) + b"x"))
    yield case("deflate-bomb", lambda p: changed(p.parts[0], coder=1, payload=deflated(bytes(100_000))))
    yield case("deflate-cut-off", lambda p: changed(p.parts[0], coder=1, payload=deflated(DATA.tobytes())[:-2]))
    yield case("lzma-of-nothing", lambda p: changed(p.parts[0], coder=2, payload=b"\xff"))
    yield case("lzma-cut-off", lambda p: changed(p.parts[0], coder=2, payload=b"\x01\0\x0b" + DATA.tobytes()))
    yield case(
        "planes-of-bytes", lambda p: changed(p.parts[0], coder=3, payload=b"\x01\0\x0b" + DATA.tobytes() + b"\0")
    )
    yield case("wrong-digest", lambda p: p.digests.__setitem__(0, b"\1" * 32))


def deflated(data: bytes) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return coder.compress(data) + coder.flush()


ENTRIES: dict[str, dict[str, Any]] = {
    "array-no-name": {"name": None},
    "array-name-no-text": {"name": 5},
    "array-shape-no-list": {"shape": "43"},
    "array-shape-negative": {"shape": [-4, -3]},
    "array-shape-of-fractions": {"shape": [4.0, 3]},
    "array-shape-of-truth": {"shape": [True, 12]},
    "array-nine-axes": {"shape": [1] * 9},
    "array-other-shape": {"shape": [5, 3]},
    "array-too-large": {"shape": [4, 2**60]},
    "array-of-nothing-too-large": {"shape": [2**60], "dtype": "|V0"},
    "array-of-nothing-with-a-block": {"shape": [4], "dtype": "|V0"},
    "array-empty-with-a-block": {"shape": [0, 3]},
    "dtype-missing": {"dtype": None},
    "dtype-of-objects": {"dtype": "|O"},
    "dtype-of-fields": {"dtype": "i4,i4"},
    "dtype-of-parts": {"dtype": "(2,)u1"},
    "dtype-list": {"dtype": [["a", "<i4"]]},
    "dtype-another-way": {"dtype": "uint8"},
    "dtype-unknown": {"dtype": "<f3"},
    "layout-of-two-axes": {"layout": "NHW"},
    "layout-unknown": {"layout": "NWH"},
    "layout-no-text": {"layout": ["NT"]},
    "layout-of-floats": {"layout": "NT", "dtype": "<f4"},
    "layout-of-no-positions": {"layout": "NT", "shape": [4, 0]},
}
RECORDS: dict[str, dict[str, Any]] = {
    "requires-telepathy": {"requires": ["telepathy"]},
    "requires-two": {"requires": ["b\n", "a"]},
    "requires-no-list": {"requires": "telepathy"},
    "requires-numbers": {"requires": [1]},
    "arrays-no-list": {"arrays": {}},
    "arrays-missing": {"arrays": None},
    "arrays-of-numbers": {"arrays": [5]},
    "meta-no-object": {"meta": []},
    "meta-missing": {"meta": None},
    "model-no-object": {"model": "x"},
    "model-without-hash": {"model": {"name": "x"}},
    "model-name-a-number": {"model": {"name": 5, "sha256": "0" * 64}},
    "probe-a-number": {"model": {"name": "x", "sha256": "0" * 64, "probe": 7}},
    "probe-too-short": {"model": {"name": "x", "sha256": "0" * 64, "probe": "0" * 15}},
    "particles-0": {"model": {"name": "x", "sha256": "0" * 64, "particles": 0}},
    "particles-257": {"model": {"name": "x", "sha256": "0" * 64, "particles": 257}},
    "particles-of-truth": {"model": {"name": "x", "sha256": "0" * 64, "particles": True}},
    "model-in-no-array": {"model": {"name": "x", "sha256": "0" * 64, "array": "y"}},
    "model-in-a-list": {"model": {"name": "x", "sha256": "0" * 64, "array": ["x"]}},
    "model-in-an-array-of-bytes": {"model": {"name": "x", "sha256": "0" * 64, "array": "x"}},
}


def records() -> Iterator[Case]:
    """Records that make no sense."""
    parts = base()
    record = parts.record
    entry = record["arrays"][0]
    for name, change in ENTRIES.items():
        yield Case(name, DAMAGED, parts.with_record(record | {"arrays": [entry | change]}).together())
    for name, change in RECORDS.items():
        yield Case(name, DAMAGED, parts.with_record(record | change).together())
    two = parts.with_record(record | {"arrays": [entry, entry]})
    two.digests *= 2
    yield Case("arrays-of-one-name", DAMAGED, two.together())
    large = parts.with_record(record | {"arrays": [entry | {"shape": [4, 1 << 40]}]})
    yield Case("output-beyond-the-usual", USAGE, large.together())
    yield Case("output-beyond-what-is-allowed", USAGE, parts.together(), "--max-output 11")
    yield Case("memory-beyond-what-is-allowed", USAGE, parts.together(), "--memory 35")


def early() -> Iterator[Case]:
    """Of versions 1 to 4."""

    def of(version: int, **changes: Any) -> Parts:
        parts = to_early(base(), version, "0" * 64)
        record = parts.record
        entry = record["arrays"][0] | changes.pop("entry", {})
        return parts.with_record(record | {"arrays": [entry]} | changes)

    whole = of(1).together()
    yield Case("early-wrong-digest", DAMAGED, whole)
    yield Case("early-half", DAMAGED, whole[: len(whole) // 2])
    yield Case("early-last-byte-missing", DAMAGED, whole[:-1])
    yield Case("early-directory-altered", DAMAGED, whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:])
    yield Case("early-block-altered", DAMAGED, whole[:14] + bytes([whole[14] ^ 1]) + whole[15:])
    yield Case("early-other-version", DAMAGED, whole[:8] + b"\2" + whole[9:])
    for name, digest in {"no-digest": None, "digest-short": "0" * 63, "digest-in-capitals": "A" * 64}.items():
        yield Case(f"early-{name}", DAMAGED, of(1, sha256=digest).together())
    for name, count in {
        "blocks-missing": None,
        "blocks-negative": -1,
        "blocks-too-many": 2,
        "blocks-of-truth": True,
    }.items():
        yield Case(f"early-{name}", DAMAGED, of(1, entry={"blocks": count}).together())
    yield Case("early-series", DAMAGED, of(3, entry={"layout": "NT"}).together())
    for version, coder in ((1, 17), (2, 18), (3, 22), (4, 3), (4, 15)):
        parts = of(version)
        parts.parts[0].coder = coder
        yield Case(f"early-{version}-coder-{coder}", DAMAGED, parts.together())
    for name, items, length in (("items", 3, 12), ("length", 4, 13), ("no-items", 0, 12)):
        parts = of(4)
        parts.parts[0].listed = {"items": items, "length": length}
        yield Case(f"early-index-says-{name}", DAMAGED, parts.together())
    parts, text = of(1), of(1).text
    for name, directory in {
        "record-cut-off": put_varint(len(text)) + text[:-1],
        "index-missing": put_varint(len(text)) + text,
        "index-cut-off": put_varint(len(text)) + text + b"\1\0\4\x0c\0\0\0",
        "index-then-more": put_varint(len(text)) + text + b"\1\0\4\x0c" + bytes(5),
        "more-blocks-than-bytes": put_varint(len(text)) + text + put_varint(13) + bytes(13 * 7),
    }.items():
        parts.closing = directory
        yield Case(f"early-{name}", DAMAGED, parts.together())
