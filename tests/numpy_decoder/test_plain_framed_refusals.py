"""Section 16 on archives of version 5: each check refuses what it is there for, by its own message, in its order."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import framed
import goldens
import numpy as np
import pytest

from vaedensity.archive import decoding
from vaedensity.archive.reader import Archive
from vaedensity.errors import DamagedArchive, ModelError
from vaedensity.numpy_decoder import frames
from vaedensity.numpy_decoder.archive import find_model, read
from vaedensity.numpy_decoder.container import Directory

ARRAYS = {"a": np.arange(6, dtype="<u2").reshape(3, 2), "b": np.arange(4, dtype=np.uint8)}
A, B = framed.cut(0, ARRAYS["a"], (3, 2), (0, 1)), framed.cut(1, ARRAYS["b"], (1, 4))
PARTS = [A[0], *B, A[1]]
ARRAYS_SAID = framed.record(ARRAYS)["arrays"]
SHA256 = framed.digest(ARRAYS)


def build(parts: list[framed.Part] = PARTS, sha256: bytes = SHA256, entry: Any = None, **more: Any) -> bytes:
    """The archive of PARTS. ``entry``: changes of what is said of array "a"; ``more``: of the record, or of how it is
    written."""
    ways = {key: more.pop(key) for key in list(more) if key in framed.written.__kwdefaults__}
    text = more.pop("text", framed.record(ARRAYS, **more))
    if entry:
        text["arrays"][0] |= entry
    return framed.written(text, parts, sha256, **ways)


def message(data: bytes) -> str:
    """What the reader says of ``data``, which it must refuse."""
    with pytest.raises(DamagedArchive) as caught:
        directory = Directory(io.BytesIO(data), Path("x.vdz"))
        read(directory, find_model(directory, None))
    text = str(caught.value)
    assert text.startswith("x.vdz: ") and "\n" not in text
    return text.removeprefix("x.vdz: ")


def test_the_archive_itself_is_read() -> None:
    directory = Directory(io.BytesIO(build()), Path("x.vdz"))
    assert [(b.array, b.first, b.items, b.coder) for b in directory.blocks] == [
        (0, 0, 2, 3),
        (1, 0, 4, 1),
        (0, 2, 1, 0),
    ]
    assert sorted(read(directory, None)) == ["a", "b"]


def test_the_other_reader_reads_it_too(tmp_path: Path) -> None:
    (tmp_path / "x.vdz").write_bytes(build())
    with Archive(tmp_path / "x.vdz") as archive:
        assert goldens.same(decoding.read_arrays(archive, None), ARRAYS)


def patched(at: int, new: bytes, data: bytes | None = None) -> bytes:
    """An archive in which the bytes from ``at`` on are others."""
    data = build() if data is None else data
    at %= len(data)
    return data[:at] + new + data[at + len(new) :]


def listed(k: int, **facts: Any) -> list[framed.Part]:
    return framed.altered(PARTS, k, listed=facts)


def said(k: int, **facts: Any) -> list[framed.Part]:
    return framed.altered(PARTS, k, said=facts)


def closing(count: bytes = b"\3", rest: bytes | None = None) -> bytes:
    """That of PARTS, or with other columns."""
    lengths = bytes(len(part.bytes(b"")) for part in PARTS)
    return SHA256 + count + (b"\0\1\0\3\1\0\2\4\1" + lengths if rest is None else rest)


def short(data: bytes) -> bytes:
    return zlib.compress(data)[:-1]


def long(data: bytes) -> bytes:
    return zlib.compress(data) + b"\0"


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    # step 1
    "35 bytes": (lambda: build()[:35], "35 bytes are too few"),
    "43 bytes": (lambda: build()[:43], "43 bytes are too few"),
    "44 bytes": (lambda: build()[:44], "the end of the archive is missing"),
    "magic": (lambda: patched(0, b"\x88"), "not a .vdz archive"),
    "version 6": (lambda: build(version=6), "format version 6.0, expected 1.0 to 5.0"),
    "version 5.1": (lambda: build(zero=1), "format version 5.1"),
    "version 4": (lambda: build(version=4), "the end of the archive is missing"),
    "end magic": (lambda: patched(-1, b"\r"), "the end of the archive is missing"),
    "more at the end": (lambda: build() + b"\0", "the end of the archive is missing"),
    "R": (lambda: build(limits=(1, 0)), "the end of the archive is missing"),
    "D": (lambda: build(limits=(0, 1)), "the end of the archive is missing"),
    # step 2
    "opening": (lambda: patched(30, b"\0"), "the opening's checksum"),
    "its checksum": (lambda: patched(16, bytes(4)), "the opening's checksum"),
    "closing": (lambda: patched(-30, b"\0"), "the closing's checksum"),
    "opening first": (lambda: patched(30, b"\0", patched(-30, b"\0")), "the opening's checksum"),
    # step 3
    "record cut off": (lambda: build(packed=(short, zlib.compress)), "the opening or the closing makes no sense (a st"),
    "record and more": (lambda: build(packed=(long, zlib.compress)), "a stream does not end where its bytes end"),
    "closing cut off": (lambda: build(packed=(zlib.compress, short)), "a stream does not end where its bytes end"),
    "closing and more": (lambda: build(packed=(zlib.compress, long)), "a stream does not end where its bytes end"),
    "no stream": (lambda: build(packed=(bytes.upper, zlib.compress)), "incorrect header check"),
    # step 4
    "no JSON": (lambda: build(text=b"{"), "the opening or the closing makes no sense"),
    "no UTF-8": (lambda: build(text=b'{"\xff": 1}'), "codec can't decode"),
    "no object": (lambda: build(text=b"[]"), "the record is not one of an archive"),
    "a feature": (lambda: build(requires=["tapes"]), "requires 'tapes', which this reader does not know"),
    "features": (lambda: build(requires=["a", "b\n"]), "requires 'a', 'b\\n', which"),
    "feature first": (lambda: build(text={"requires": ["t"]}, closing=b""), "requires 't'"),
    "requires a string": (lambda: build(requires="tapes"), "requires is not a list of names"),
    "requires a number": (lambda: build(requires=[1]), "requires is not a list of names"),
    "no columns": (lambda: build(closing=b"12"), "a varint is cut off"),
    "no number": (lambda: build(closing=SHA256), "a varint is cut off"),
    "more blocks than bytes": (lambda: build(closing=closing(b"\x80\x80\x80\x10")), "33554432 blocks in "),
    "one block more": (lambda: build(closing=closing(b"\4")), "a varint is cut off"),
    "one byte more": (lambda: build(closing=closing() + b"\0"), "the index does not end where it should"),
    "an unneeded byte": (lambda: build(closing=closing(b"\x83\0")), "unneeded bytes"),
    "ten bytes": (lambda: build(closing=closing(b"\xff" * 9 + b"\1")), "a varint is too long"),
    "bytes between": (lambda: build(between=b"\0"), "the blocks do not fill the file"),
    "a length": (lambda: build(listed(1, length=17)), "the blocks do not fill the file"),
    # step 5
    "no meta": (lambda: build(text={"arrays": ARRAYS_SAID}), "makes no sense (restore metadata is not an object)"),
    "arrays": (lambda: build(text={"arrays": {}, "meta": {}}), "the record is not one of an archive"),
    "meta": (lambda: build(text={"arrays": ARRAYS_SAID, "meta": []}), "restore metadata is not an object"),
    "one name": (lambda: build(entry={"name": "b"}), "two arrays have one name"),
    "type": (lambda: build(entry={"dtype": "|O"}), "is not plain"),
    "order of bytes": (lambda: build(entry={"dtype": "=u2"}), "is not plain"),
    "a shape of nine": (lambda: build(entry={"shape": [3, 2, *[1] * 7]}), "array a: 9 axes, expected at most 8"),
    "a shape of 2^48": (lambda: build(entry={"shape": [3, 1 << 47]}), "beyond the limit of 281474976710656 bytes"),
    "a layout": (lambda: build(entry={"layout": "NT"}), "layout NT does not fit"),
    "too few items": (lambda: build(PARTS[:2]), "array a: its blocks do not add up"),
    "too many items": (lambda: build(listed(2, items=2)), "array a: its blocks do not add up"),
    "items of nothing": (lambda: build(entry={"shape": [0, 2]}), "array a: its blocks do not add up"),
    "a block of no items": (
        lambda: build([*PARTS, framed.Part(1, 4, 0, 0, b"", b"")]),
        "array b: a block of no items",
    ),
    "a block of nothing": (
        lambda: build([*PARTS[1:2], framed.Part(0, 0, 0, 0, b"", b"")], entry={"shape": [0, 2]}),
        "array a: its blocks do not add up",
    ),
    "an array too many": (lambda: build(listed(1, array=2)), "block 1 is of an array that is not described"),
    "coder 4": (lambda: build(listed(1, coder=4)), "a block of coder 4 in format version 5"),
    "coder 14": (lambda: build(listed(1, coder=14)), "a block of coder 14"),
    "coder 23": (lambda: build(listed(1, coder=23)), "a block of coder 23"),
    "coder 16": (lambda: build(listed(1, coder=16)), "a block says it needs a model that cannot fit"),
    "planes of bytes": (lambda: build(listed(1, coder=3)), "array b: byte planes of elements of one byte"),
    "no such array": (
        lambda: build(model={"sha256": "0", "name": "m", "array": "c"}),
        "the model is in array 'c', which is not described",
    ),
    "no name": (lambda: build(model={"sha256": "0", "name": "m", "array": 0}), "the model is in array 0"),
    "a list": (lambda: build(model={"sha256": "0", "name": "m", "array": ["a"]}), "the model is in array ['a']"),
    "no model": (lambda: build(model={"sha256": "0", "name": "m", "array": "b"}), "array b, |u1 of shape [4], can"),
    "a flat model": (
        lambda: build(model={"sha256": "0", "name": "m", "array": "a"}, entry={"dtype": "<i2"}),
        "array a, <i2 of shape [3, 2], can hold no model",
    ),
    # section 6.1
    "lost": (lambda: build(framed.altered(PARTS, 2, coder=15, raw=b"", payload=b"")), "block 2 is lost, items 2 to 2"),
    # step 9
    "marker": (lambda: build(said(1, marker=b"\xd7\x4c")), "block 1 of 3 is damaged (it does not begin with a frame"),
    "check": (lambda: build(said(1, check=0)), "block 1 of 3 is damaged (its frame's checksum"),
    "frame's array": (lambda: build(said(1, array=0)), "block 1 of 3 is damaged (its frame is not the one"),
    "frame's first": (lambda: build(said(2, first=0)), "block 2 of 3 is damaged (its frame is not the one"),
    "frame's items": (lambda: build(said(1, items=3)), "block 1 of 3 is damaged (its frame is not the one"),
    "frame's coder": (lambda: build(said(1, coder=2)), "block 1 of 3 is damaged (its frame is not the one"),
    "frame's length": (lambda: build(said(2, length=3)), "block 2 of 3 is damaged (its frame is not the one"),
    "payload": (lambda: build(said(1, checksum=0)), "block 1 of 3 is damaged (its checksum does not match"),
    # step 11
    "items": (lambda: build(said(1, items_checksum=0)), "block 1: this machine disagrees: its bytes are as written"),
    # step 12
    "digest": (lambda: build(sha256=SHA256[:63] + b"\1"), "array b does not have the SHA-256 of the original"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused(case: str) -> None:
    made, told = CASES[case]
    assert told in message(made())


@pytest.mark.parametrize("case", CASES)
def test_the_other_reader_refuses_it_too(case: str, tmp_path: Path) -> None:
    (tmp_path / "x.vdz").write_bytes(CASES[case][0]())
    with pytest.raises(DamagedArchive), Archive(tmp_path / "x.vdz") as archive:
        decoding.read_arrays(archive, None)


@pytest.mark.parametrize("coder", range(4))
def test_fallback_blocks_decode_to_exactly_their_size(coder: int) -> None:
    """Step 10: more bytes, fewer, none, or another number of items, the frame and its checksums being right."""
    raw = A[0].raw
    good = framed.coded(coder, raw, 2)
    others = [framed.coded(coder, more, 2) for more in (raw + b"12", raw[:-2])]
    for payload in (good + b"\0", good[:-1], b"", *others):
        parts = framed.altered(PARTS, 0, coder=coder, payload=payload)
        assert "block 0 does not decode (" in message(build(parts))
    assert read(Directory(io.BytesIO(build(framed.altered(PARTS, 0, coder=coder, payload=good))), Path("x")), None)


@pytest.mark.parametrize("length", range(17))
def test_frames_that_reach_beyond_their_block_are_refused(length: int) -> None:
    """The closing gives a block fewer bytes than its frame has, and the next one the others."""
    own, other = (len(part.bytes(b"")) for part in PARTS[:2])
    parts = framed.altered(listed(0, length=length), 1, listed={"length": own + other - length})
    told = "it does not begin with a frame" if length < 2 else "cut off"
    assert re.search(rf"block 0 of 3 is damaged \([^(]*{told}", message(build(parts)))


@pytest.mark.parametrize("which", ["R", "D"])
def test_streams_of_more_than_2_to_the_28_bytes_are_refused_unread(which: str, tmp_path: Path) -> None:
    over = (1 << 28) + 1
    r, d = (over, 0) if which == "R" else (0, over)
    with open(tmp_path / "x.vdz", "w+b") as file:  # a hole, of no blocks on the disk
        file.write(b"\x89VDZ\r\n\x1a\n" + struct.pack("<HHII", 5, 0, r, 0))
        file.seek(over, 1)
        file.write(struct.pack("<QII", 0, d, 0) + b"VDZ\x1aend\n")
        with pytest.raises(DamagedArchive, match="268435457 bytes is beyond" if r else "the end of the archive is"):
            Directory(file, tmp_path / "x.vdz")


def test_streams_inflate_within_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros(200, np.uint8)  # a block for each item, so that the closing is longer than the record
    parts = framed.cut(0, array, *[(0, 1)] * 200)
    data = framed.written(framed.record({"x": array}), parts, framed.digest({"x": array}))
    record = len(zlib.decompress(data[20:][: struct.unpack("<I", data[12:16])[0]]))
    closing = 32 + 2 + 4 * len(parts)
    assert record < closing
    for limit in (closing, closing - 1, record, record - 1):
        monkeypatch.setattr(frames, "LARGEST", limit)
        if limit == closing:
            assert Directory(io.BytesIO(data), Path("x.vdz")).blocks
        else:
            assert f"a stream holds more than {limit} bytes" in message(data)


def test_a_model_that_lacks_is_another_refusal(no_released: None) -> None:
    text, parts, sha256 = framed.of_golden("two-valued-v1")
    text["model"]["sha256"] = "0" * 64
    directory = Directory(io.BytesIO(framed.written(text, parts, sha256)), Path("x.vdz"))
    with pytest.raises(ModelError, match="nor a released one"):
        find_model(directory, None)


def test_a_model_that_no_block_needs_may_lack(no_released: None, tmp_path: Path) -> None:
    """It was tried, and nothing coded by it."""
    (tmp_path / "x.vdz").write_bytes(build(model={"sha256": "0" * 64, "name": "m"}))
    with open(tmp_path / "x.vdz", "rb") as file:
        directory = Directory(file, tmp_path / "x.vdz")
        assert directory.model is None and goldens.same(read(directory, find_model(directory, None)), ARRAYS)
    with Archive(tmp_path / "x.vdz") as archive:
        assert archive.model is None and goldens.same(decoding.read_arrays(archive, None), ARRAYS)


def test_the_command_refuses_with_status_3(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "x.vdz"
    for case in ("a feature", "lost", "check", "items", "digest"):
        path.write_bytes(CASES[case][0]())
        assert CASES[case][1] in refused(3, "decompress", path, "-o", tmp_path / "out", "--engine", "numpy")
