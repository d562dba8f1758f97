"""Whatever a command writes: links, permissions and what is no file stay as they are."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke
from rejections import COMMAND, FAILURE, NO_TRAINING, USAGE, Done, Refused, saved

from vaedensity.archive.reader import ArchiveFile

pytestmark = [
    pytest.mark.usefixtures("no_released"),
    pytest.mark.skipif(os.name == "nt", reason="permissions and links as of POSIX"),
]


@pytest.fixture
def lines(model: Path, few: Path, tmp_path: Path) -> dict[str, Callable[[Path], tuple[object, ...]]]:
    """Commands that replace the file they are given."""
    damaged = tmp_path / "damaged.vdz"

    def repair(out: Path) -> tuple[object, ...]:
        return "repair", damaged, "-o", out, "-f"

    return {
        "compress.vdz": lambda out: ("compress", few, "-o", out, "-f"),
        "add.vdz": lambda out: ("add", out, few),
        "repair.vdz": repair,
        "score.csv": lambda out: ("score", model, few, "-k", "2", "-o", out, "-f"),
        "sample.npy": lambda out: ("sample", model, "-n", "1", "-o", out, "-f"),
        "reconstruct.png": lambda out: ("reconstruct", model, few, "-o", out, "-f"),
        "fit.safetensors": lambda out: ("fit", few, "-o", out, *NO_TRAINING, "-f"),
    }


WRITERS = ["compress.vdz", "add.vdz", "score.csv", "sample.npy", "reconstruct.png", "fit.safetensors"]


@pytest.mark.parametrize("name", WRITERS)
def test_permissions_and_links_stay(name: str, lines: dict, few: Path, tmp_path: Path, done: Done) -> None:
    (tmp_path / "disk").mkdir()
    place = tmp_path / "disk" / name
    if name == "add.vdz":
        done("compress", saved(tmp_path / "old.npy", np.arange(7)), "-o", place)
    else:
        place.write_bytes(b"old")
    place.chmod(0o600)
    before = place.read_bytes()
    (tmp_path / f"link-{name}").symlink_to(f"disk/{name}")
    record = done(*lines[name](tmp_path / f"link-{name}"))
    assert os.readlink(tmp_path / f"link-{name}") == f"disk/{name}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600 and place.read_bytes() != before and record
    assert [p.name for p in (tmp_path / "disk").iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_standard_output_by_another_name_is_rejected(
    name: str, lines: dict, tmp_path: Path, refused: Refused, done: Done
) -> None:
    suffix = name.rpartition(".")[2]
    with open(tmp_path / "got", "wb") as f:
        link = tmp_path / f"stdout.{suffix}"
        link.symlink_to(f"/proc/self/fd/{f.fileno()}")
        if name == "add.vdz":
            done("compress", saved(tmp_path / "old.npy", np.arange(7)), "-o", tmp_path / "x.vdz")
            os.truncate(f.fileno(), os.pwrite(f.fileno(), (tmp_path / "x.vdz").read_bytes(), 0))
        line = refused(USAGE, *lines[name](link))
    assert "is an open file, such as standard output" in line
    assert ("pass -c" in line) == (name == "compress.vdz")


def test_standard_output_of_a_shell(tmp_path: Path, few: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "stdout").symlink_to("/proc/self/fd/1")
    with open(tmp_path / "got", "wb") as f:
        run = subprocess.run(
            [*COMMAND, "compress", few, "-f", "-o", tmp_path / "dev" / "stdout"], stdout=f, stderr=subprocess.PIPE
        )
    assert run.returncode == USAGE and b"pass -c to write there" in run.stderr
    assert os.readlink(tmp_path / "dev" / "stdout") == "/proc/self/fd/1" and (tmp_path / "got").read_bytes() == b""


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_restored_files_take_the_place_of_old_ones(
    engine: str, few: Path, tmp_path: Path, done: Done, digits: np.ndarray
) -> None:
    (tmp_path / "f").mkdir(0o755)
    (tmp_path / "f" / "x").write_bytes(b"new")
    done("compress", few, tmp_path / "f", "-o", tmp_path / "a.vdz")
    out, disk = tmp_path / "out", tmp_path / "disk"
    for folder in (out, disk, disk / "f"):
        folder.mkdir()
    (disk / "few.npy").write_bytes(b"old")
    (disk / "few.npy").chmod(0o640)
    (disk / "f" / "old").touch()
    for name in ("few.npy", "f"):
        (out / name).symlink_to(disk / name)
    done("decompress", tmp_path / "a.vdz", "-o", out, "-f", "--engine", engine)
    assert [os.readlink(out / name) for name in ("few.npy", "f")] == [str(disk / name) for name in ("few.npy", "f")]
    assert np.array_equal(np.load(disk / "few.npy"), digits[:12])
    assert stat.S_IMODE((disk / "few.npy").stat().st_mode) == 0o640
    assert sorted(p.name for p in disk.rglob("*")) == ["f", "few.npy", "x"]
    assert sorted(p.name for p in out.iterdir()) == ["f", "few.npy"]


def test_repair_keeps_permissions(model_archive: Path, lines: dict, tmp_path: Path) -> None:
    with ArchiveFile(model_archive) as archive:
        at = archive.blocks[0].begin + 20
    data = bytearray(model_archive.read_bytes())
    data[at] ^= 1
    (tmp_path / "damaged.vdz").write_bytes(data)
    (tmp_path / "repair.vdz").write_bytes(b"old")
    (tmp_path / "repair.vdz").chmod(0o600)
    subprocess.run([*COMMAND, "-q", *map(str, lines["repair.vdz"](tmp_path / "repair.vdz"))], capture_output=True)
    assert stat.S_IMODE((tmp_path / "repair.vdz").stat().st_mode) == 0o600
    assert (tmp_path / "repair.vdz").read_bytes() != b"old"


@pytest.mark.parametrize("beside", ["metrics.jsonl", "state"])
def test_what_fit_writes_beside_its_model(beside: str, few: Path, tmp_path: Path, refused: Refused) -> None:
    other = tmp_path / f"m.safetensors.{beside}"
    other.write_bytes(b"mine")
    refused(USAGE, "fit", few, "-o", tmp_path / "m.safetensors", *NO_TRAINING)
    other.unlink()
    outside = tmp_path.parent / f"{tmp_path.name}-pipe"  # the fixture would read it
    os.mkfifo(outside)
    other.symlink_to(outside)
    assert "device or pipe" in refused(USAGE, "fit", few, "-o", tmp_path / "m.safetensors", *NO_TRAINING, "-f")


# What is written where it is read


@pytest.mark.parametrize("spelling", ["f/out.vdz", "f/../f/out.vdz", "link/out.vdz", "other.vdz", "f/sub/out.vdz"])
def test_an_archive_does_not_hold_itself(
    spelling: str, tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f", "sub").mkdir(parents=True)
    Path("f", "data").write_bytes(os.urandom(9000))
    Path("link").symlink_to("f")
    Path("other.vdz").symlink_to("f/out.vdz")
    out = Path(os.path.realpath(spelling))
    left = out.with_name(f".{out.name}.17.0123456789abcdef.partial")  # of a killed run
    sizes, said = set(), []
    for _ in range(3):
        left.write_bytes(bytes(100))
        result = invoke("compress", "f", "-f", "-o", spelling)
        assert result.exit_code == 0, result.output
        sizes.add(out.stat().st_size)
        said.append(result.stderr.count("is written by this command: left out of what is read"))
        assert not left.exists()
    assert max(sizes) - min(sizes) < 100 and said == [1, 2, 2]  # times of folders differ
    result = invoke("add", spelling, "link")
    assert result.exit_code == 0 and f"{out.name} is written by this command" in result.stderr
    out = out.rename(tmp_path / "elsewhere.vdz")
    assert len(done("decompress", out, "-o", "restored")["restored"]) == 2
    assert sorted(p.name for p in Path("restored").rglob("*")) == ["data", "data", "f", "link", "sub", "sub"]


def test_nor_where_a_shell_sends_it_there(tmp_path: Path, done: Done) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "data").write_bytes(b"x")
    with open(tmp_path / "f" / "out.vdz", "ab") as f:
        run = subprocess.run([*COMMAND, "compress", tmp_path / "f", "-c"], stdout=f, stderr=subprocess.PIPE)
    assert run.returncode == 0 and b"out.vdz is written by this command" in run.stderr
    done("decompress", tmp_path / "f" / "out.vdz", "-o", tmp_path / "restored")
    assert os.listdir(tmp_path / "restored" / "f") == ["data"]


@pytest.mark.parametrize("command", ["compress", "score", "fit", "sample"])
def test_names_that_are_too_long_are_told_before_the_work(
    command: str, lines: dict, few: Path, tmp_path: Path, refused: Refused
) -> None:
    suffix = {"compress": ".vdz", "score": ".csv", "fit": ".safetensors", "sample": ".npy"}[command]
    line = refused(FAILURE, *lines[f"{command}{suffix}"](tmp_path / f"{'n' * 256}{suffix}"))
    assert "File name too long" in line
    if command == "fit":
        assert "File name too long" in refused(
            FAILURE, *lines["fit.safetensors"](tmp_path / f"{'n' * 240}.safetensors")
        )


def test_hard_links_of_an_archive_are_files_as_others(
    tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").mkdir()
    Path("f", "data").write_bytes(b"x")
    done("compress", "f", "-o", "f/out.vdz")
    os.link("f/out.vdz", "f/kept.vdz")
    before = Path("f/kept.vdz").read_bytes()
    done("compress", "f", "-f", "-o", "f/out.vdz")
    done("decompress", "f/out.vdz", "-o", "restored")
    assert Path("restored/f/kept.vdz").read_bytes() == before == Path("f/kept.vdz").read_bytes()
    assert sorted(os.listdir("restored/f")) == ["data", "kept.vdz"]


@pytest.mark.parametrize("command", ["compress", "add", "fit"])
def test_what_is_read_is_not_replaced(command: str, few: Path, tmp_path: Path, refused: Refused, done: Done) -> None:
    (tmp_path / "link.npy").symlink_to("few.npy")
    done("compress", few, "-o", tmp_path / "a.vdz")
    line = {
        "compress": ("compress", few, "-f", "-o", tmp_path / "link.npy"),
        "add": ("add", tmp_path / "a.vdz", tmp_path / "." / "a.vdz"),
        "fit": ("fit", tmp_path / "link.npy", "-f", "-o", few, *NO_TRAINING),
    }[command]
    assert "is read and written; choose another name" in refused(USAGE, *line)


def test_models_and_rows_are_not_among_the_data(tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder of bytes, twice: what the first run wrote is no data of the second."""
    monkeypatch.chdir(tmp_path)
    Path("f").mkdir()
    Path("f", "data").write_bytes(bytes(range(256)) * 40)
    fit = ("fit", "f", "-o", "f/m.safetensors", "-f", "--kind", "sequence", *NO_TRAINING)
    first, second = done(*fit), done(*fit)
    assert first["epochs"] == second["epochs"] and Path("f/m.safetensors.metrics.jsonl").exists()
    for name in ("f/m.safetensors", "f/m.safetensors.metrics.jsonl"):
        os.rename(name, Path(name).name)
    Path("f/rows.csv.partial").touch()
    score = ("score", "m.safetensors", "f", "-k", "1", "-f", "-o", "f/rows.csv")
    assert done(*score)["n"] == done(*score)["n"]


