"""Model files that commands must reject: one line on stderr, the documented status, and nothing left behind.

What can be wrong inside a model file is in tests/rejected, a file for each.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rejections import MODEL, NO_TRAINING, Refused, refuse_data, saved

from vaedensity.model.checkpoint import load_model

pytestmark = pytest.mark.usefixtures("no_released")


def altered_model(model: Path, path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Path:
    """A copy of a model file whose tensors and record ``change`` has altered."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(model, "pt") as f:
        tensors, record = {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["vaedensity"])
    change(tensors, record)
    save_file(tensors, path, metadata={"vaedensity": json.dumps(record)})
    return path


MODEL_FAULTS: dict[str, Callable[[Path, Path], Any]] = {
    "missing": lambda model, path: None,
    "folder": lambda model, path: path.mkdir(),
    "empty": lambda model, path: path.write_bytes(b""),
    "random": lambda model, path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "an-array": lambda model, path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(100)),
    "truncated": lambda model, path: path.write_bytes(model.read_bytes()[:-1000]),
    "other-preset": lambda model, path: altered_model(model, path, lambda t, r: r["config"].update(widths=[40, 24])),
    "no-config": lambda model, path: altered_model(model, path, lambda t, r: r.pop("config")),
    "odd-card": lambda model, path: altered_model(model, path, lambda t, r: r.update(card=[1])),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_files_that_are_no_usable_model(fault: str, refused: Refused, model: Path, few: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    MODEL_FAULTS[fault](model, bad)
    for line in (
        refused(MODEL, "score", bad, few, "-o", tmp_path / "rows.csv"),
        refused(MODEL, "compress", few, "-o", tmp_path / "a.vdz", "-m", bad),
    ):
        assert "bad.safetensors" in line


@pytest.mark.parametrize("fault", ["missing", "empty", "random", "truncated", "no-config", "odd-card"])
def test_info_of_what_is_no_model(fault: str, refused: Refused, model: Path, tmp_path: Path) -> None:
    MODEL_FAULTS[fault](model, tmp_path / "bad.safetensors")
    assert "bad.safetensors" in refused(MODEL, "info", tmp_path / "bad.safetensors")


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_a_card_with_an_impossible_rate(rate: float, refused: Refused, model: Path, few: Path, tmp_path: Path) -> None:
    bad = altered_model(model, tmp_path / "bad.safetensors", lambda t, r: r["card"].update(integer_bits_per_dim=rate))
    assert "bad.safetensors" in refused(MODEL, "compress", few, "-o", tmp_path / "a.vdz", "-m", bad)


@pytest.mark.parametrize("number", [1, 4])
def test_models_of_formats_that_were_never_released(
    number: int, refused: Refused, model: Path, model_archive: Path, few: Path, tmp_path: Path
) -> None:
    def age(tensors: dict[str, Any], record: dict[str, Any]) -> None:
        del record["version"], record["sha256"], record["config"]["kind"]
        record["format"] = number

    old = altered_model(model, tmp_path / "old.safetensors", age)
    for command in (
        ("info", old),
        ("fit", few, "--init", old, "-o", tmp_path / "m.safetensors", *NO_TRAINING),
        ("score", old, few),
        ("sample", old, "-o", tmp_path / "s.npy"),
        ("compress", few, "-o", tmp_path / "a.vdz", "-m", old),
        ("test", model_archive, "-m", old),
        ("decompress", model_archive, "-m", old, "-o", tmp_path / "out"),
        ("decompress", model_archive, "-m", old, "-o", tmp_path / "out", "--engine", "numpy"),
    ):
        line = refused(MODEL, *command)
        assert line == f"vaedensity: {old}: model format {number} was never released; fit the model anew"


def test_info_of_a_record_nested_beyond_reason(refused: Refused, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(1)}, tmp_path / "deep.safetensors", metadata={"vaedensity": "[" * 100_000})
    assert "deep.safetensors" in refused(MODEL, "info", tmp_path / "deep.safetensors")


@pytest.mark.parametrize("shape", [(5, 8, 9), (5, 8, 8, 3), (5, 3, 8, 8), (5, 7, 8)])
def test_a_model_of_another_shape(shape: tuple[int, ...], refused: Refused, model: Path, tmp_path: Path) -> None:
    spec = saved(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    score, compress = refuse_data(refused, model, tmp_path, spec, "score", "compress")
    assert "8x8x1" in score and "fit one" in score
    assert "[1, 8, 8]" in compress and str(list(shape)) in compress


def test_an_archive_without_its_model_or_with_another(
    refused: Refused, model: Path, other_model: Path, model_archive: Path, tmp_path: Path
) -> None:
    for command in (("decompress", model_archive, "-o", tmp_path / "out"), ("test", model_archive)):
        line = refused(MODEL, *command)
        assert load_model(model).sha256[:16] in line and "put it beside the archive, or pass -m FILE" in line
        line = refused(MODEL, *command, "-m", other_model)
        assert model.stem in line and other_model.stem in line and line.count("sha256") == 2
        assert "no such file" in refused(MODEL, *command, "-m", tmp_path / "gone.safetensors")
