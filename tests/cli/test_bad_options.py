"""Options and outputs that commands must reject: one line on stderr, and what was there stays as it was."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rejections import FAILURE, NO_TRAINING, USAGE, Done, Refused, saved

from vaedensity.cli.main import main

pytestmark = pytest.mark.usefixtures("no_released")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--steps", "0"), "steps"),
        (("--steps", "-5"), "steps"),
        (("--epochs", "nan"), "epochs"),
        (("--epochs", "0"), "epochs"),
        (("--budget", "0s"), "budget"),
        (("--steps", "5", "--epochs", "2"), "steps and epochs"),
        (("--steps", "5", "--valid-fraction", "0"), "valid_fraction"),
        (("--steps", "5", "--valid-fraction", "nan"), "valid_fraction"),
        (("--steps", "5", "--device", "cuda:99"), "device"),
        (("--steps", "5", "--device", "tpu"), "device"),
    ],
)
def test_fit_options_that_make_no_sense(
    options: tuple[str, ...], named: str, refused: Refused, few: Path, tmp_path: Path
) -> None:
    assert named in refused(USAGE, "fit", few, "-o", tmp_path / "m.safetensors", "--preset", "tiny", *options)


@pytest.mark.parametrize(
    "options",
    [
        ("--budget", "soon"),
        ("--budget", "-5s"),
        ("--epochs", "inf"),
        ("--seed", "-1"),
        ("--seed", str(2**70)),
        ("--batch-size", "0"),
        ("--rate", "0"),
        ("--preset", "huge"),
    ],
)
def test_fit_options_that_click_rejects(
    options: tuple[str, ...], few: Path, tmp_path: Path, unchanged: Callable[..., Any]
) -> None:
    with unchanged(tmp_path):
        line = ["fit", str(few), "-o", str(tmp_path / "m.safetensors"), "--device", "cpu", *options]
        result = CliRunner().invoke(main, line)
    assert result.exit_code == 2 and options[0] in result.stderr and "Usage:" in result.stderr


def test_outputs_that_exist_stay_as_they_are(
    refused: Refused, model: Path, few: Path, tmp_path: Path, done: Done
) -> None:
    for name in ("m.safetensors", "rows.csv", "a.vdz"):
        (tmp_path / name).write_bytes(b"mine")
    for line in (
        refused(USAGE, "fit", few, "-o", tmp_path / "m.safetensors", *NO_TRAINING),
        refused(USAGE, "score", model, few, "-o", tmp_path / "rows.csv"),
        refused(USAGE, "compress", few, "-o", tmp_path / "a.vdz"),
    ):
        assert "exists" in line and "-f" in line
    done("compress", few, "-o", tmp_path / "b.vdz")
    assert "few.npy exists" in refused(USAGE, "decompress", tmp_path / "b.vdz", "-o", tmp_path)


def test_a_dangling_link_counts_as_existing(refused: Refused, few: Path, tmp_path: Path) -> None:
    (tmp_path / "a.vdz").symlink_to("elsewhere")
    assert "exists" in refused(USAGE, "compress", few, "-o", tmp_path / "a.vdz")


def test_one_existing_output_of_several_stops_all(refused: Refused, few: Path, tmp_path: Path, done: Done) -> None:
    saved(tmp_path / "more.npy", np.arange(5))
    done("compress", few, tmp_path / "more.npy", "-o", tmp_path / "a.vdz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "more.npy").write_bytes(b"mine")
    assert "more.npy exists" in refused(USAGE, "decompress", tmp_path / "a.vdz", "-o", tmp_path / "out")


def test_outputs_in_a_folder_that_is_not_there(refused: Refused, model: Path, few: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for line in (
        refused(USAGE, "fit", few, "-o", gone / "m.safetensors", *NO_TRAINING),
        refused(USAGE, "score", model, few, "-o", gone / "rows.csv"),
        refused(USAGE, "compress", few, "-o", gone / "a.vdz"),
    ):
        assert "gone: no such folder" in line


def test_devices_and_pipes_are_never_replaced(refused: Refused, model: Path, few: Path, tmp_path: Path) -> None:
    pipe = tmp_path.parent / f"{tmp_path.name}-pipe.csv"
    os.mkfifo(pipe)
    for out in ("/dev/null", "/dev/full", pipe):
        assert "device or pipe" in refused(USAGE, "compress", few, "-o", out, "-f")
    assert "device or pipe" in refused(USAGE, "score", model, few, "-o", pipe, "-f")
    assert pipe.is_fifo() and Path("/dev/null").is_char_device()


def test_rows_of_another_kind(refused: Refused, model: Path, few: Path, tmp_path: Path) -> None:
    assert ".csv, .jsonl, .parquet" in refused(USAGE, "score", model, few, "-o", tmp_path / "rows.txt")


def test_restoring_below_a_file(refused: Refused, few: Path, tmp_path: Path, done: Done) -> None:
    done("compress", few, "-o", tmp_path / "a.vdz")
    assert "cannot write" in refused(FAILURE, "decompress", tmp_path / "a.vdz", "-o", few / "below")


@pytest.mark.parametrize("metrics", [True, False])
def test_resume_without_a_saved_run(metrics: bool, refused: Refused, few: Path, tmp_path: Path) -> None:
    if metrics:
        (tmp_path / "m.safetensors.metrics.jsonl").touch()
    line = refused(USAGE, "fit", few, "-o", tmp_path / "m.safetensors", *NO_TRAINING, "--resume")
    assert "no training state" in line


def test_fit_to_images_beyond_the_limit(refused: Refused, tmp_path: Path) -> None:
    spec = saved(tmp_path / "wide.npy", np.zeros((3, 2, 513), np.uint8))
    assert "512" in refused(USAGE, "fit", spec, "-o", tmp_path / "m.safetensors", *NO_TRAINING)
