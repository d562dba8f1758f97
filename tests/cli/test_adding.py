"""vaedensity add: what was there stays, what is new comes beside it or behind it, or nothing changes."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke
from rejections import COMMAND, MODEL, USAGE, Done, Refused, saved

import vaedensity as vd
from vaedensity.archive.reader import ArchiveFile

pytestmark = pytest.mark.usefixtures("no_released")


@pytest.fixture
def archive(model_archive: Path, tmp_path: Path) -> Path:
    path = tmp_path / "a.vdz"
    path.write_bytes(model_archive.read_bytes())
    return path


def test_new_collections_lie_beside_the_old_ones(
    archive: Path, model: Path, digits: np.ndarray, tmp_path: Path, done: Done
) -> None:
    (tmp_path / "f" / "sub").mkdir(parents=True)
    (tmp_path / "f" / "sub" / "x.txt").write_text("x")
    np.savez(tmp_path / "more.npz", digits=digits[200:230], other=np.arange(40.0))
    with ArchiveFile(archive) as before:
        payloads = [before.payload(k) for k in range(len(before.blocks))]
    record = done("add", archive, tmp_path / "more.npz", tmp_path / "f", "-m", model)
    assert record["model_items"] == 30 and record["bytes_out"] == archive.stat().st_size
    with ArchiveFile(archive) as after:
        assert [after.payload(k) for k in range(len(payloads))] == payloads
        assert [array.name for array in after.arrays] == ["digits", "1/digits", "other", "bytes"]
    done("decompress", archive, "-o", tmp_path / "out", "-m", model)
    assert np.array_equal(np.load(tmp_path / "out" / "digits.npy"), digits[:120])
    with np.load(tmp_path / "out" / "more.npz") as back:
        assert np.array_equal(back["digits"], digits[200:230]) and np.array_equal(back["other"], np.arange(40.0))
    assert (tmp_path / "out" / "f" / "sub" / "x.txt").read_text() == "x"


def test_items_go_behind_those_of_an_array(
    archive: Path, model: Path, digits: np.ndarray, tmp_path: Path, done: Done
) -> None:
    for first, end in ((120, 150), (150, 151)):
        done("add", archive, saved(tmp_path / "more.npy", digits[first:end]), "--to", "digits", "-m", model)
    assert np.array_equal(vd.decompress(archive, model=model)["digits"], digits[:151])
    items = vd.Archive(archive, model=model)
    assert len(items) == 151 and np.array_equal(items[130], digits[130]) and np.array_equal(items[150], digits[150])


def test_an_archive_without_a_model_gets_one(digits: np.ndarray, model: Path, tmp_path: Path, done: Done) -> None:
    done("compress", saved(tmp_path / "n.npy", np.arange(9)), "-o", tmp_path / "a.vdz")
    record = done("add", tmp_path / "a.vdz", saved(tmp_path / "d.npy", digits[:90]), "-m", model)
    assert record["model_items"] == 90
    assert done("test", tmp_path / "a.vdz", "-m", model)["archives"][0]["items"] == 99


def test_a_model_inside_is_used_and_kept(digits: np.ndarray, model: Path, tmp_path: Path, done: Done) -> None:
    path = tmp_path / "a.vdz"
    done("compress", saved(tmp_path / "d.npy", digits[:90]), "-o", path, "-m", model, "--embed-model")
    size = path.stat().st_size
    assert done("add", path, saved(tmp_path / "e.npy", digits[90:200]))["model_items"] == 110
    assert path.stat().st_size < size + 4000  # the model is there once
    assert done("list", path)["model_inside"] and [a["name"] for a in done("list", path)["arrays"]] == ["d", "e"]
    back = vd.decompress(path)
    assert set(back) == {"d", "e"} and np.array_equal(back["e"], digits[90:200])


def test_what_is_rejected(
    archive: Path, model: Path, other_model: Path, digits: np.ndarray, tmp_path: Path, refused: Refused
) -> None:
    more, floats = saved(tmp_path / "digits.npy", digits[:3]), saved(tmp_path / "floats.npy", np.zeros((3, 8, 8)))
    assert "both be restored as digits.npy" in refused(USAGE, "add", archive, more, "-m", model)
    assert "expected uint8['N', 8, 8]" in refused(USAGE, "add", archive, floats, "--to", "digits", "-m", model)
    assert "no array 'x'" in refused(USAGE, "add", archive, more, "--to", "x", "-m", model)
    assert "made with model" in refused(MODEL, "add", archive, floats, "-m", other_model)
    assert "put it beside the archive, or pass -m FILE" in refused(MODEL, "add", archive, floats)
    refused(USAGE, "add", tmp_path / "none.vdz", floats)
    (tmp_path / "text.txt").write_text("no array")
    assert ".npy or .npz" in refused(USAGE, "add", archive, tmp_path / "text.txt", "--to", "digits", "-m", model)


@pytest.mark.skipif(os.name == "nt", reason="no such locks")
def test_two_at_once_do_not_lose_items(archive: Path, tmp_path: Path, refused: Refused) -> None:
    import fcntl

    more = saved(tmp_path / "more.npy", np.arange(4))
    with open(archive, "rb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert "another process is adding" in refused(USAGE, "add", archive, more)


def test_many_writers_each_add_or_are_rejected(tmp_path: Path, done: Done, model: Path) -> None:
    path = tmp_path / "a.vdz"
    done("compress", saved(tmp_path / "n.npy", np.arange(9)), "-o", path)
    inputs = [saved(tmp_path / f"x{k}.npy", np.full(5, k)) for k in range(4)]
    running = [
        subprocess.Popen(
            [*COMMAND, "add", str(path), str(x)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for x in inputs
    ]
    ends = [process.communicate(timeout=300) for process in running]
    codes = [process.returncode for process in running]
    assert set(codes) <= {0, USAGE} and 0 in codes, ends
    assert all(("another process" in stderr) == (code == USAGE) for (_, stderr), code in zip(ends, codes))
    back = vd.decompress(path)
    assert set(back) == {"n", *(f"x{k}" for k, code in enumerate(codes) if code == 0)}
    assert not list(tmp_path.glob(".*"))


def test_nothing_changes_where_it_fails(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    before = archive.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vaedensity.archive.container.Writer.finish", fail)
    result = invoke("add", archive, saved(tmp_path / "more.npy", np.arange(4)), "-m", model)
    assert result.exit_code == 1 and "No space left" in result.stderr
    assert archive.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["a.vdz", "more.npy"]
