"""Items of an archive one by one: the right ones, from their own blocks alone, in threads, forks and copies."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke, small_blocks
from PIL import Image
from torch.utils.data import DataLoader

import vaedensity as vd
from vaedensity.archive.reader import ArchiveFile
from vaedensity.errors import DamagedArchive, ModelError, UsageError

N = 120


@pytest.fixture
def items(model_archive: Path, model: Path) -> vd.Archive:
    return vd.Archive(model_archive, model=model)


both_engines = pytest.mark.parametrize("engine", ["torch", "numpy"])


@pytest.fixture(scope="module")
def many(digits: np.ndarray, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An archive of several blocks and what is in it."""
    data, path = digits[:600], tmp_path_factory.mktemp("many") / "many.vdz"
    with small_blocks():
        vd.compress({"x": data}, path, model=model, verify=False)
    with ArchiveFile(path) as archive:
        assert len(archive.blocks) >= 3
    return path, data


@both_engines
def test_items_and_slices_are_the_original_ones(
    engine: str, model_archive: Path, model: Path, digits: np.ndarray
) -> None:
    items = vd.Archive(model_archive, model=model, engine=engine)
    assert len(items) == N and items.shape == (N, 8, 8) and items.dtype == np.uint8
    for i in (0, 1, 57, N - 1, -1, -N):
        assert np.array_equal(items[i], digits[:N][i])
    for part in (slice(None), slice(3, 60), slice(100, 10, -7), slice(50, 50), slice(-5, None)):
        assert np.array_equal(items[part], digits[:N][part])
    assert all(np.array_equal(a, b) for a, b in zip(items, digits[:N], strict=True))
    for i in (N, -N - 1):
        with pytest.raises(IndexError):
            items[i]


def test_only_the_blocks_that_are_needed_are_read(
    many: tuple[Path, np.ndarray], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = many
    read: list[int] = []
    payload = ArchiveFile.payload

    def spy(self: ArchiveFile, index: int) -> tuple[bytes, int | None]:
        read.append(index)
        return payload(self, index)

    monkeypatch.setattr(ArchiveFile, "payload", spy)
    with vd.Archive(path, model=model) as items:
        ends = items.ends
        edge = int(ends[1])
        assert np.array_equal(items[edge - 1], data[edge - 1]) and read == [1]
        assert np.array_equal(items[edge - 2], data[edge - 2]) and read == [1]  # still decoded
        assert np.array_equal(items[edge], data[edge]) and read == [1, 2]
        assert np.array_equal(items[edge - 1 : edge + 1], data[edge - 1 : edge + 1]) and read == [1, 2, 1, 2]


def test_damage_in_one_block_leaves_the_others_readable(
    many: tuple[Path, np.ndarray], model: Path, tmp_path: Path
) -> None:
    (path, data), origin = (tmp_path / "broken.vdz", many[1]), many[0]
    with ArchiveFile(origin) as archive:
        place, ends = archive.blocks[1].begin + 30, np.cumsum([b.items for b in archive.blocks])
    broken = bytearray(origin.read_bytes())
    broken[place + 5] ^= 1
    path.write_bytes(broken)
    items = vd.Archive(path, model=model)
    assert np.array_equal(items[0], data[0]) and np.array_equal(items[-1], data[-1])
    with pytest.raises(DamagedArchive, match="block 1 of"):
        items[int(ends[0])]


def test_threads_share_and_copies_reopen(many: tuple[Path, np.ndarray], model: Path) -> None:
    path, data = many
    items = vd.Archive(path, model=model)
    places = np.random.default_rng(0).integers(0, len(data), 12)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: items[int(i)], places))
    assert np.array_equal(found, data[places])
    copy = pickle.loads(pickle.dumps(items))
    assert np.array_equal(copy[5], data[5])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_does_not_disturb_its_parent(many: tuple[Path, np.ndarray], model: Path) -> None:
    path, data = many
    items = vd.Archive(path, model=model)
    assert np.array_equal(items[0], data[0])
    child = os.fork()
    if child == 0:
        os._exit(0 if all(np.array_equal(items[i], data[i]) for i in range(0, len(data), 150)) else 1)
    assert all(np.array_equal(items[i], data[i]) for i in range(len(data) - 1, 0, -200))
    assert os.waitpid(child, 0)[1] == 0


