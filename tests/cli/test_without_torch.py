"""What needs no torch works where torch and its like are not installed: reading, and looking at what is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke, tree
from rejections import saved

LIBRARIES = ("torch", "torchvision", "numba", "constriction", "scipy", "sklearn", "safetensors")
WITHOUT = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2:]:
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Blocked())
from vaedensity.cli.main import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments, standalone_mode=False)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
"""


@pytest.fixture
def series_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An archive of series that a model coded, and that model."""
    monkeypatch.setattr("vaedensity.archive.model_blocks.WORTH_ASKING", 1e9)  # few items take less without a model
    monkeypatch.setattr("vaedensity.api.compress.SMALL_BYTES", 0)
    model, archive = Path(__file__).parents[1] / "golden" / "series.safetensors", tmp_path / "series.vdz"
    with np.load(model.with_suffix(".npz")) as file:
        data = saved(tmp_path / "series.npy", file["series"][:20])
    done = invoke("compress", data, "-o", archive, "-m", model, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["model_items"] == 20
    return archive, model


def test_reading_needs_no_torch(
    model: Path, model_archive: Path, series_archive: tuple[Path, Path], digits: np.ndarray, tmp_path: Path
) -> None:
    with_model = tmp_path / "inside.vdz"
    x = saved(tmp_path / "x.npy", digits[:60])
    assert invoke("compress", x, "-o", with_model, "-m", model, "--embed-model", "--particles", 2).exit_code == 0
    numpy = ["--engine", "numpy"]
    commands: list[list[object]] = [
        ["--help"],
        ["decompress", "--help"],
        ["models"],
        ["info", model],
        ["info", model_archive],
        ["list", with_model],
        ["test", with_model, *numpy],
        ["repair", with_model, "-o", tmp_path / "repaired.vdz"],
        ["decompress", with_model, "-o", tmp_path / "inside", *numpy, "--threads", 2, "--lockstep", 3],
        ["decompress", model_archive, "-o", tmp_path / "all", "-m", model, *numpy, "--keep-going"],
        ["decompress", model_archive, "-o", tmp_path / "some", "--models", model.parent, *numpy, "--item", 7],
        ["decompress", series_archive[0], "-o", tmp_path / "numpy", "-m", series_archive[1], *numpy],
    ]
    given = json.dumps([[str(a) for a in command] for command in commands])
    line = [sys.executable, "-c", WITHOUT, given, *LIBRARIES]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300, env=os.environ)
    assert run.returncode == 0, run.stderr
    assert np.array_equal(np.load(tmp_path / "inside" / "x.npy"), digits[:60])
    assert np.array_equal(np.load(tmp_path / "all" / "digits.npy"), digits[:120])
    assert np.array_equal(np.load(tmp_path / "some" / "digits.npy"), digits[7:8])
    assert invoke("decompress", series_archive[0], "-o", tmp_path / "torch", "-m", series_archive[1]).exit_code == 0
    assert tree(tmp_path / "numpy") == tree(tmp_path / "torch")
