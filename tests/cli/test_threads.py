"""How many cores a command works on, and how long it says that it took."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import invoke

from vaedensity import machine

COMMANDS = ("fit", "score", "compress", "add", "decompress", "test", "bench")
Done = Callable[..., dict[str, Any]]


def line(command: str, folder: Path, few: Path, model: Path, archive: Path) -> tuple[object, ...]:
    """Arguments that make the command succeed."""
    (folder / "copy.vdz").write_bytes(archive.read_bytes())
    return {
        "fit": (few, "-o", folder / "m.safetensors", "--preset", "tiny", "--steps", 1, "--device", "cpu"),
        "score": (model, few, "-k", 2, "--device", "cpu"),
        "self-test": (model, "--self-test", "--items", 2, "-k", 2, "--tolerance", 1e9, "--device", "cpu"),
        "sample": (model, "-n", 1, "-o", folder / "s.npy", "--device", "cpu"),
        "reconstruct": (model, few, "-o", folder / "r.png", "--device", "cpu"),
        "compress": (few, "-o", folder / "a.vdz", "-m", model),
        "add": (folder / "copy.vdz", few, "-m", model),
        "decompress": (archive, "-o", folder / "out", "-m", model),
        "test": (archive, "-m", model),
        "bench": (few, "-m", model, "--rivals", "zlib"),
    }[command]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What :func:`choose_threads` was asked for."""
    seen: list[int | None] = []
    choose = machine.choose_threads

    def watch(wish: int | None = None) -> int:
        seen.append(wish)
        return choose(wish)

    for place in ("arithmetic", "workers", "archive.block_decoder", "api.bench"):
        monkeypatch.setattr(f"vaedensity.{place}.choose_threads", watch)
    return seen


@pytest.mark.parametrize(("given", "wish"), [((), None), (("--threads", "auto"), None), (("--threads", 2), 2)])
@pytest.mark.parametrize("command", COMMANDS)
def test_threads_reach_the_work(
    command: str,
    given: tuple[object, ...],
    wish: int | None,
    asked: list[int | None],
    tmp_path: Path,
    few: Path,
    model: Path,
    model_archive: Path,
    done: Done,
) -> None:
    few.rename(few.with_name("more.npy"))
    arguments = line(command, tmp_path, few.with_name("more.npy"), model, model_archive)
    done(command, *arguments, *given)
    assert asked[0] == wish  # bench then tells its parts how many that is


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "2000", ""])
def test_threads_that_cannot_be(value: str, few: Path, tmp_path: Path) -> None:
    result = invoke("compress", few, "-o", tmp_path / "a.vdz", f"--threads={value}")
    assert result.exit_code == 2 and "expected auto or a number of threads from 1 to 1024" in result.stderr
    assert not (tmp_path / "a.vdz").exists()


def test_archives_depend_neither_on_threads_nor_on_verifying(
    digits: np.ndarray, model: Path, tmp_path: Path, done: Done
) -> None:
    np.save(tmp_path / "x.npy", digits[:200])
    for threads in (1, 2, "auto"):
        how = ("-m", model, "--threads", threads, *(("--no-verify",) if threads == 1 else ()))
        done("compress", tmp_path / "x.npy", "-o", tmp_path / f"{threads}.vdz", *how)
    assert len({(tmp_path / f"{threads}.vdz").read_bytes() for threads in (1, 2, "auto")}) == 1


TIMED = ("fit", "score", "self-test", "sample", "reconstruct", "compress", "add", "decompress", "test")


@pytest.mark.parametrize("command", TIMED)
def test_seconds_count_from_the_commands_start(
    command: str, tmp_path: Path, few: Path, model: Path, model_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a thousand seconds went by before the work: with imports, say."""
    few.rename(few.with_name("more.npy"))
    monkeypatch.setattr("vaedensity.cli.common.time", SimpleNamespace(monotonic=lambda: 1000 + time.monotonic()))
    arguments = line(command, tmp_path, few.with_name("more.npy"), model, model_archive)
    name = "score" if command == "self-test" else command
    result = invoke(name, *arguments, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    record = record["archives"][0] if command == "test" else record
    assert 1000 <= record["seconds"] < 1600
    if command in ("compress", "decompress", "test"):
        again = invoke(name, *arguments, *(() if command == "test" else ("-f",)))
        assert " 100" in again.stdout and " s" in again.stdout, again.output


def test_auto_is_shown_in_help() -> None:
    for command in COMMANDS:
        assert "--threads N|auto" in invoke(command, "--help").stdout
