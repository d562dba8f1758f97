"""Full disks, closed pipes, memory that runs out: one line on stderr, and nothing partial left behind."""

import errno
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rejections import COMMAND, FAILURE, NO_TRAINING, Done, Refused, saved

pytestmark = pytest.mark.usefixtures("no_released")


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Files written under a partial name hold ``after`` bytes and no more."""

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(memoryview(data).cast("B")) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data) or 0

    def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if ".partial" not in str(path):
            return open(path, mode, *rest, **options)
        raw = Full(path, mode.replace("b", ""))
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    for module in ("data.atomic", "data.restore", "report.rows"):
        monkeypatch.setattr(f"vaedensity.{module}.open", opened, raising=False)


@pytest.mark.parametrize("after", [0, 1500])
def test_a_full_disk(
    after: int,
    refused: Refused,
    model: Path,
    tmp_path: Path,
    digits: np.ndarray,
    done: Done,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = saved(tmp_path / "d.npy", digits[:300])
    done("compress", data, "-o", tmp_path / "a.vdz")
    fill_disk(monkeypatch, after)
    for command in (
        ("compress", data, "-o", tmp_path / "b.vdz"),
        ("compress", data, "-o", tmp_path / "a.vdz", "-f"),
        ("decompress", tmp_path / "a.vdz", "-o", tmp_path, "-f"),
        ("decompress", tmp_path / "a.vdz", "-o", tmp_path / "new"),
        ("score", model, data, "-k", "1", "-o", tmp_path / "rows.csv"),
        ("score", model, data, "-k", "1", "-o", tmp_path / "rows.jsonl"),
    ):
        assert "No space left on device" in refused(FAILURE, *command)


def test_files_that_the_system_does_not_let_grow(tmp_path: Path, unchanged: Callable[..., Any]) -> None:
    resource = pytest.importorskip("resource")
    data = saved(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 2**60, 50_000))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    with unchanged(tmp_path):
        line = [*COMMAND, "-q", "compress", str(data), "-o", str(tmp_path / "a.vdz")]
        run = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert run.returncode == FAILURE and run.stdout == ""
    assert run.stderr.startswith("vaedensity: cannot write") and run.stderr.count("\n") == 1


def test_a_training_state_that_finds_no_room(few: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    line = [*COMMAND, "-q", "fit", str(few), "-o", str(tmp_path / "m.safetensors"), *NO_TRAINING]
    run = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert (run.returncode, run.stdout) == (FAILURE, "")
    assert run.stderr.startswith("vaedensity: ") and run.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("missing", [1, 400])
def test_a_disk_that_fills_up_with_the_last_bytes_of_an_array(
    missing: int, tmp_path: Path, done: Done, unchanged: Callable[..., Any]
) -> None:
    resource = pytest.importorskip("resource")
    data = saved(tmp_path / "x.npy", np.arange(300))
    done("compress", data, "-o", tmp_path / "a.vdz")
    size = data.stat().st_size - missing

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    with unchanged(tmp_path):
        line = [*COMMAND, "decompress", str(tmp_path / "a.vdz"), "-o", str(tmp_path / "out")]
        run = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert (run.returncode, run.stdout) == (FAILURE, "")
    assert run.stderr.startswith("vaedensity: cannot write") and run.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_answer_that_cannot_be_printed() -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([*COMMAND, "models"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert run.returncode == FAILURE
    assert run.stderr.startswith("vaedensity: ") and "No space left" in run.stderr and run.stderr.count("\n") == 1


def test_a_reader_that_goes_away_early(model_archive: Path) -> None:
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "w") as closed:
        line = [*COMMAND, "list", str(model_archive)]
        run = subprocess.run(line, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (FAILURE, "")


def test_memory_that_runs_out(refused: Refused, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("vaedensity.api.compress.write_archive", greedy)
    assert "9 TiB" in refused(FAILURE, "compress", few, "-o", tmp_path / "a.vdz")


def test_verification_that_fails_leaves_no_archive(
    refused: Refused, model: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaedensity.coding import engine

    decode = engine.decode_chains

    def inexact(*arguments: Any, **options: Any) -> Any:
        chain = decode(*arguments, **options)
        chain[0][0] ^= 1
        return chain

    monkeypatch.setattr("vaedensity.coding.engine.decode_chains", inexact)
    line = refused(FAILURE, "compress", few, "-o", tmp_path / "a.vdz", "-m", model)
    assert "nothing was written" in line
