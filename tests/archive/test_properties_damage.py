"""Whatever is done to an archive: damage is noticed and costs the items that it touches, repairing and adding keep the
others."""

from pathlib import Path

import numpy as np
import pytest
from cases import BLOCK_BYTES, Spec, blocks_of, pack, same, several, shapes, specs, unpack, with_holes
from hypothesis import given
from hypothesis import strategies as st
from profiles import PATIENT, cases

from vaedensity.api.add import add
from vaedensity.api.compress import pack as pack_files
from vaedensity.archive.block import Block
from vaedensity.archive.decoding import Lost
from vaedensity.archive.repair import repair
from vaedensity.data.collection import Collection
from vaedensity.errors import DamagedArchive, UsageError

pytestmark = [PATIENT, pytest.mark.usefixtures("no_released_here")]
SMALL_BLOCKS = st.sampled_from([100, 600, 7, 4096])
PLACES = st.integers(0, 1 << 20)
Ranges = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@pytest.fixture(scope="module")
def no_released_here(tmp_path_factory: pytest.TempPathFactory) -> object:
    """As if no checkpoint came with the package: none is tried on what is added."""
    empty = tmp_path_factory.mktemp("no-checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaedensity.model.released.checkpoint_folder", lambda: empty)
        yield


def written(path: Path, drawn: dict[str, Spec], block_bytes: int) -> tuple[dict[str, np.ndarray], bytearray]:
    """Arrays and the bytes of their archive."""
    arrays = {name: spec.make() for name, spec in drawn.items()}
    pack(path, arrays, None, block_bytes)
    return arrays, bytearray(path.read_bytes())


def ranges(lost: list[Lost]) -> Ranges:
    return [(one.array, one.first, one.end) for one in lost]


def require_all_but(path: Path, arrays: dict[str, np.ndarray], expected: Ranges) -> None:
    """Just the ``expected`` items are lost: they are zeros, all others what they were."""
    lost: list[Lost] = []
    back = unpack(path, lost=lost)
    assert ranges(lost) == expected
    left = with_holes(arrays, lost)
    assert list(back) == list(arrays) and all(same(back[name], array) for name, array in left.items())


def spans_of(blocks: list[Block], names: list[str]) -> Ranges:
    return [(names[block.array], block.first, block.first + block.items) for block in blocks]


@cases(250)
@given(several(), SMALL_BLOCKS, PLACES, st.integers(0, 7))
def test_a_turned_bit_costs_one_block(
    folder: Path, drawn: dict[str, Spec], block_bytes: int, place: int, bit: int
) -> None:
    path = folder / "a.vdz"
    arrays, data = written(path, drawn, block_bytes)
    blocks, names, begin = blocks_of(path)
    end = begin + sum(block.size for block in blocks)
    at = begin + place % (end - begin) if place % 4 and end > begin else place % len(data)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    hit = [k for k, block in enumerate(blocks) if block.begin <= at < block.begin + block.size]
    assert len(hit) == (begin <= at < end)
    with pytest.raises(DamagedArchive, match=rf"block {hit[0]} of" if hit else None):
        unpack(path)
    if hit:
        require_all_but(path, arrays, spans_of([blocks[hit[0]]], names))
    else:
        with pytest.raises(DamagedArchive):
            unpack(path, lost=[])


@cases(250)
@given(several(), SMALL_BLOCKS, PLACES)
def test_a_cut_off_archive_is_refused_and_repair_keeps_whole_blocks(
    folder: Path, drawn: dict[str, Spec], block_bytes: int, place: int
) -> None:
    path, new = folder / "a.vdz", folder / "b.vdz"
    arrays, data = written(path, drawn, block_bytes)
    blocks, names, begin = blocks_of(path)
    length = begin + place % (len(data) - begin) if place % 4 else place % len(data)
    path.write_bytes(data[:length])
    with pytest.raises(DamagedArchive):
        unpack(path, lost=[])
    if length < max(begin, 36):
        with pytest.raises(DamagedArchive):
            repair(path, new, overwrite=True)
        return
    record = repair(path, new, overwrite=True)
    gone = [block for block in blocks if block.begin + block.size > length]
    assert record.blocks == len(blocks) - len(gone) and record.index_lost and not record.whole
    missing = joined(spans_of(gone, names))
    assert [(one.array, one.first, one.end) for one in record.lost] == missing
    require_all_but(new, arrays, missing)


def joined(spans: Ranges) -> Ranges:
    """Neighbours of one array as one."""
    out: Ranges = []
    for name, first, end in spans:
        if out and out[-1][0] == name and out[-1][2] == first:
            out[-1] = (name, out[-1][1], end)
        else:
            out.append((name, first, end))
    return out


@cases(200)
@given(several(), SMALL_BLOCKS, PLACES, st.integers(1, 200), st.sampled_from(["zeros", "gone", "noise", "more"]))
def test_repair_keeps_what_no_damage_touches(
    folder: Path, drawn: dict[str, Spec], block_bytes: int, place: int, count: int, kind: str
) -> None:
    """Bytes set to zero, left out, replaced or put in between."""
    path, new = folder / "a.vdz", folder / "b.vdz"
    arrays, data = written(path, drawn, block_bytes)
    blocks, names, begin = blocks_of(path)
    whole, at = bytes(data), begin + place % (len(data) - begin)
    noise = np.random.default_rng(place).bytes(count)
    new_bytes = {"zeros": bytes(len(data[at : at + count])), "gone": b""}.get(kind, noise)
    data[at : at + (0 if kind == "more" else count)] = new_bytes
    path.write_bytes(data)
    record = repair(path, new, overwrite=True)
    assert record.whole == (data == whole)
    if record.whole:
        return

    def is_left(block: Block) -> bool:
        own, later = whole[block.begin :][: block.size], max(0, block.begin + len(data) - len(whole))
        return own in (data[block.begin :][: block.size], data[later:][: block.size])

    gone = [block for block in blocks if not is_left(block)]
    assert record.blocks == len(blocks) - len(gone)
    require_all_but(new, arrays, joined(spans_of(gone, names)))


