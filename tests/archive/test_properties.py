"""Whatever arrays go into an archive come out of it, all of them or some rows. How many are tried: see cases.py."""

import hashlib
import lzma
import zlib
from pathlib import Path

import numpy as np
import pytest
from cases import BLOCK_BYTES, CONTENTS, Spec, filled, maybe_on_disk, pack, same, several, specs, unpack
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import PATIENT, cases

from vaedensity.archive import fallback
from vaedensity.archive.block import DEFLATE, LZMA, LZMA_PLANES, RAW, Codec
from vaedensity.archive.container import Writer
from vaedensity.archive.decoding import read_rows
from vaedensity.archive.reader import ArchiveFile
from vaedensity.errors import UsageError

pytestmark = PATIENT
SELDOM = st.sampled_from([False, False, False, True])
WITH_ROWS = ("line", "grey", "last", "first", "any")
ENCODERS = {
    RAW: lambda data, width: data,
    DEFLATE: lambda data, width: fallback.deflate(data),
    LZMA: lambda data, width: fallback._lzma(data),
    LZMA_PLANES: lambda data, width: fallback._lzma(fallback.to_planes(data, width)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@cases(700)
@given(several(), BLOCK_BYTES, st.booleans(), SELDOM)
@example({"x": Spec("|u1", (1, 300, 300, 3), "noise")}, 4096, True, True)
@example({"x": Spec("|b1", (1000, 1, 1))}, 7, True, True)
def test_arrays_come_back(folder: Path, drawn: dict[str, Spec], block_bytes: int, verify: bool, on_disk: bool) -> None:
    arrays, path = {name: spec.make() for name, spec in drawn.items()}, folder / "a.vdz"
    tally = pack(path, arrays, None, block_bytes, verify=verify)
    with maybe_on_disk(folder / "disk", on_disk) as allocate:
        back = unpack(path, allocate=allocate)
        assert list(back) == list(arrays) and all(same(back[name], array) for name, array in arrays.items())
    assert tally.payload_bytes <= sum(array.nbytes for array in arrays.values()) == tally.bytes_in
    assert path.stat().st_size == tally.payload_bytes + sum(tally.overhead.values())


@cases(250)
@given(specs(forms=WITH_ROWS), BLOCK_BYTES, st.data())
def test_rows_come_back(folder: Path, spec: Spec, block_bytes: int, data: st.DataObject) -> None:
    array, path = spec.make(), folder / "a.vdz"
    pack(path, {"x": array, "y": np.arange(3)}, None, block_bytes)
    with ArchiveFile(path) as archive:
        read, payload = list[int](), archive.payload
        archive.payload = lambda index: read.append(index) or payload(index)  # type: ignore[method-assign]
        for _ in range(3):
            start = data.draw(st.integers(0, len(array)))
            stop = data.draw(st.integers(start, len(array)))
            assert same(read_rows(archive, "x", start, stop, threads=1), array[start:stop])
            spans = [(archive.blocks[k].first, archive.blocks[k].items) for k in archive.arrays[0].blocks]
            assert read == [k for k, (first, count) in enumerate(spans) if first < stop > start < first + count]
            read.clear()
        for start, stop in ((0, len(array) + 1), (1, 0), (-1, 0)):
            with pytest.raises(UsageError, match="expected 0 to"):
                read_rows(archive, "x", start, stop)


def small_blocks(array: np.ndarray, rows: int) -> list[tuple[int, np.ndarray]]:
    """(first row, rows) of blocks of an array."""
    return [(first, array[first : first + rows]) for first in range(0, len(array), rows)] if array.nbytes else []


@cases(200)
@given(specs(forms=WITH_ROWS), st.integers(1, 9), st.lists(st.sampled_from([*ENCODERS]), min_size=1, max_size=9))
def test_every_fallback_codec(folder: Path, spec: Spec, rows: int, codecs: list[Codec]) -> None:
    """Whichever the writer takes: a reader reads any, in any order."""
    array, path = spec.make(), folder / "a.vdz"
    width = array.dtype.itemsize
    if width < 2:
        codecs = [codec for codec in codecs if codec != LZMA_PLANES] or [RAW]
    record = {"arrays": [{"name": "x", "dtype": array.dtype.str, "shape": array.shape}], "restore": []}
    with open(path, "wb") as f:
        writer = Writer(f, record)
        for number, (first, part) in enumerate(small_blocks(array, max(rows, len(array) // 50))):
            codec = codecs[number % len(codecs)]
            payload = ENCODERS[codec](part.tobytes(), width)
            writer.add(0, first, len(part), codec, payload, zlib.crc32(part.tobytes()))
        writer.finish([hashlib.sha256(array.tobytes()).digest()])
    assert same(unpack(path)["x"], array)


@cases(100)
@given(st.sampled_from([*CONTENTS]), st.integers(0, 1000), st.integers(0, 9000), st.integers(1, 20))
@example("noise", 0, 4096, 1)
@example("sparse", 0, 65_536, 2)
def test_a_small_dictionary_is_wide_enough(contents: str, seed: int, count: int, width: int) -> None:
    """Preparing one of 16 MiB takes longer than coding a small block, and gains nothing."""
    data = filled(contents, seed, count // width * width).tobytes()
    codec, payload = fallback.encode(data, width)
    assert len(payload) <= len(data)
    assert fallback.decode(codec, payload, len(data), width) == data
    if len(data) < 100 or len(data) == 65_536:
        assert fallback._lzma(data) == lzma.compress(data, lzma.FORMAT_RAW, filters=fallback._FILTERS)
