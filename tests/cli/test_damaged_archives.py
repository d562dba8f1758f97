"""Archives that are damaged, make no sense or are of another format: one line, and nothing restored.

What can be wrong with an archive, and what is said of it, is in tests/rejected, a file for each; here is what commands
make of such archives.
"""

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from rejections import DAMAGED, USAGE, Done, Refused

from vaedensity.archive.block import RAW
from vaedensity.archive.container import UNRELEASED_MAGIC, Writer

pytestmark = pytest.mark.usefixtures("no_released")
DATA = bytes(range(12))
Hostile = Callable[..., Path]


@pytest.fixture
def archive(few: Path, done: Done) -> Path:
    done("compress", few, "-o", few.parent / "good.vdz")
    few.unlink()
    return few.parent / "good.vdz"


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    """Write an archive by hand: a good one of array "x" (4 items of 3 bytes) with parts replaced."""

    def write(*, meta: Any = None, codec: int = RAW.byte, **changes: Any) -> Path:
        entry = {"name": "x", "dtype": "|u1", "shape": [4, 3]} | changes.pop("entry", {})
        restore = [{"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}} | (meta or {})]
        path = tmp_path / "hostile.vdz"
        with open(path, "wb") as f:
            writer = Writer(f, {"arrays": [entry], "restore": restore, "by": "test"} | changes)
            writer.add(0, 0, 4, SimpleNamespace(byte=codec), DATA, zlib.crc32(DATA))  # type: ignore[arg-type]
            writer.finish([hashlib.sha256(DATA).digest()])
        return path

    return write


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-30] + bytes([b[-30] ^ 1]) + b[-29:]])
def test_what_is_there_stays(damage: Callable[[bytes], bytes], engine: str, refused: Refused, archive: Path) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    (archive.parent / "few.npy").write_bytes(b"mine")
    line = refused(DAMAGED, "decompress", archive, "-o", archive.parent, "-f", "--engine", engine)
    assert "good.vdz" in line and "vaedensity repair" in line


def test_test_names_each_damaged_archive_and_goes_on(archive: Path) -> None:
    bad = archive.with_name("bad.vdz")
    bad.write_bytes(archive.read_bytes()[:-1])
    result = invoke("test", bad, archive, bad)
    assert result.exit_code == DAMAGED and result.stderr.count("bad.vdz") == 2 and "ok" in result.stdout


def test_archives_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    for command in ("decompress", "test", "list"):
        assert "cannot be read" in refused(USAGE, command, tmp_path / "gone.vdz")
        assert "a folder, expected an archive" in refused(USAGE, command, tmp_path)


def test_the_hostile_writer_can_write_a_good_archive(hostile: Hostile, tmp_path: Path, done: Done) -> None:
    done("decompress", hostile(), "-o", tmp_path / "out")
    assert np.load(tmp_path / "out" / "x.npy").tobytes() == DATA


@pytest.mark.parametrize(
    "changes",
    [
        {"entry": {"shape": 5}},
        {"entry": {"shape": ["x"]}},
        {"entry": {"shape": None}},
        {"entry": {"dtype": "(1,"}},
        {"entry": {"dtype": "4)O"}},
        {"entry": {"name": "y"}},
        {"meta": {"name": None}},
        {"meta": {"name": "../x"}},
        {"meta": {"arrays": "x"}},
        {"meta": {"arrays": ["x"]}},
        {"meta": {"arrays": {"x": 5}}},
        {"restore": [5]},
        {"restore": {"a": 1}},
        {"model": []},
        {"model": {"name": "x", "sha256": "00"}},
        {"arrays": []},
        {"arrays": ["x"]},
        {"codec": 6},
        {"codec": 16},
        {"codec": 64 + 4},
    ],
    ids=str,
)
def test_archives_that_make_no_sense(changes: dict[str, Any], refused: Refused, hostile: Hostile) -> None:
    for command in ("list", "info", "test"):
        assert "hostile.vdz" in refused(DAMAGED, command, hostile(**changes))


@pytest.mark.parametrize("version", range(1, 6))
def test_archives_of_formats_that_were_never_released(version: int, refused: Refused, few: Path) -> None:
    path = few.parent / "old.vdz"
    path.write_bytes(UNRELEASED_MAGIC + version.to_bytes(2, "little") + np.random.default_rng(version).bytes(200))
    for command in (
        ("decompress", path, "-o", few.parent / "out"),
        ("decompress", path, "-o", few.parent / "out", "--engine", "numpy", "--keep-going"),
        ("decompress", path, "-o", few.parent / "out", "--item", "0"),
        ("test", path),
        ("test", path, "--engine", "numpy"),
        ("list", path),
        ("info", path),
        ("add", path, few),
        ("repair", path, "-o", few.parent / "new.vdz"),
    ):
        line = refused(DAMAGED, *command)
        assert line == f"vaedensity: {path}: format {version} was never released; make the archive anew"
