"""``compress --particles``: smaller archives that say so, and plain words where particles gain nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from vaedensity.cli.main import main
from vaedensity.model.released import checkpoint_folder

pytestmark = pytest.mark.usefixtures("no_released")
Done = Callable[..., dict[str, Any]]
RELEASED = checkpoint_folder() / "digits.safetensors"


def test_particles_gain_and_are_stored(tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    np.save(tmp_path / "d.npy", digits[1650:])
    one = done("compress", tmp_path / "d.npy", "-o", tmp_path / "one.vdz", "-m", RELEASED)
    many = done("compress", tmp_path / "d.npy", "-o", tmp_path / "many.vdz", "-m", RELEASED, "--particles", 8)
    assert (one["particles"], many["particles"]) == (1, 8)
    assert many["bytes_out"] < one["bytes_out"] and many["expected_bits_per_dim"] < one["expected_bits_per_dim"]
    assert done("list", tmp_path / "many.vdz")["particles"] == 8
    assert done("test", tmp_path / "many.vdz", "-m", RELEASED)["archives"][0]["ok"]
    done("decompress", tmp_path / "many.vdz", "-m", RELEASED, "-o", tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out" / "d.npy"), digits[1650:])
    text = CliRunner().invoke(main, ["list", str(tmp_path / "many.vdz")]).output
    assert "8 particles" in " ".join(text.split())


def test_where_particles_gain_nothing_it_is_said(tmp_path: Path, done: Done) -> None:
    np.save(tmp_path / "a.npy", np.arange(12))
    run = CliRunner().invoke(
        main, ["compress", str(tmp_path / "a.npy"), "-o", str(tmp_path / "a.vdz"), "--particles", "4", "--json"]
    )
    assert run.exit_code == 0 and "4 particles gain nothing without a model" in run.stderr
    assert json.loads(run.stdout)["particles"] == 1
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(17, 256, (20, 8, 8), np.uint8))
    run = CliRunner().invoke(
        main,
        [*map(str, ("compress", tmp_path / "noise.npy", "-o", tmp_path / "n.vdz", "-m", RELEASED)), "--particles", "4"],
    )
    assert run.exit_code == 0 and "gain nothing" in run.stderr


@pytest.mark.parametrize("number", ["0", "257", "two"])
def test_senseless_numbers(number: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12))
    run = CliRunner().invoke(
        main, ["compress", str(tmp_path / "a.npy"), "-o", str(tmp_path / "a.vdz"), "--particles", number]
    )
    assert run.exit_code == 2 and not (tmp_path / "a.vdz").exists()
