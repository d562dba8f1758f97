"""Progress: plain lines now and then where there is no terminal, totals where they are known, no thread of its own."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke

from vaedensity.cli import progress
from vaedensity.cli.progress import PLAIN_SECONDS, FitBar, plain_lines, progress_bar

Said = list[str]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    lines: Said = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


@pytest.mark.parametrize(("total", "of"), [(100, " of 100"), (None, "")])
def test_a_plain_line_now_and_then(total: int | None, of: str, said: Said) -> None:
    clock = Clock()
    advance = plain_lines("score", total, clock=clock)
    for _ in range(10):
        clock.now += PLAIN_SECONDS / 4
        advance(3)
    first, second = round(PLAIN_SECONDS), round(2 * PLAIN_SECONDS)
    assert said == [f"score: 12{of} items, {first} s", f"score: 24{of} items, {second} s"]
    assert 10 <= PLAIN_SECONDS <= 30


def test_fit_says_how_it_begins_goes_and_ends(said: Said) -> None:
    clock = Clock()
    with FitBar(clock) as bar:
        for step in range(9):
            bar({"step": step, "bits_per_dim": 2.0, "progress": step / 8})
            clock.now += PLAIN_SECONDS / 2.5
    assert [line.split()[0] for line in said] == ["0%", "38%", "75%", "100%"]


COMMANDS = ["score", "compress", "decompress", "test", "decompress --engine numpy", "sample", "self-test"]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_tell_how_much_there_is_and_come_to_it(
    name: str, model: Path, model_archive: Path, tmp_path: Path, digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain lines at every call, so that the last one is the whole."""
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    np.save(tmp_path / "d.npy", digits[:120])
    lines: dict[str, tuple[Any, ...]] = {
        "score": ("score", model, tmp_path / "d.npy", "-k", 2),
        "compress": ("compress", tmp_path / "d.npy", "-o", tmp_path / "a.vdz", "-m", model),
        "decompress": ("decompress", model_archive, "-o", tmp_path / "out", "-m", model),
        "decompress --engine numpy": (
            *("decompress", model_archive, "-o", tmp_path / "out", "-m", model),
            *("--engine", "numpy"),
        ),
        "test": ("test", model_archive, "-m", model),
        "sample": ("sample", model, "-n", 120, "-o", tmp_path / "s.npy"),
        "self-test": ("score", model, "--self-test", "-k", 2, "--items", 120, "--tolerance", 50),
    }
    result = invoke(*lines[name])
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if " items, " in line]
    assert told and " 120 of 120 items, " in told[-1], result.stderr
    assert invoke("-q", *lines[name], *(("-f",) if name not in ("score", "test", "self-test") else ())).stderr == ""


def test_pieces_of_bytes_are_counted_as_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaedensity.cli import compress as command

    totals: list[int | None] = []
    real = progress_bar

    def watched(label: str, total: int | None, unit: str = "items") -> Any:
        totals.append(total)
        return real(label, total, unit)

    monkeypatch.setattr(command, "progress_bar", watched)
    (tmp_path / "x.txt").write_bytes(bytes(1000))
    assert invoke("-q", "compress", tmp_path / "x.txt", "-o", tmp_path / "a.vdz").exit_code == 0
    assert totals == [1000]


class Terminal:
    """A standard error that says it is a terminal."""

    def __init__(self) -> None:
        self.shown = ""

    def write(self, text: str) -> int:
        self.shown += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "shown"), [(70, "70/70 items"), (None, "70 items")])
def test_a_bar_without_a_thread(total: int | None, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    before = threading.active_count()
    with progress_bar("decompress", total) as advance:
        for _ in range(7):
            advance(10)
        assert threading.active_count() == before  # workers fork beside no thread
    assert shown in terminal.shown and "/?" not in terminal.shown


def test_what_is_lost_is_not_counted_as_restored(
    model_archive: Path, model: Path, tmp_path: Path, done: Callable[..., dict[str, Any]]
) -> None:
    from vaedensity.archive.reader import ArchiveFile

    with ArchiveFile(model_archive) as archive:
        block = archive.blocks[0]
    data = bytearray(model_archive.read_bytes())
    data[block.begin + block.size - 3] ^= 8
    (tmp_path / "b.vdz").write_bytes(data)
    for engine in ("torch", "numpy"):
        line = (
            "decompress",
            tmp_path / "b.vdz",
            "-o",
            tmp_path / engine,
            "-m",
            model,
            "--keep-going",
            "--engine",
            engine,
        )
        result = invoke(*line)
        assert result.exit_code == 3 and f"\n{120 - block.items} of 120 items, " in result.stdout
        assert f"{block.items} of 120 items are lost" in result.stderr