@cases(150)
@given(several(most=2), SMALL_BLOCKS, PLACES, PLACES, PLACES)
def test_repair_of_blocks_in_disorder_takes_no_wrong_ones(
    folder: Path, drawn: dict[str, Spec], block_bytes: int, begin: int, end: int, to: int
) -> None:
    """Some blocks are there twice, or among those of others."""
    path, new = folder / "a.vdz", folder / "b.vdz"
    arrays, data = written(path, drawn, block_bytes)
    blocks = blocks_of(path)[0]
    ends = [block.begin for block in blocks] or [len(data)]
    first, last = sorted((begin % len(ends), end % len(ends)))
    at = ends[to % len(ends)]
    data[at:at] = data[ends[first] : ends[last]]
    path.write_bytes(data)
    record = repair(path, new, overwrite=True)
    if record.whole:
        assert first == last
    else:
        require_all_but(new, arrays, [(one.array, one.first, one.end) for one in record.lost])


@cases(100)
@given(several(most=2), SMALL_BLOCKS, st.integers(0, 99), PLACES)
def test_repair_tells_an_archive_from_one_inside_it(
    folder: Path, drawn: dict[str, Spec], block_bytes: int, start: int, place: int
) -> None:
    """The bytes of an archive, stored as they are, look like blocks of the one that holds them."""
    path, new = folder / "a.vdz", folder / "b.vdz"
    inner = written(path, {name: Spec("|u1", (900,), "noise", spec.seed) for name, spec in drawn.items()}, block_bytes)[
        1
    ]
    noise = np.random.default_rng(place).bytes(4000)
    arrays = {name: np.frombuffer(noise[:start] + bytes(inner) + noise, np.uint8) for name in drawn}
    pack(path, arrays)
    data = bytearray(path.read_bytes())
    begin = blocks_of(path)[2]
    data[begin + place % 30] ^= 1
    path.write_bytes(data[: len(data) - (place >> 5) % (len(data) - begin)])
    record = repair(path, new, overwrite=True)
    require_all_but(new, arrays, [(one.array, one.first, one.end) for one in record.lost])


def collection(name: str, arrays: dict[str, np.ndarray]) -> Collection:
    return Collection(name, arrays, {"kind": "npz", "name": f"{name}.npz"})


@cases(120)
@given(several(most=3), several(most=3), st.booleans(), BLOCK_BYTES)
def test_adding_keeps_what_was_there(
    folder: Path, before: dict[str, Spec], more: dict[str, Spec], verify: bool, block_bytes: int
) -> None:
    path = folder / "a.vdz"
    old, new = ({f"{number}": spec.make() for number, spec in enumerate(own.values())} for own in (before, more))
    pack_files([collection("old", old)], path, None, overwrite=True, threads=1)
    blocks = [(block.array, block.first, block.items, block.size) for block in blocks_of(path)[0]]
    add(path, [collection("new", new)], None, verify=verify, threads=1)
    assert [(b.array, b.first, b.items, b.size) for b in blocks_of(path)[0]][: len(blocks)] == blocks
    back = unpack(path)
    expected = old | {(f"1/{name}" if name in old else name): array for name, array in new.items()}
    assert list(back) == list(expected) and all(same(back[name], array) for name, array in expected.items())


@st.composite
def alike(draw: st.DrawFn) -> list[Spec]:
    """Arrays that differ in their numbers of items."""
    first = draw(specs(forms=("line", "grey", "last", "any")))
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    seeds = draw(st.integers(0, 1000))
    return [first] + [
        Spec(first.dtype, (n, *first.shape[1:]), "noise", seeds + k, first.memory) for k, n in enumerate(counts)
    ]


@cases(120)
@given(alike(), st.booleans())
def test_items_added_come_after_those_before(folder: Path, drawn: list[Spec], verify: bool) -> None:
    path, (first, *more) = folder / "a.vdz", [spec.make() for spec in drawn]
    pack_files([collection("old", {"x": first, "y": np.arange(3)})], path, None, overwrite=True, threads=1)
    together = collection("new", {str(k): part for k, part in enumerate(more)})
    add(path, [together], None, to="x", verify=verify, threads=1)
    back = unpack(path)
    assert b"".join(part.tobytes() for part in (first, *more)) == back["x"].tobytes()
    assert back["x"].dtype.str == first.dtype.str and same(back["y"], np.arange(3))
    assert back["x"].shape == (len(first) + sum(map(len, more)), *first.shape[1:])


@cases(30)
@given(specs(), shapes(1, ("line", "grey", "any")))
def test_other_items_are_not_added(folder: Path, spec: Spec, shape: tuple[int, ...]) -> None:
    path, array, other = folder / "a.vdz", spec.make(), np.zeros((2, *shape), "<i8")
    pack_files([collection("old", {"x": array})], path, None, overwrite=True, threads=1)
    whole = path.read_bytes()
    if array.dtype == other.dtype and array.shape[1:] == other.shape[1:] and array.ndim:
        return
    with pytest.raises(UsageError):
        add(path, [collection("new", {"x": other})], None, to="x")
    assert path.read_bytes() == whole
