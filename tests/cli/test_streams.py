"""Pipes and limits: - and -c, --max-output and --memory."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import invoke
from rejections import COMMAND, USAGE, Done, Refused, saved

from vaedensity.cli.main import main

pytestmark = pytest.mark.usefixtures("no_released")
TEXT = b"what goes in comes out\n" * 400


def fed(data: bytes, *arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], input=data)


@pytest.mark.parametrize("data", [TEXT, b"", b"\xff\x00" * 70000])
def test_through_pipes_and_back(data: bytes) -> None:
    packed = fed(data, "compress", "-", "-c")
    assert packed.exit_code == 0 and packed.stdout_bytes[:4] == b"\x89vdz"
    back = fed(packed.stdout_bytes, "decompress", "-", "-c")
    assert (back.exit_code, back.stdout_bytes) == (0, data)


def test_dash_as_output_and_files_among_streams(tmp_path: Path, done: Done) -> None:
    array = saved(tmp_path / "n.npy", np.arange(90))
    packed = fed(TEXT, "compress", "-", array, "-o", "-")
    assert packed.exit_code == 0 and "->" in packed.stderr
    (tmp_path / "a.vdz").write_bytes(packed.stdout_bytes)
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "stdin").read_bytes() == TEXT
    assert (tmp_path / "out" / "n.npy").read_bytes() == array.read_bytes()
    assert fed(packed.stdout_bytes, "test", "-").exit_code == 0


def test_what_pipes_reject(tmp_path: Path, refused: Refused, done: Done) -> None:
    array, archive = saved(tmp_path / "n.npy", np.arange(90)), tmp_path / "a.vdz"
    done("compress", array, "-o", archive)
    assert "no output" in refused(USAGE, "compress", array)
    assert "leave out -o" in refused(USAGE, "compress", array, "-c", "-o", tmp_path / "b.vdz")
    assert "leave out --json" in refused(USAGE, "compress", array, "-c", "--json")
    assert "leave out -o" in refused(USAGE, "decompress", archive, "-c", "-o", tmp_path / "out")
    assert "is given twice" in refused(USAGE, "compress", "-", "-", "-o", tmp_path / "b.vdz")
    two = tmp_path / "two.vdz"
    done("compress", array, saved(tmp_path / "m.npy", np.arange(2)), "-o", two)
    assert "holds n.npy, m.npy" in refused(USAGE, "decompress", two, "-c")
    assert fed(b"no archive, but long enough to be looked at", "decompress", "-", "-c").exit_code == 3


def test_no_binary_data_on_a_terminal(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    _ours, theirs = pty.openpty()
    array = saved(tmp_path / "n.npy", np.arange(90))
    for command in (["compress", str(array), "-c"], ["decompress", str(array), "-c"]):
        run = subprocess.run([*COMMAND, *command], stdout=theirs, stderr=subprocess.PIPE, timeout=120)
        assert run.returncode == USAGE and b"is a terminal" in run.stderr
    run = subprocess.run(
        [*COMMAND, "compress", "-", "-o", "x.vdz"], stdin=theirs, capture_output=True, timeout=120, cwd=tmp_path
    )
    assert run.returncode == USAGE and b"is a terminal" in run.stderr and not (tmp_path / "x.vdz").exists()


def test_more_than_the_limits_is_rejected(tmp_path: Path, refused: Refused, done: Done) -> None:
    archive = tmp_path / "a.vdz"
    done("compress", saved(tmp_path / "n.npy", np.zeros(1 << 20)), "-o", archive)
    line = refused(USAGE, "decompress", archive, "-o", tmp_path / "out", "--max-output", "8000K")
    assert f"would become {8 << 20}, the limit is {8000 << 10}" in line
    assert "of memory, the limit is 1024" in refused(USAGE, "test", archive, "--memory", "1K")
    assert "expected bytes such as" in refused_usage("decompress", archive, "--memory", "lots")
    done("decompress", archive, "-o", tmp_path / "out", "--max-output", "8M", "--memory", "1G")
    assert not np.load(tmp_path / "out" / "n.npy").any()


def refused_usage(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == USAGE
    return result.stderr


def test_what_expands_beyond_all_use_is_rejected(
    tmp_path: Path, refused: Refused, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.vdz"
    done("compress", saved(tmp_path / "n.npy", np.zeros(1 << 18)), "-o", archive)
    monkeypatch.setattr("vaedensity.archive.limits.FREE_OUTPUT", 1 << 20)
    monkeypatch.setattr("vaedensity.archive.limits.USUAL_RATIO", 100)
    assert f"pass --max-output {1 << 21}" in refused(USAGE, "decompress", archive, "-o", tmp_path / "out")
    monkeypatch.setattr("vaedensity.archive.limits.FREE_OUTPUT", 1 << 30)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert "1000 bytes are free" in refused(1, "decompress", archive, "-o", tmp_path / "out")