# Times


YEARS = {
    "1677": -9_240_000_000,
    "1901": -2_000_000_000,
    "2262": 9_300_000_000,
    "2446": 15_000_000_000,
    "9999": 253_402_300_799,
}


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_times_of_any_year(engine: str, tmp_path: Path, done: Done) -> None:
    """Kept as the file system has them."""
    home = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path  # which keeps them all
    with tempfile.TemporaryDirectory(dir=home) as name:
        folder = Path(name, "t")
        folder.mkdir()
        for year, seconds in YEARS.items():
            (folder / year).touch()
            os.utime(folder / year, ns=(0, seconds * 10**9 + 123_456_789))
        (folder / "link").symlink_to("2446")
        os.utime(folder / "link", ns=(0, 10**20), follow_symlinks=False)
        os.utime(folder, ns=(0, 12 * 10**18))
        before = {p.name: os.lstat(p).st_mtime_ns for p in (folder, *folder.iterdir())}
        done("compress", folder, "-o", Path(name, "t.vdz"))
        record = done("decompress", Path(name, "t.vdz"), "-o", Path(name, "out"), "--engine", engine)
        after = {p.name: os.lstat(p).st_mtime_ns for p in (Path(name, "out", "t"), *Path(name, "out", "t").iterdir())}
        assert after == before and record["remarks"] == []


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_what_a_file_system_cannot_hold_is_said(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t" / "d").mkdir(parents=True)
    (tmp_path / "t" / "f").touch()
    invoke("compress", tmp_path / "t", "-o", tmp_path / "t.vdz")

    def forget(*arguments: object, **options: object) -> None:
        raise OverflowError

    monkeypatch.setattr(os, "utime", forget)
    result = invoke("decompress", tmp_path / "t.vdz", "-o", tmp_path / "out", "--engine", engine)
    assert result.exit_code == 0
    assert "t: times of change of 3 entries are others than in the archive" in result.stderr
    assert "the first is f" in result.stderr
    assert (tmp_path / "out" / "t" / "f").exists()


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_no_file_replaces_a_folder(engine: str, few: Path, tmp_path: Path, done: Done, refused: Refused) -> None:
    done("compress", few, "-o", tmp_path / "a.vdz")
    (tmp_path / "out" / "few.npy" / "precious").mkdir(parents=True)
    line = refused(USAGE, "decompress", tmp_path / "a.vdz", "-o", tmp_path / "out", "-f", "--engine", engine)
    assert "few.npy is a folder, which no file replaces" in line
