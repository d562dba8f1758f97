"""Archives: round trips, damage, never growing, goldens."""

import errno
import io
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import blocks_of, pack, same, unpack
from profiles import TIMES

from vaedensity.api.choose import open_model
from vaedensity.archive.chains import evenly
from vaedensity.archive.container import Writer
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.engine import ENGINES, engine
from vaedensity.archive.model_blocks import CHAIN_BYTES, OVERHEAD_SHARE, BlockCoder, spans
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.writer import write_archive
from vaedensity.coding.ans import Stacks
from vaedensity.coding.engine import CodingModel
from vaedensity.coding.plan import LONGEST_CHAIN
from vaedensity.data import disk_array
from vaedensity.data.disk_array import DiskArray, DiskArrays
from vaedensity.data.named import load_digits
from vaedensity.errors import DamagedArchive, ModelError, UsageError, VaedensityError

DIGITS = load_digits()[1500:]
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def model() -> CodingModel:
    return open_model("digits")


def packed(path: Path, arrays: dict[str, np.ndarray], model: CodingModel | None = None, **options: Any) -> Path:
    pack(path, arrays, model, **options)
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_digits_round_trip(tmp_path: Path, model: CodingModel, count: int) -> None:
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:count]}, model)
    assert same(unpack(path, model)["x"], DIGITS[:count])


def test_many_arrays_and_types(tmp_path: Path, model: CodingModel) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "images": DIGITS[:20],
        "nhwc": DIGITS[:5, :, :, None],
        "nchw": DIGITS[:5, None],
        "labels": rng.integers(0, 10, 20),
        "floats": rng.normal(size=(3, 4)).astype(">f4"),
        "scalar": np.array(7, np.int16),
        "empty": np.zeros((0, 8, 8), np.uint8),
        "hollow": np.zeros((5, 0), np.float64),
        "names": np.array(["a", "bcd"]),
        "fortran": np.asfortranarray(rng.integers(0, 255, (6, 7)).astype(np.uint8)),
        "dates": np.array(["2026-01-02"], "M8[D]"),
    }
    back = unpack(packed(tmp_path / "a.vdz", arrays, model), model)
    assert list(back) == list(arrays)
    assert all(same(back[name], a) for name, a in arrays.items())


def test_items_outside_the_model_fall_back(tmp_path: Path, model: CodingModel) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (100, 8, 8), np.uint8)
    for x in (
        noise,
        np.full((100, 8, 8), 200, np.uint8),
        np.random.default_rng(2).integers(0, 17, (64, 8, 8), np.uint8),
    ):
        path = packed(tmp_path / "a.vdz", {"x": x}, model)
        assert same(unpack(path, model)["x"], x)
        assert path.stat().st_size <= 1.001 * x.nbytes + 1024


def test_noise_never_grows(tmp_path: Path) -> None:
    for size in (0, 1, 1000, 300_000):
        x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        path = packed(tmp_path / f"{size}.vdz", {"x": x}, None)
        assert path.stat().st_size <= 1.001 * size + 1024
        assert same(unpack(path, None)["x"], x)


def test_objects_are_never_stored() -> None:
    with pytest.raises(UsageError, match="Python objects"):
        write_archive(io.BytesIO(), {"x": np.array([{}], object)}, [], None)


def require_rejected(path: Path, data: bytes, model: CodingModel) -> None:
    path.write_bytes(data)
    with pytest.raises(DamagedArchive):
        unpack(path, model)


def test_every_truncation_and_every_flip_is_rejected(tmp_path: Path, model: CodingModel) -> None:
    """One bit of each byte, or all of it; at night more of them (scripts/nightly/flips.py: every bit)."""
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:12], "y": np.arange(12)}, model)
    whole = path.read_bytes()
    for length in range(len(whole)):
        require_rejected(path, whole[:length], model)
    masks = (0x01, 0x10, 0x80, 0xFF)
    for at in range(len(whole)):
        for mask in masks if TIMES > 1 else (masks[at % 4],):
            require_rejected(path, whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :], model)
    require_rejected(path, whole + b"x", model)


