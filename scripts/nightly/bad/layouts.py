"""Archives whose layout, record or index makes no sense, each for one reason."""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scripts.nightly.bad.case import DAMAGED, USAGE, Case, changed
from scripts.nightly.fuzzing.parts import Parts, put_varint, take_apart
from scripts.nightly.fuzzing.tiny import packed

DATA = np.arange(12, dtype=np.uint8).reshape(4, 3)


def base() -> Parts:
    """A sound archive of an array "x", 4 items of 3 bytes, to be restored as x.npy."""
    return take_apart(packed({"x": DATA}, {"kind": "npy", "name": "x.npy"}))


def layouts() -> Iterator[Case]:
    """Head, header, index, footer."""
    whole = base().together()
    yield Case("empty", DAMAGED, b"")
    yield Case("too-short", DAMAGED, whole[:43])
    yield Case("cut-in-the-header", DAMAGED, whole[:30] + whole[-18:])
    yield Case("text", DAMAGED, b"hello " * 10)
    yield Case("text-mode-transfer", DAMAGED, whole.replace(b"\r\n", b"\n", 1))
    for number in (1, 5):
        yield Case(f"never-released-{number}", DAMAGED, b"\x89VDZ" + whole[4:8] + bytes([number]) + whole[9:])
    for name, version, zero in (
        ("version-0", 0, 0),
        ("version-2", 2, 0),
        ("version-1-1", 1, 1),
        ("version-257", 257, 0),
    ):
        yield Case(name, DAMAGED, whole[:8] + struct.pack("<HH", version, zero) + whole[12:])
    yield Case("half", DAMAGED, whole[: len(whole) // 2])
    yield Case("last-byte-missing", DAMAGED, whole[:-1])
    yield Case("byte-appended", DAMAGED, whole + b"\0")
    yield Case("byte-inside", DAMAGED, whole[:60] + b"\0" + whole[60:])
    yield Case("header-longer-than-the-file", DAMAGED, whole[:12] + struct.pack("<I", 1 << 20) + whole[16:])
    yield Case("header-beyond-the-limit", DAMAGED, whole[:12] + struct.pack("<I", (1 << 28) + 1) + whole[16:])
    yield Case("header-altered", DAMAGED, whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    yield Case("index-altered", DAMAGED, whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:])
    yield Case("lengths-do-not-add-up", DAMAGED, whole[:-24] + struct.pack("<Q", 3) + whole[-16:])
    parts = base()
    for name, stream in {
        "header-no-stream": b"no zlib stream",
        "header-then-more": zlib.compress(parts.text) + b"x",
        "header-cut-off": zlib.compress(parts.text)[:-4],
        "record-no-json": zlib.compress(b"{]"),
        "record-no-utf-8": zlib.compress(b'{"arrays": "\xff"}'),
        "record-no-object": zlib.compress(b"[]"),
        "record-deep": zlib.compress(b"[" * 100_000),
        "record-deep-inside": zlib.compress(json.dumps(parts.record | {"by": nested(40)}).encode()),
        "record-of-brackets": zlib.compress(b"[" * ((1 << 24) + 1), 9),
    }.items():
        parts.streams = {"header": stream}
        yield Case(name, DAMAGED, parts.together())
    parts = base()
    columns = parts.columns([p.together(b"") for p in parts.parts])
    for name, index in {
        "digests-cut-off": b"",
        "index-missing": bytes(32),
        "index-cut-off": bytes(32) + columns[:-1],
        "index-then-more": bytes(32) + columns + b"\0",
        "number-written-longer": bytes(32) + b"\x81\0" + columns[1:],
        "number-too-long": bytes(32) + b"\xff" * 10,
        "more-blocks-than-room": bytes(32) + put_varint(1000) + bytes(4000),
    }.items():
        parts.index = index
        yield Case(name, DAMAGED, parts.together())


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def indices() -> Iterator[Case]:
    """Blocks that are not those of the arrays, and block headers that say other than the index."""

    def case(name: str, change: Callable[[Parts], Any], status: int = DAMAGED) -> Case:
        parts = base()
        change(parts)
        return Case(name, status, parts.together())

    for field, value in (("array", 1), ("codec", 6), ("codec", 4), ("items", 3), ("items", 0), ("length", 40)):
        yield case(f"index-says-{field}-{value}", lambda p, f=field, v=value: p.parts[0].listed.update({f: v}))
    for field, value in (
        ("array", 1),
        ("first", 1),
        ("items", 3),
        ("codec", 1),
        ("length", 11),
        ("checksum", 0),
        ("check", 0),
    ):
        yield case(f"block-header-says-{field}-{value}", lambda p, f=field, v=value: p.parts[0].said.update({f: v}))
    yield case("block-of-no-array", lambda p: setattr(p.parts[0], "array", 1))
    for codec, what in ((6, "unknown"), (14, "unknown-too"), (16, "raw-with-a-flag"), (21, "series-with-a-flag")):
        yield case(f"codec-{what}", lambda p, codec=codec: setattr(p.parts[0], "codec", codec))
    for codec in (4 + 64, 4 + 128, 15 + 16):
        yield case(f"codec-flag-unknown-{codec}", lambda p, codec=codec: setattr(p.parts[0], "codec", codec))
    yield case("block-twice", lambda p: p.parts.append(p.parts[0]))
    yield case("no-blocks", lambda p: p.parts.clear())
    yield case("block-lost", lambda p: changed(p.parts[0], codec=15, payload=b"", items_checksum=0))
    yield case("items-checksum", lambda p: changed(p.parts[0], items_checksum=1))
    yield case("raw-too-short", lambda p: changed(p.parts[0], payload=p.parts[0].payload[:11]))
    yield case("raw-too-long", lambda p: changed(p.parts[0], payload=p.parts[0].payload + b"\0"))
    yield case("deflate-of-nothing", lambda p: changed(p.parts[0], codec=1, payload=b"\xff"))
    yield case("deflate-then-more", lambda p: changed(p.parts[0], codec=1, payload=deflated(DATA.tobytes()) + b"x"))
    yield case("deflate-bomb", lambda p: changed(p.parts[0], codec=1, payload=deflated(bytes(100_000))))
    yield case("deflate-cut-off", lambda p: changed(p.parts[0], codec=1, payload=deflated(DATA.tobytes())[:-2]))
    yield case("lzma-of-nothing", lambda p: changed(p.parts[0], codec=2, payload=b"\xff"))
    stream = b"\x01\0\x0b" + DATA.tobytes()
    yield case("lzma-cut-off", lambda p: changed(p.parts[0], codec=2, payload=stream))
    yield case("planes-of-bytes", lambda p: changed(p.parts[0], codec=3, payload=stream + b"\0"))
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
NAMED = {"name": "x", "sha256": "0" * 64, "probe": "0" * 16}
RECORDS: dict[str, dict[str, Any]] = {
    "requires-telepathy": {"requires": ["telepathy"]},
    "requires-two": {"requires": ["b\n", "a"]},
    "requires-no-list": {"requires": "telepathy"},
    "requires-numbers": {"requires": [1]},
    "arrays-no-list": {"arrays": {}},
    "arrays-missing": {"arrays": None},
    "arrays-of-numbers": {"arrays": [5]},
    "restore-no-list": {"restore": {}},
    "restore-missing": {"restore": None},
    "model-no-object": {"model": "x"},
    "model-without-hash": {"model": {"name": "x", "probe": "0" * 16}},
    "model-without-probe": {"model": {"name": "x", "sha256": "0" * 64}},
    "model-name-a-number": {"model": NAMED | {"name": 5}},
    "probe-a-number": {"model": NAMED | {"probe": 7}},
    "probe-too-short": {"model": NAMED | {"probe": "0" * 15}},
    "particles-0": {"model": NAMED | {"particles": 0}},
    "particles-257": {"model": NAMED | {"particles": 257}},
    "particles-of-truth": {"model": NAMED | {"particles": True}},
    "model-in-no-array": {"model": NAMED | {"array": "y"}},
    "model-in-a-list": {"model": NAMED | {"array": ["x"]}},
    "model-in-an-array-of-bytes": {"model": NAMED | {"array": "x"}},
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
