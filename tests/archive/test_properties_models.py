"""Whatever a model codes comes back, by any codec, whatever its shape, with what it does not know; altered, it is
rejected."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import blocks_of, maybe_on_disk, pack, patched, same, unpack, with_holes
from hypothesis import given
from hypothesis import strategies as st
from model_cases import IMAGES, LARGE, SERIES, Items, items, network
from profiles import PATIENT, cases

from vaedensity.api.models import model_for
from vaedensity.archive.block import SERIES as BY_SERIES
from vaedensity.archive.block import Codec, Kind
from vaedensity.archive.block_decoder import Lost
from vaedensity.archive.container import Writer
from vaedensity.archive.decoding import read_arrays, read_rows
from vaedensity.archive.model_blocks import BlockCoder
from vaedensity.archive.reader import ArchiveFile
from vaedensity.errors import DamagedArchive, ModelError

pytestmark = PATIENT
SELDOM = st.sampled_from([False, False, False, False, False, True])
CHAINS = st.integers(1, 3)
ENDS_FIRST = st.booleans()
OTHER = np.arange(7, dtype=">i2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


def write(path: Path, drawn: Items, chain: int, **options: Any) -> np.ndarray:
    """The items of an archive of them, in chains of so many, by the model where it knows them, and of another array."""

    def spans(self: BlockCoder, array: np.ndarray) -> list[tuple[int, int]]:
        return [(first, min(first + chain, len(array))) for first in range(0, len(array), chain)]

    array, (model, _) = drawn.make(), network(drawn.model)
    own = {"model_blocks__WORTH_ASKING": float("inf"), "model_blocks__BlockCoder__spans": spans}
    with patched(**{f"archive__{name}": value for name, value in own.items()}):
        pack(path, {"x": array, "y": OTHER}, model, **options)
    return array


def read_plainly(path: Path) -> dict[str, Any]:
    """All arrays of an archive with its model inside, by the numpy engine."""
    with ArchiveFile(path) as archive:
        return read_arrays(archive, model_for(archive, None, "numpy"), threads=1)


def require_codecs(path: Path, drawn: Items, codec: Codec) -> None:
    """The model coded every block of items that it knows, and no other."""
    known = drawn.known()
    for block in blocks_of(path)[0]:
        if block.array == 0:
            own = known[block.first : block.first + block.items].all()
            assert block.codec == codec if own else not block.codec.by_model


def require_back(path: Path, drawn: Items, array: np.ndarray, data: st.DataObject, lockstep: int, disk: bool) -> None:
    model = network(drawn.model)[0]
    with maybe_on_disk(path.parent / "disk", disk) as allocate:
        back = unpack(path, model, lockstep=lockstep, allocate=allocate)
        assert list(back) == ["x", "y"] and same(back["x"], array) and same(back["y"], OTHER)
    start = data.draw(st.integers(0, len(array) - 1))
    stop = data.draw(st.integers(start + 1, len(array)))
    with ArchiveFile(path) as archive:
        assert same(read_rows(archive, "x", start, stop, model, threads=1), array[start:stop])


@cases(44)
@given(items(tuple(IMAGES)), CHAINS, ENDS_FIRST, st.booleans(), SELDOM, SELDOM, st.integers(1, 4), st.data())
def test_images_come_back(
    folder: Path,
    drawn: Items,
    chain: int,
    ends_first: bool,
    verify: bool,
    inside: bool,
    disk: bool,
    lockstep: int,
    data: st.DataObject,
) -> None:
    path, file = folder / "a.vdz", network(drawn.model)[1]
    codec = Codec(Kind.MODEL, ends_first=ends_first)
    array = write(path, drawn, chain, codec=codec, verify=verify, inside=file if inside else None)
    require_codecs(path, drawn, codec)
    require_back(path, drawn, array, data, lockstep, disk)
    if inside and drawn.known().any():
        with ArchiveFile(path) as archive:
            own = model_for(archive, None)
            if archive.model is not None:
                assert own is not None and own.sha256 == network(drawn.model)[0].sha256
            assert same(read_arrays(archive, own, threads=1)["x"], array)
        back = read_plainly(path)
        assert list(back) == ["x", "y"] and same(back["x"], array) and same(back["y"], OTHER)


@cases(11)
@given(items(tuple(IMAGES), 4), CHAINS, ENDS_FIRST, st.integers(2, 5), SELDOM, SELDOM, st.data())
def test_images_come_back_with_particles(
    folder: Path,
    drawn: Items,
    chain: int,
    ends_first: bool,
    particles: int,
    verify: bool,
    plain: bool,
    data: st.DataObject,
) -> None:
    path, file = folder / "a.vdz", network(drawn.model)[1]
    inside = file if plain else None
    codec = Codec(Kind.MODEL, coupled=True, ends_first=ends_first)
    array = write(path, drawn, chain, codec=codec, particles=particles, verify=verify, inside=inside)
    require_codecs(path, drawn, codec)
    require_back(path, drawn, array, data, 2, False)
    if plain:
        assert same(read_plainly(path)["x"], array)


@cases(15)
@given(items(tuple(SERIES)), CHAINS, st.booleans(), SELDOM, SELDOM, st.integers(1, 4), st.data())
def test_series_come_back(
    folder: Path, drawn: Items, chain: int, verify: bool, plain: bool, disk: bool, lockstep: int, data: st.DataObject
) -> None:
    path, file = folder / "a.vdz", network(drawn.model)[1]
    array = write(path, drawn, chain, verify=verify, inside=file if plain else None)
    require_codecs(path, drawn, BY_SERIES)
    require_back(path, drawn, array, data, lockstep, disk)
    if plain:
        assert same(read_plainly(path)["x"], array)


@cases(11)
@given(items((*IMAGES, *SERIES), 20))
def test_what_the_writer_chooses_comes_back(folder: Path, drawn: Items) -> None:
    """Its own chains and coders, fallback ones where these are shorter."""
    path, array, (model, _) = folder / "a.vdz", drawn.make(), network(drawn.model)
    tally = pack(path, {"x": array}, model)
    assert same(unpack(path, model)["x"], array)
    assert tally.payload_bytes <= array.nbytes and tally.items_and_values() == (len(array), array.size)


@cases(1)
@given(items(tuple(LARGE), 1), ENDS_FIRST)
def test_large_images_come_back(folder: Path, drawn: Items, ends_first: bool) -> None:
    path, codec = folder / "a.vdz", Codec(Kind.MODEL, ends_first=ends_first)
    array = write(path, drawn, 1, codec=codec, verify=False)
    require_codecs(path, drawn, codec)
    assert same(unpack(path, network(drawn.model)[0])["x"], array)


@cases(15)
@given(items((*IMAGES, *SERIES), 4), CHAINS, st.integers(0, 1 << 20), st.integers(0, 7), st.booleans())
def test_what_is_altered_is_rejected(
    folder: Path, drawn: Items, chain: int, place: int, bit: int, with_care: bool
) -> None:
    """One bit of a payload; ``with_care``, all checksums in the file are then right."""
    path, (model, _) = folder / "a.vdz", network(drawn.model)
    array = write(path, drawn, chain, verify=False)
    with ArchiveFile(path) as archive:
        blocks = archive.blocks
        hit = place % len(blocks)
        payloads = [archive.payload(k) for k in range(len(blocks))]
        record, digests, whole = archive.record, archive.digests, path.read_bytes()
    payload = bytearray(payloads[hit][0])
    payload[place % len(payload)] ^= 1 << bit
    with open(path, "wb") as f:
        if with_care:
            writer = Writer(f, record)
            for k, (block, (data, checksum)) in enumerate(zip(blocks, payloads)):
                data = bytes(payload) if k == hit else data
                writer.add(block.array, block.first, block.items, block.codec, data, checksum)
            writer.finish(digests)
        else:
            end = blocks[hit].begin + blocks[hit].size
            f.write(whole[: end - len(payload)] + payload + whole[end:])
    assert zlib.crc32(payload) != zlib.crc32(payloads[hit][0])
    expected, lost = {"x": array, "y": OTHER}, list[Lost]()
    try:
        back = unpack(path, model)
    except DamagedArchive:
        back = unpack(path, model, lost=lost)
        assert [(one.array, one.first) for one in lost] == [("xy"[blocks[hit].array], blocks[hit].first)]
    else:
        assert with_care and blocks[hit].codec.kind == Kind.DEFLATE  # deflate leaves bits of its last byte unused
    assert all(same(back[name], left) for name, left in with_holes(expected, lost).items())


def test_a_model_is_needed(folder: Path) -> None:
    drawn = Items("grey", 2, "ramps", 1)
    write(folder / "a.vdz", drawn, 1)
    with pytest.raises(ModelError):
        unpack(folder / "a.vdz", None)
    with pytest.raises(ModelError):
        unpack(folder / "a.vdz", network("colour")[0])