def test_chains_are_as_long_as_their_cost_demands(model: CodingModel) -> None:
    assert len(spans(model, 10, 20.0)) == 1
    cheap, dear = spans(model, 100_000, 20.0), spans(model, 100_000, 100.0)
    assert 1 < len(dear) < len(cheap)
    assert 100 * len(dear) <= OVERHEAD_SHARE * 100_000 * model.bits_per_dim * 64 / 8
    assert cheap[0][0] == 0 and cheap[-1][1] == 100_000 and all(a[1] == b[0] for a, b in pairwise(cheap))
    assert all(end - begin <= LONGEST_CHAIN for begin, end in spans(model, 100_000, 1e9))
    assert CHAIN_BYTES < BlockCoder(model, "NHW", DIGITS, verify=False).chain_bytes(DIGITS) < 3 * CHAIN_BYTES


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_items_go_to_an_array_on_disk_from_workers_or_through_them(
    tmp_path: Path, model: CodingModel, monkeypatch: pytest.MonkeyPatch, threads: int, shared: bool
) -> None:
    monkeypatch.setattr(disk_array, "IN_MEMORY", 0)
    monkeypatch.setattr(DiskArray, "shared", shared)
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:60], "y": DIGITS[:40, :, :, None], "z": np.arange(300)}, model)
    with ArchiveFile(path) as archive, DiskArrays(tmp_path / "disk") as disk:
        back = read_arrays(archive, model, allocate=disk, threads=threads, lockstep=1)
        assert (
            isinstance(back["x"], DiskArray) and same(back["x"][:], DIGITS[:60]) and same(back["z"][:], np.arange(300))
        )
        assert same(back["y"][3:9], DIGITS[3:9, :, :, None])
        assert same(np.load(back["x"].path), DIGITS[:60])


@pytest.mark.skipif(not DiskArray.shared, reason="workers cannot write to the file here")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_disk_that_fills_while_workers_write_is_one_line(
    tmp_path: Path, model: CodingModel, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk_array, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "pwrite", full)
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:20]}, model)
    full_disk = pytest.raises(VaedensityError, match=r"^cannot write .*0\.npy: No space left")
    with ArchiveFile(path) as archive, DiskArrays(tmp_path / "disk") as disk, full_disk:
        read_arrays(archive, model, allocate=disk, threads=threads, lockstep=1)


def test_the_right_model_is_asked_for(tmp_path: Path, model: CodingModel) -> None:
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:5]}, model)
    with pytest.raises(ModelError, match="needs the model digits"):
        unpack(path, None)
    other = CodingModel(model.integers, "0" * 64, "other", model.values, model.bits_per_dim)
    with pytest.raises(ModelError, match="made with model digits"):
        unpack(path, other)


def test_threads_and_lockstep_do_not_matter(
    tmp_path: Path, model: CodingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BlockCoder, "spans", lambda self, array: [(k, k + 10) for k in range(0, len(array), 10)])
    sizes = set()
    for threads in (1, 2):
        with open(tmp_path / "a.vdz", "wb") as f:
            write_archive(f, {"x": DIGITS[:100]}, [], model, threads=threads, verify=threads == 2)
        sizes.add((tmp_path / "a.vdz").read_bytes())
    assert len(sizes) == 1
    for lockstep in (1, 3, 100):
        with ArchiveFile(tmp_path / "a.vdz") as archive:
            assert len(archive.blocks) == 10
            assert same(read_arrays(archive, model, lockstep=lockstep, threads=2)["x"], DIGITS[:100])


def test_groups_are_alike() -> None:
    for count in (1, 7, 48, 49, 97, 500):
        for multiple in (1, 2, 3):
            groups = evenly(range(count), 48, multiple)
            assert [x for group in groups for x in group] == list(range(count))
            sizes = [len(group) for group in groups]
            assert min(sizes) >= 1 and max(sizes) <= 48 and max(sizes) - min(sizes) <= 1
            assert len(sizes) == 1 or len(sizes) % multiple == 0
    assert evenly([], 48) == []


def test_expectation_and_overhead_add_up(tmp_path: Path, model: CodingModel) -> None:
    with open(tmp_path / "a.vdz", "wb") as f:
        tally = write_archive(f, {"x": DIGITS}, [], model)
        size = f.tell()
    initial = (tally.model_bits - tally.model_bits_expected) / 8
    ends = tally.model_payload_bytes - tally.model_bits / 8
    total = tally.model_bits_expected / 8 + initial + ends + tally.overhead["header"] + tally.overhead["index"]
    assert abs(total - size) < 1
    assert 0 <= ends < 40 and 0 <= initial < 100


