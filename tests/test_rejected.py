"""One bad archive or model for each reason to reject (made by scripts/nightly/rejected.py): status, message, no
file."""

import zlib
from pathlib import Path

import pytest
from conftest import invoke, tree

from scripts.nightly.bad import layouts

FOLDER = Path(__file__).parent / "rejected"
CASES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".vdz", ".safetensors"))
WANTING = FOLDER / "needs-a-model.vdz"
DAMAGED = 3

pytestmark = pytest.mark.usefixtures("no_released")


SHARED = ("the archive's ", "the archive holds ")  # what begins so is said of metas
FLOATS_MATTER = ("model-infinity", "model-nan")  # and the numpy engine reads none


def refuse(path: Path, folder: Path, command: str, *options: str) -> tuple[int, str]:
    """(exit status, the line without path) of a command that writes nothing."""
    status, line = refuse_by_name(path, folder, command, *options)
    return status, line.removeprefix(f"{path}: ").removeprefix(f"{WANTING}: ")


def refuse_by_name(path: Path, folder: Path, command: str, *options: str) -> tuple[int, str]:
    """(exit status, the line) of a command that writes nothing."""
    model = ["-m", path] if path.suffix == ".safetensors" else []
    target = WANTING if model else path
    more = ["-o", folder / "out"] if command == "decompress" else []
    before = tree(folder)
    result = invoke("-q", command, target, *model, *options, *more)
    assert isinstance(result.exception, SystemExit), f"{result.exception!r} {result.output}"
    assert tree(folder) == before
    assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("vaedensity: ")
    return result.exit_code, result.stderr.rstrip("\n").removeprefix("vaedensity: ")


def expected(path: Path) -> tuple[int, str, dict[str, str]]:
    """Status and message of a case, and how it is run, where that is said."""
    status, message, *rest = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    return int(status), message, dict(line.split(": ", 1) for line in rest)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_rejected(path: Path, tmp_path: Path) -> None:
    status, message, more = expected(path)
    for command in more.get("commands", "test decompress").split():
        assert refuse(path, tmp_path, command, *more.get("options", "").split()) == (status, message)


@pytest.mark.parametrize("path", [p for p in CASES if p.stem not in FLOATS_MATTER], ids=lambda path: path.name)
def test_the_numpy_engine_refuses_it_too(path: Path, tmp_path: Path) -> None:
    """With the same status; of metas both say the same, which begins with the archive's name."""
    status, message, more = expected(path)
    options = ("--engine", "numpy", *more.get("options", "").split())
    found, line = refuse_by_name(path, tmp_path, "decompress", *options)
    assert found == status
    if message.startswith(SHARED) and more.get("commands") != "test":
        assert line == f"{path}: {message}"
    elif status == DAMAGED:
        assert line.startswith(f"{path}: ")


def test_every_case_is_there() -> None:
    assert {path.with_suffix(".txt") for path in CASES} == set(FOLDER.glob("*.txt"))
    assert len(CASES) > 250 and sum(path.stat().st_size for path in CASES) < 1_000_000


@pytest.mark.parametrize("which", ["header", "index"])
def test_streams_that_inflate_too_far(which: str, tmp_path: Path) -> None:
    parts = layouts.base()
    packer = zlib.compressobj(9)
    stream = packer.compress(parts.text if which == "header" else bytes(32))
    stream += b"".join(packer.compress(b" " * (1 << 20)) for _ in range(1 << 8)) + packer.flush()
    parts.streams = {which: stream}
    path = tmp_path / "bomb.vdz"
    path.write_bytes(parts.together())
    reason = "a compressed stream does not end where its bytes end"
    assert refuse(path, tmp_path, "test") == (DAMAGED, f"the header or the index cannot be read ({reason})")
