"""vaedensity bench: one run, the same bytes, all verified."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from PIL import Image

from vaedensity.api.bench import Bench, BenchRow
from vaedensity.cli.bench import table
from vaedensity.errors import USAGE

Done = Callable[..., dict[str, Any]]
Refused = Callable[..., str]


def test_record(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    np.save(tmp_path / "d.npy", digits[:60])
    record = done("bench", tmp_path / "d.npy", "-m", model, "-m", model, "--rivals", "png,xz,zlib")
    assert (record["items"], record["dims"], record["bytes_in"]) == (60, 64, 60 * 64)
    rows = record["codecs"]
    assert sorted(row["codec"] for row in rows if "model_bytes" not in row) == ["PNG", "xz -9e", "zlib -9"]
    ours = [row for row in rows if "model_bytes" in row]
    assert len(ours) == 2 and ours[0]["bytes"] == ours[1]["bytes"] and ours[0]["model_items"] == 60
    assert [row["bytes"] for row in rows] == sorted(row["bytes"] for row in rows)
    for row in rows:
        assert row["bits_per_dim"] == pytest.approx(8 * row["bytes"] / (60 * 64))
        assert row["compress_mb_per_second"] > 0 and row["decompress_seconds"] > 0
    with_model = ours[0]["bits_per_dim_with_model"]
    added = 8 * ours[0]["model_bytes"] / (10_000 * 64)
    assert with_model["10000"] == pytest.approx(ours[0]["bits_per_dim"] + added)
    by_name = {row["codec"]: row for row in rows}
    assert by_name["PNG"]["layout"] == "mosaic"  # sixty files of an 8x8 image are mostly headers


def test_without_a_model_it_chooses_as_compress_does(
    model: Path, tmp_path: Path, digits: np.ndarray, done: Done, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    np.save(tmp_path / "d.npy", digits[:60])
    line = ("bench", tmp_path / "d.npy", "--rivals", "zlib")
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: model.parent)
    assert {row["codec"] for row in done(*line)["codecs"]} == {"zlib -9", f"vaedensity, model {model.stem}"}
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: tmp_path)
    assert [row["codec"] for row in done(*line)["codecs"]] == ["zlib -9"]
    assert "general codecs alone" in invoke(*line).stderr
    assert "--particles" in refused(USAGE, *line, "--particles", 2)


def test_particles_and_ratios(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    np.save(tmp_path / "d.npy", digits[:200])
    line = ("bench", tmp_path / "d.npy", "-m", model, "--rivals", "zlib", "--particles", 3)
    rows = {row["codec"]: row for row in done(*line)["codecs"]}
    ours = sorted(name for name in rows if "vaedensity" in name)
    assert len(ours) == 2 and ours[1] == f"{ours[0]}, 3 particles"
    slow = BenchRow("zpaq -m5", "whole array", 9, 1.0, 6.0, 3.0, 1.0, 2.0)
    fast = replace(slow, codec="x", compress_seconds=2.0, decompress_seconds=1.5)
    _, columns, cells = table(Bench("d", 1, 2, 2, 1, 1, (fast, slow)))
    assert columns[-2:] == ["in / zpaq", "out / zpaq"] and cells[0][-2:] == ["3.00", "2.00"]


def test_table_and_plot(model: Path, tmp_path: Path, digits: np.ndarray) -> None:
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "d.npy", (digits[:30] > 8).astype(np.uint8))
    plot = tmp_path / "plot.png"
    few = ("fit", tmp_path / "d.npy", "-o", tmp_path / "bits.safetensors", "--preset", "tiny", "--steps", 1)
    assert invoke("-q", *few).exit_code == 0
    result = invoke(
        "bench", tmp_path / "d.npy", "-m", tmp_path / "bits.safetensors", "--rivals", "zlib", "--plot", plot
    )
    assert result.exit_code == 0, result.output
    assert "packed bits" in result.stdout and "bits not used: it did not help" in " ".join(result.stdout.split())
    assert Image.open(plot).size[0] > 500


def test_bad_input(
    model: Path, tmp_path: Path, digits: np.ndarray, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "d.npy", digits[:4])
    line = ("bench", tmp_path / "d.npy", "-m", model)
    assert "expected some of" in refused(USAGE, *line, "--rivals", "rar")
    assert ".png" in refused(USAGE, *line, "--plot", tmp_path / "plot.pdf")
    assert "no such folder" in refused(USAGE, *line, "--plot", tmp_path / "gone" / "plot.png")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "zpaq" in refused(USAGE, *line, "--rivals", "zpaq")
    np.save(tmp_path / "f.npy", digits[:4] / 16)
    assert "float64" in refused(USAGE, "bench", tmp_path / "f.npy", "-m", model)
