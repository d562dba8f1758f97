"""What the tests share: a small model of the digits, a way to run commands, a way to watch a folder."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks this small lose by more, most on a busy machine

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vaedensity.cli.main import main
from vaedensity.data.named import load_digits

# Enough for the model to beat the fallback codecs on digits, which commands must tell apart.
FIT_OPTIONS = ("--preset", "tiny", "--steps", "120", "--rate", "0.02", "--batch-size", "32", "--device", "cpu")


@contextmanager
def small_blocks() -> Iterator[None]:
    """Chains of about 2 KB, whatever they cost, so that a small archive has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaedensity.archive.model_blocks.BLOCK_BYTES", 2000)
        patch.setattr("vaedensity.archive.model_blocks.OVERHEAD_SHARE", 1.0)
        yield


def invoke(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    return load_digits()


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A model file of 8x8 digits and what `fit --json` said of it."""
    path = tmp_path_factory.mktemp("model") / "digits-test-model.safetensors"
    result = invoke("fit", "digits:train", "-o", path, *FIT_OPTIONS, "--json")
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)


@pytest.fixture(scope="session")
def model(fitted: tuple[Path, dict[str, Any]]) -> Path:
    return fitted[0]


@pytest.fixture(scope="session")
def other_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid model of the same shape that is not the same: one integer differs."""
    from vaedensity.model.checkpoint import load_model, slim_model

    file = load_model(model)
    start = file.start.clone()
    start.view(-1)[0] += 1 if start.view(-1)[0] < 0 else -1
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    path.write_bytes(slim_model(replace(file, start=start)))
    return path


@pytest.fixture(scope="session")
def model_archive(digits: np.ndarray, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.npy, 120 digits, in an archive that needs the model."""
    folder = tmp_path_factory.mktemp("archive")
    np.save(folder / "digits.npy", digits[:120])
    result = invoke("compress", folder / "digits.npy", "-o", folder / "digits.vdz", "-m", model, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model_items"] == 120
    return folder / "digits.vdz"


@pytest.fixture
def no_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no checkpoint came with the package: what a test sees does not depend on which do."""
    empty = tmp_path.parent / f"{tmp_path.name}-no-checkpoints"
    empty.mkdir()
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: empty)


@pytest.fixture
def done() -> Callable[..., dict[str, Any]]:
    """Run a command with --json that must succeed; its one JSON object."""

    def run(*arguments: object) -> dict[str, Any]:
        result = invoke(*arguments, "--json")
        assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
        assert result.stdout.count("\n") == 1 and result.stdout.endswith("\n"), result.stdout
        record = json.loads(result.stdout)
        assert record.pop("schema_version") == 1
        return record

    return run


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder: files with their bytes, links with their targets, folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def unchanged() -> Callable[[Path], AbstractContextManager[None]]:
    """Nothing below a folder appears, vanishes or changes."""

    @contextmanager
    def watch(folder: Path) -> Iterator[None]:
        before = tree(folder)
        yield
        after = tree(folder)
        assert sorted(after) == sorted(before)
        assert after == before

    return watch


@pytest.fixture
def refused(tmp_path: Path, unchanged: Callable[..., AbstractContextManager[None]]) -> Callable[..., str]:
    """Run a command that must fail with ``status`` and one line, and leave tmp_path as it was."""

    def run(status: int, *arguments: object) -> str:
        with unchanged(tmp_path):
            result = invoke("-q", *arguments)
        assert isinstance(result.exception, SystemExit), f"{arguments}: {result.exception!r} {result.output}"
        assert (result.exit_code, result.stdout) == (status, ""), result.output
        lines = result.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("vaedensity: "), result.stderr
        assert "Traceback" not in result.stderr
        return lines[0]

    return run


class Known(NamedTuple):
    """A model whose log p(x) is known, items drawn from it and their log p."""

    model: Any
    x: np.ndarray
    truth: np.ndarray


@pytest.fixture(scope="session")
def golden() -> Known:
    """The linear-Gaussian model with a good inference distribution."""
    from linear_gaussian import LinearGaussian  # beside the tests that ask for it

    model = LinearGaussian()
    return Known(model, *model.data(1000))


@pytest.fixture(scope="session")
def misled() -> Known:
    """q(z|x) is a third as wide as the exact posterior and off by one and a half of its scales."""
    from linear_gaussian import LinearGaussian

    model = LinearGaussian(widen=0.35, shift=1.5)
    return Known(model, *model.data(60))


@pytest.fixture
def few(tmp_path: Path, digits: np.ndarray) -> Path:
    """Twelve digits in a file."""
    np.save(tmp_path / "few.npy", digits[:12])
    return tmp_path / "few.npy"