def test_training_reads_straight_from_it(items: vd.Archive, digits: np.ndarray) -> None:
    loader = DataLoader(items, batch_size=32, shuffle=True, num_workers=2)  # type: ignore[arg-type]
    seen = np.concatenate([batch.numpy() for batch in loader])
    key = lambda x: sorted(map(bytes, x.reshape(len(x), -1)))  # noqa: E731
    assert key(seen) == key(digits[:N])


def test_arrays_of_all_kinds(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(12.0).reshape(4, 3),
        "empty": np.zeros((3, 0)),
        "scalar": np.array(7),
        "u": np.array(["x", "yy"]),
    }
    vd.compress(arrays, tmp_path / "a.vdz")
    assert np.array_equal(vd.Archive(tmp_path / "a.vdz", "a")[2], arrays["a"][2])
    assert vd.Archive(tmp_path / "a.vdz", "empty")[1].shape == (0,)
    assert str(vd.Archive(tmp_path / "a.vdz", "u")[1]) == "yy"
    for name, expected in ((None, "which array"), ("nothing", "no array"), ("scalar", "no array")):
        with pytest.raises(UsageError, match=expected):
            vd.Archive(tmp_path / "a.vdz", name)


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">U3", ">M8[s]", "|S4"])
def test_items_keep_their_byte_order(dtype: str, tmp_path: Path) -> None:
    """Which numpy's own ways to put items together change."""
    data = np.arange(20).astype(dtype).reshape(5, 4)
    np.save(tmp_path / "x.npy", data)
    assert invoke("compress", tmp_path / "x.npy", "-o", tmp_path / "a.vdz").exit_code == 0
    with vd.Archive(tmp_path / "a.vdz") as items:
        for found, expected in ((items[3], data[3]), (items[4:0:-2], data[4:0:-2]), (items[1:1], data[1:1])):
            assert found.dtype.str == dtype and np.array_equal(found, expected)
    assert invoke("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out", "--item", 4, "--item", 0).exit_code == 0
    back = np.load(tmp_path / "out" / "x.npy")
    assert back.dtype.str == dtype and np.array_equal(back, data[[4, 0]])


def test_another_model_is_rejected(model_archive: Path, other_model: Path) -> None:
    with pytest.raises(ModelError):
        vd.Archive(model_archive, model=other_model)[0]


@both_engines
def test_the_command_restores_what_was_asked_for(
    engine: str, model_archive: Path, model: Path, digits: np.ndarray, tmp_path: Path
) -> None:
    asked = ("--item", 7, "--range", "3:5", "--item", "0", "--range", ":1")
    done = invoke("decompress", model_archive, "-o", tmp_path, "-m", model, "--engine", engine, *asked)
    assert done.exit_code == 0, done.output
    assert np.array_equal(np.load(tmp_path / "digits.npy"), digits[[7, 0, 3, 4]])


def test_images_of_a_folder_by_name(digits: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    for i, name in enumerate(["a.png", "b/c.png", "7.png"]):
        Image.fromarray(digits[i]).save(tmp_path / "in" / name)
    assert invoke("compress", tmp_path / "in", "-o", tmp_path / "f.vdz").exit_code == 0
    assert invoke("decompress", tmp_path / "f.vdz", "-o", tmp_path / "out", "--item", "b/c.png").exit_code == 0
    files = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert files == ["in/b/c.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/in/b/c.png")), digits[1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--item", "120"), "items 0 to 119"),
        (("--item", "-1"), "items 0 to 119"),
        (("--item", "x.png"), "items 0 to 119"),
        (("--item", "9" * 5000), "items 0 to 119"),
        (("--range", "0:" + "9" * 5000), "FIRST:END"),
        (("--range", "5"), "FIRST:END"),
        (("--range", "a:b"), "FIRST:END"),
        (("--range", "5:5"), "0:120"),
        (("--range", "0:121"), "0:120"),
        (("--item", "0", "--threads", "1"), "leave out"),
    ],
)
def test_rejections(options: tuple[str, ...], expected: str, model_archive: Path, model: Path, tmp_path: Path) -> None:
    result = invoke("decompress", model_archive, "-m", model, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2 and expected in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_items_of_several_arrays_are_rejected(tmp_path: Path) -> None:
    vd.compress({"a": np.arange(3), "b": np.arange(3)}, tmp_path / "a.vdz")
    result = invoke("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out", "--item", "0")
    assert result.exit_code == 2 and "npy a.npy, npy b.npy" in result.stderr and not (tmp_path / "out").exists()
