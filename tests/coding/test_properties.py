"""Whatever arrays go into an archive come out of it, all of them or some rows. How many are tried: see cases.py."""

import hashlib
import lzma
import zlib
from pathlib import Path

import numpy as np
import pytest
from cases import BLOCK_BYTES, CONTENTS, Spec, filled, maybe_on_disk, pack, same, several, specs, unpack
from early import EarlyWriter
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import PATIENT, cases
from vaedensity.archive.digest import feed
from vaedensity.numpy_decoder.archive import read_arrays as read_plainly

from vaedensity.archive import fallback
from vaedensity.archive.container import Writer
from vaedensity.archive.decoding import read_rows
from vaedensity.archive.reader import ArchiveFile
from vaedensity.errors import DamagedArchive, UsageError

pytestmark = PATIENT
SELDOM = st.sampled_from([False, False, False, True])
WITH_ROWS = ("line", "grey", "last", "first", "any")
UNKEPT = ("|S0", "<U0", ">m8")  # by numpy.empty, which the second reader uses
ENCODERS = {
    fallback.RAW: lambda data, width: data,
    fallback.DEFLATE: lambda data, width: fallback.deflate(data),
    fallback.LZMA2: lambda data, width: fallback._lzma(data),
    fallback.PLANES: lambda data, width: fallback._lzma(fallback.to_planes(data, width)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@cases(700)
@given(several(), BLOCK_BYTES, st.booleans(), SELDOM, SELDOM)
@example({"x": Spec("|u1", (1, 300, 300, 3), "noise")}, 4096, True, True, True)
@example({"x": Spec("|b1", (1000, 1, 1))}, 7, True, True, True)
def test_arrays_come_back(
    folder: Path, drawn: dict[str, Spec], block_bytes: int, verify: bool, on_disk: bool, plain: bool
) -> None:
    arrays, path = {name: spec.make() for name, spec in drawn.items()}, folder / "a.vdz"
    tally = pack(path, arrays, None, block_bytes, verify=verify)
    with maybe_on_disk(folder / "disk", on_disk) as allocate:
        back = unpack(path, allocate=allocate)
        assert list(back) == list(arrays) and all(same(back[name], array) for name, array in arrays.items())
    assert tally.payload_bytes <= sum(array.nbytes for array in arrays.values()) == tally.bytes_in
    assert path.stat().st_size == tally.payload_bytes + sum(tally.overhead.values())
    if plain and not any(array.dtype.str in UNKEPT for array in arrays.values()):
        back = read_plainly(path)
        assert list(back) == list(arrays) and all(same(back[name], array) for name, array in arrays.items())


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
@given(
    specs(forms=WITH_ROWS), st.integers(1, 9), st.lists(st.sampled_from([*ENCODERS]), min_size=1, max_size=9), SELDOM
)
def test_every_fallback_coder(folder: Path, spec: Spec, rows: int, coders: list[int], plain: bool) -> None:
    """Whichever the writer takes: a reader reads any, in any order."""
    array, path = spec.make(), folder / "a.vdz"
    width = array.dtype.itemsize
    if width < 2:
        coders = [coder for coder in coders if coder != fallback.PLANES] or [fallback.RAW]
    record = {"arrays": [{"name": "x", "dtype": array.dtype.str, "shape": array.shape}], "meta": {"collections": []}}
    with open(path, "wb") as f:
        writer = Writer(f, record)
        for number, (first, part) in enumerate(small_blocks(array, max(rows, len(array) // 50))):
            coder = coders[number % len(coders)]
            payload = ENCODERS[coder](part.tobytes(), width)
            writer.add(0, first, len(part), coder, payload, zlib.crc32(part.tobytes()))
        writer.finish([hashlib.sha256(array.tobytes()).digest()])
    assert same(unpack(path)["x"], array)
    if plain and array.dtype.str not in UNKEPT:
        assert same(read_plainly(path)["x"], array)


@cases(150)
@given(several(most=3), st.integers(1, 4), st.integers(1, 9), st.integers(0, 2))
def test_early_versions(folder: Path, drawn: dict[str, Spec], version: int, rows: int, coder: int) -> None:
    arrays, path = {name: spec.make() for name, spec in drawn.items()}, folder / "a.vdz"
    entries, digest = [], hashlib.sha256()
    with open(path, "wb") as f:
        writer = EarlyWriter(f, version)
        for name, array in arrays.items():
            feed(digest, array)
            parts = small_blocks(array.reshape(-1) if not array.ndim else array, max(rows, array.size // 50))
            for _, part in parts:
                writer.add(coder, len(part), ENCODERS[coder](part.tobytes(), 1))
            entries.append({"name": name, "dtype": array.dtype.str, "shape": array.shape, "blocks": len(parts)})
        writer.finish({"arrays": entries, "meta": {"collections": []}, "sha256": digest.hexdigest()})
    back = unpack(path)
    assert list(back) == list(arrays) and all(same(back[name], array) for name, array in arrays.items())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    with pytest.raises(DamagedArchive):
        unpack(path)


@cases(100)
@given(st.sampled_from([*CONTENTS]), st.integers(0, 1000), st.integers(0, 9000), st.integers(1, 20))
@example("noise", 0, 4096, 1)
@example("sparse", 0, 65_536, 2)
def test_a_small_dictionary_is_wide_enough(contents: str, seed: int, count: int, width: int) -> None:
    """Preparing one of 16 MiB takes longer than coding a small block, and gains nothing."""
    data = filled(contents, seed, count // width * width).tobytes()
    coder, payload = fallback.encode(data, width)
    assert len(payload) <= len(data)
    assert fallback.decode(coder, payload, len(data), width) == data
    if len(data) < 100 or len(data) == 65_536:
        assert fallback._lzma(data) == lzma.compress(data, lzma.FORMAT_RAW, filters=fallback._FILTERS)
