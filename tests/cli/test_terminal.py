"""What a terminal shows: lines apart, tables no wider than it is, and no escape sequences where there is none."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from rich.cells import cell_len

from vaedensity.report.tables import render

RUN = """
import json, sys
from vaedensity.cli.main import main
for line in json.loads(sys.argv[1]):
    try:
        main(line)
    except SystemExit as end:
        assert not end.code, line
    print("END", flush=True)
"""


@pytest.fixture
def commands(model: Path, tmp_path: Path, digits: np.ndarray) -> dict[str, list[str]]:
    data, archive = tmp_path / "a-name-that-takes-its-room.npy", tmp_path / "a.vdz"
    np.save(data, digits[:40])
    for i in range(50):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / f"{i}.txt").write_bytes(bytes(i))
    assert invoke("-q", "compress", data, tmp_path / "folder", "-o", archive, "-m", model).exit_code == 0
    lines: dict[str, list[Any]] = {
        "list": ["list", archive],
        "list --all": ["list", "--all", archive],
        "info": ["info", archive],
        "info of a model": ["info", model],
        "score": ["score", model, data, "-k", 2],
        "compress": ["compress", data, "-o", tmp_path / "b.vdz", "-m", model],
        "bench": ["bench", data, "-m", model, "--rivals", "png,xz,zlib"],
    }
    return {name: ["-q", *map(str, line)] for name, line in lines.items()}


def on_a_terminal(columns: int, lines: list[list[str]]) -> list[str]:
    """What each of the commands shows on a terminal so wide."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"TERM": "xterm"}
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(lines)], stdout=theirs, stderr=subprocess.PIPE, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert child.stderr is not None and child.stderr.read() == b"" and child.wait() == 0
    return shown.decode().replace("\r\n", "\n").split("END\n")[:-1]


TABLES = {"list": 23, "list --all": 54, "info": 5, "bench": 6}
"""Commands that print a table, and their lines at the least."""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudoterminals")
@pytest.mark.parametrize("columns", [60, 120])
def test_tables_fit_and_lines_are_apart(columns: int, commands: dict[str, list[str]]) -> None:
    for name, shown in zip(commands, on_a_terminal(columns, [*commands.values()])):
        lines = shown.splitlines()
        assert "\x1b" not in shown and shown.endswith("\n") and len(lines) >= TABLES.get(name, 2), (name, shown)
        if name in TABLES:
            table = [line for line in lines if not line.startswith("vaedensity, model") or name != "bench"]
            assert max(map(len, table)) <= columns, (name, shown)
        else:
            assert all(line.count("bits/dim") <= 2 for line in lines)


@pytest.mark.parametrize("name", TABLES)
def test_no_terminal_no_limit(name: str, commands: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    result = invoke(*commands[name])
    assert "\x1b" not in result.output and len(result.stdout.splitlines()) >= TABLES[name]
    if name != "info":
        assert any("a-name-that-takes-its-room.npy" in line for line in result.stdout.splitlines())


@pytest.mark.parametrize("columns", [60, 120])
def test_the_demo(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import vaedensity.api.fit as fitting

    fit_model = fitting.fit_model

    def quickly(x: Any, source: str, out: Path, request: Any, **how: Any) -> Any:
        return fit_model(x, source, out, replace(request, seconds=0.1), **how)

    monkeypatch.setattr("vaedensity.data.named.DIGITS", {"train": slice(0, 200), "test": slice(200, 240)})
    monkeypatch.setattr(fitting, "fit_model", quickly)
    monkeypatch.setenv("COLUMNS", str(columns))
    result = invoke("-q", "demo")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "40 held-out digits, 8x8, values 0 to 16" and lines[-1].startswith("restored bit for bit: ")
    assert [line.split("  ")[0] for line in lines[3:-1]][1:3] == ["ELBO", "vaedensity archive, complete"]
    assert len(lines) == 11 and max(map(len, lines)) <= columns and "\x1b" not in result.stdout


NAMES = [
    "a",
    "a/long/path/" * 9 + "x.png",
    "日本語" * 20,
    "[bold]:smile:[/bold]",
    "two\nlines\x1b[31m",
    "several words " * 9,
]


@pytest.mark.parametrize("width", [1, 10, 30, 60, 120, None])
def test_nothing_of_a_table_is_lost(width: int | None) -> None:
    rows = [[name, "1234567", "whole array", ""] for name in NAMES]
    lines = render("a title of some words", ["name", "bytes", "lay out", "bits/dim"], rows, width)
    assert all("\x1b" not in line and "\n" not in line for line in lines)
    if width is not None and width > 10:
        assert max(map(cell_len, lines)) <= width
    squeezed = "".join("".join(lines).split())
    assert squeezed.count("1234567") == len(NAMES)
    if width is None:
        assert all("".join(name.replace("\x1b", "\\x1b").split()) in squeezed for name in NAMES)


def test_the_same_lines_come_from_a_table_without_rows() -> None:
    assert render("t", ["a", "b"], []) == ["t", "a  b", "----"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_cannot_show_every_character(
    encoding: str, tmp_path: Path, model: Path, no_released: None, done: Callable[..., dict[str, Any]]
) -> None:
    np.save(tmp_path / "日本.npy", np.arange(9))
    done("compress", tmp_path / "日本.npy", "-o", tmp_path / "a.vdz")
    command = [sys.executable, "-m", "vaedensity.cli.main", "list", str(tmp_path / "a.vdz")]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"\\u65e5\\u672c.npy" in result.stdout and result.stderr == b""


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    from vaedensity.cli.common import answer

    answer({"a": float("nan"), "b": [1.5, float("inf"), {"c": -float("inf")}], "d": None, "e": True}, True, [])
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert found == {"schema_version": 1, "a": None, "b": [1.5, None, {"c": None}], "d": None, "e": True}