@pytest.mark.parametrize("count", [1, 3, 40])
def test_round_trip_with_particles(tmp_path: Path, model: CodingModel, count: int) -> None:
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:count], "noise": np.arange(9)}, model, particles=3)
    back = unpack(path, model)
    assert same(back["x"], DIGITS[:count]) and same(back["noise"], np.arange(9))


def test_particles_make_smaller_files_whatever_the_threads(tmp_path: Path, model: CodingModel) -> None:
    data = DIGITS
    one = packed(tmp_path / "one.vdz", {"x": data}, model).stat().st_size
    many = set()
    for threads in (1, 2):
        with open(tmp_path / "a.vdz", "wb") as f:
            tally = write_archive(f, {"x": data}, [], model, particles=4, threads=threads, verify=False)
        many.add((tmp_path / "a.vdz").read_bytes())
    assert len(many) == 1
    size = len(many.pop())
    assert size < one
    initial, ends = (tally.model_bits - tally.model_bits_expected) / 8, tally.model_payload_bytes - tally.model_bits / 8
    assert abs(tally.model_bits_expected / 8 + initial + ends + sum(tally.overhead.values()) - size) < 1
    assert 0 <= ends < 40 and -20 < initial < 150  # both its terms are single draws
    with ArchiveFile(tmp_path / "a.vdz") as archive:
        assert archive.particles == 4 and same(read_arrays(archive, model)["x"], data)


def test_damaged_particles_are_rejected(tmp_path: Path, model: CodingModel) -> None:
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:12]}, model, particles=2)
    whole, (block,) = path.read_bytes(), blocks_of(path)[0]
    for at in range(block.begin, block.begin + block.size):
        require_rejected(path, whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :], model)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.vdz")), ids=lambda p: p.stem)
def test_goldens_decode_for_ever_with_every_engine(path: Path, name: str) -> None:
    expected = np.load(path.with_suffix(".npz"), allow_pickle=False)
    back = unpack(path, engine(name).load_decoder(path.with_suffix(".safetensors")))
    assert sorted(back) == sorted(expected.files)
    assert all(same(back[name], expected[name]) for name in expected.files)


def test_there_are_goldens() -> None:
    assert len(list(GOLDEN.glob("*.vdz"))) >= 12


def test_lack_of_memory_is_not_damage(tmp_path: Path, model: CodingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.vdz", {"x": DIGITS[:4]}, model)

    def starve(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("vaedensity.coding.engine.decode_chains", starve)
    with pytest.raises(VaedensityError, match="not enough memory") as caught:
        unpack(path, model)
    assert not isinstance(caught.value, DamagedArchive)


@pytest.mark.parametrize("particles", [1, 2])
def test_a_block_longer_than_its_items_can_be(tmp_path: Path, model: CodingModel, particles: int) -> None:
    """Memory for it would be many times its size."""
    good = packed(tmp_path / "a.vdz", {"x": DIGITS[:2]}, model, particles=particles)
    with ArchiveFile(good) as archive:
        block, (payload, checksum), record, digests = (
            archive.blocks[0],
            archive.payload(0),
            archive.record,
            archive.digests,
        )
    for extra, says in ((9, r"left over|alphabet|place|digit"), (9000, "longer than its items")):
        with open(tmp_path / "b.vdz", "wb") as f:
            writer = Writer(f, record)
            writer.add(0, 0, block.items, block.codec, payload + b"\7\0\0\0" * extra, checksum)
            writer.finish(digests)
        with pytest.raises(DamagedArchive, match=says):
            unpack(tmp_path / "b.vdz", model)


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", ["digits", "mnist-fast", "cifar10"])
def test_engines_write_the_same_archive(
    tmp_path: Path, name: str, particles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rng = open_model(name), np.random.default_rng(0)
    x = DIGITS[:40] if name == "digits" else np.abs(rng.normal(0, 40, (3, *model.integers.config.item_shape)))
    x = np.minimum(x, 255).astype(np.uint8)
    whole = packed(tmp_path / "a.vdz", {"x": x}, model, particles=particles).read_bytes()
    for module in ("chains", "quantise", "engine"):
        monkeypatch.setattr(f"vaedensity.coding.{module}.fastest_stacks", lambda: Stacks)
    assert packed(tmp_path / "b.vdz", {"x": x}, model, particles=particles).read_bytes() == whole
    assert same(unpack(tmp_path / "a.vdz", model)["x"], x)
