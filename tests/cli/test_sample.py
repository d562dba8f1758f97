"""vaedensity sample and reconstruct: what they write, and what they refuse."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from vaedensity.cli.main import main
from vaedensity.model.checkpoint import load_model
from vaedensity.model.config import PRESETS

pytestmark = pytest.mark.usefixtures("no_released")
Done = Callable[..., dict[str, Any]]
Refused = Callable[..., str]
USAGE, MODEL, INTERRUPTED = 2, 4, 130
LEAST = {"latents": ((2, 1),), "widths": (4,), "blocks": 0, "sub_image_blocks": 0, "components": 1}
RNG = np.random.default_rng(3)
OTHER_DATA = {
    "two-valued": (RNG.random((40, 6, 5)) < 0.3) * np.uint8(200) + np.uint8(7),
    "rgb": RNG.integers(0, 201, (40, 5, 6, 3), dtype=np.uint8),
    "one-row": RNG.integers(0, 9, (40, 1, 7), dtype=np.uint8),
}


@pytest.fixture(scope="module", params=OTHER_DATA)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A barely fitted model of other data than grey squares, and the data."""
    folder, data = tmp_path_factory.mktemp(request.param), OTHER_DATA[request.param]
    np.save(folder / "x.npy", data)
    line = [
        "fit",
        folder / "x.npy",
        "-o",
        folder / "m.safetensors",
        "--preset",
        "tiny",
        "--steps",
        "2",
        "--device",
        "cpu",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", LEAST)
        result = CliRunner().invoke(main, [str(a) for a in line])
    assert result.exit_code == 0, result.output
    return folder / "m.safetensors", data


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode in ("L", "RGB")
        return np.asarray(image)


def bright(x: np.ndarray, data: np.ndarray) -> np.ndarray:
    """What a mosaic shows of items ``x`` of a model of ``data``."""
    return (x > 7) * 255 if data.max() == 207 else (x.astype(int) * 510 + data.max()) // (2 * int(data.max()))


def tiles(mosaic: np.ndarray, n: int, height: int, width: int) -> np.ndarray:
    """The first ``n`` tiles of a mosaic with gaps of one pixel."""
    columns, odd = divmod(mosaic.shape[1] + 1, width + 1)
    rows, odd_rows = divmod(mosaic.shape[0] + 1, height + 1)
    assert odd == odd_rows == 0 and (rows - 1) * columns < n <= rows * columns
    places = [(i // columns * (height + 1), i % columns * (width + 1)) for i in range(n)]
    return np.stack([mosaic[top : top + height, left : left + width] for top, left in places])


# sample


@pytest.mark.parametrize("n", [1, 3, 70])
def test_samples_as_an_array(n: int, model: Path, tmp_path: Path, done: Done) -> None:
    record = done("sample", model, "-n", n, "-o", tmp_path / "s.npy", "--seed", 5)
    x = np.load(tmp_path / "s.npy")
    assert x.shape == (n, 8, 8) and x.dtype == np.uint8 and x.max() <= 16
    assert (record["n"], record["shape"], record["seed"]) == (n, [8, 8], 5)
    assert record["output"] == str(tmp_path / "s.npy") and record["bytes"] == (tmp_path / "s.npy").stat().st_size
    assert len(record["model_sha256"]) == 64 and record["seconds"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["s.npy"]


def test_items_depend_on_the_seed_and_not_on_their_number(model: Path, tmp_path: Path, done: Done) -> None:
    for name, n, seed in (("a", 130, 0), ("b", 5, 0), ("c", 65, 0), ("d", 5, 1)):
        done("sample", model, "-n", n, "-o", tmp_path / f"{name}.npy", "--seed", seed)
    a, b, c, d = (np.load(tmp_path / f"{name}.npy") for name in "abcd")
    assert (a[:5] == b).all() and (a[:65] == c).all() and (b != d).any()
    assert len({item.tobytes() for item in a}) == 130


@pytest.mark.parametrize("n", [1, 2, 5, 70])
def test_samples_as_a_mosaic(n: int, model: Path, tmp_path: Path, done: Done) -> None:
    done("sample", model, "-n", n, "-o", tmp_path / "s.npy")
    done("sample", model, "-n", n, "-o", tmp_path / "s.PNG")
    mosaic, x = opened(tmp_path / "s.PNG"), np.load(tmp_path / "s.npy")
    columns = math.ceil(math.sqrt(n))
    assert mosaic.shape == (math.ceil(n / columns) * 9 - 1, columns * 9 - 1)
    assert (tiles(mosaic, n, 8, 8) == np.rint(x * (255 / 16))).all()


def test_default_number_and_what_is_said(model: Path, tmp_path: Path) -> None:
    line = ["sample", str(model), "-o", str(tmp_path / "s.npy")]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    assert "64 items of 8x8" in result.stdout and str(tmp_path / "s.npy") in result.stdout
    assert len(np.load(tmp_path / "s.npy")) == 64


def test_samples_of_other_data(other: tuple[Path, np.ndarray], tmp_path: Path, done: Done) -> None:
    model, data = other
    done("sample", model, "-n", 7, "-o", tmp_path / "s.npy")
    done("sample", model, "-n", 7, "-o", tmp_path / "s.png")
    x, mosaic = np.load(tmp_path / "s.npy"), opened(tmp_path / "s.png")
    assert x.shape == (7, *data.shape[1:]) and x.dtype == np.uint8
    assert set(x.ravel().tolist()) <= (set(data.ravel().tolist()) if data.max() == 207 else set(range(data.max() + 1)))
    assert mosaic.shape[2:] == data.shape[3:]
    assert (tiles(mosaic, 7, *data.shape[1:3]) == bright(x, data)).all()


def test_force_replaces(model: Path, tmp_path: Path, done: Done) -> None:
    (tmp_path / "s.npy").write_text("mine")
    done("sample", model, "-n", 2, "-o", tmp_path / "s.npy", "-f")
    assert len(np.load(tmp_path / "s.npy")) == 2


# reconstruct


@pytest.mark.parametrize(("n", "taken"), [(1, 1), (16, 16), (90, 70)])
def test_originals_above_their_reconstructions(
    n: int, taken: int, model: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    np.save(tmp_path / "x.npy", digits[:70])
    record = done("reconstruct", model, tmp_path / "x.npy", "-n", n, "-o", tmp_path / "r.png")
    pairs = tiles(opened(tmp_path / "r.png"), taken, 17, 8)
    assert (pairs[:, :8] == np.rint(digits[:taken] * (255 / 16))).all()
    copies = np.rint(pairs[:, 9:] * (16 / 255.0)).astype(int)
    error = np.abs(copies - digits[:taken]).mean()
    assert record["n"] == taken and record["output"] == str(tmp_path / "r.png")
    assert record["mean_absolute_error_levels"] == pytest.approx(error)
    wanted = load_model(model).float_model().reconstruct(torch.from_numpy(digits[:taken, None]))
    assert (copies == wanted[:, 0].numpy()).mean() > 0.99  # a value on the edge may round otherwise


def test_reconstructions_of_other_data(other: tuple[Path, np.ndarray], tmp_path: Path, done: Done) -> None:
    model, data = other
    np.save(tmp_path / "x.npy", data)
    record = done("reconstruct", model, tmp_path / "x.npy", "-o", tmp_path / "r.png")
    height, width = data.shape[1:3]
    pairs = tiles(opened(tmp_path / "r.png"), 16, 2 * height + 1, width)
    assert (pairs[:, :height] == bright(data[:16], data)).all() and record["mean_absolute_error_levels"] >= 0


def test_reconstruct_says_how_well(model: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["reconstruct", str(model), "digits:test", "-o", str(tmp_path / "r.png")])
    assert result.exit_code == 0, result.output
    assert "16 items above their reconstructions" in result.stdout and "of 16 levels" in result.stdout


# What is refused, before the model is read


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
@pytest.mark.parametrize("name", ["s", "s.jpg", "s.npz", "s.npy.gz", ".png"])
def test_other_suffixes(command: str, name: str, refused: Refused, tmp_path: Path) -> None:
    data = ["digits"] if command == "reconstruct" else []
    assert "expected a name ending in" in refused(USAGE, command, "gone", *data, "-o", tmp_path / name)


def test_reconstructions_are_no_array(refused: Refused, tmp_path: Path) -> None:
    assert ".png" in refused(USAGE, "reconstruct", "gone", "digits", "-o", tmp_path / "r.npy")


@pytest.mark.parametrize("command", [["sample", "gone"], ["reconstruct", "gone", "digits"]])
def test_outputs_that_cannot_be_written(command: list[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "s.png").write_text("mine")
    assert "-f" in refused(USAGE, *command, "-o", tmp_path / "s.png")
    assert "no such folder" in refused(USAGE, *command, "-o", tmp_path / "no" / "s.png")
    assert "device tpu" in refused(USAGE, *command, "-o", tmp_path / "t.png", "--device", "tpu")
    assert "no such file" in refused(MODEL, *command, "-o", tmp_path / "t.png")
    (tmp_path / "m.safetensors").write_text("hello" * 20)
    line = [command[0], tmp_path / "m.safetensors", *command[2:], "-o", tmp_path / "t.png"]
    assert "not a vaedensity model" in refused(MODEL, *line)


@pytest.mark.parametrize("n", ["0", "-3", "1.5", "many"])
@pytest.mark.parametrize("command", [["sample", "gone"], ["reconstruct", "gone", "digits"]])
def test_numbers_of_items(command: list[str], n: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*command, "-n", n, "-o", str(tmp_path / "s.png")])
    assert result.exit_code == USAGE and "-n" in result.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 8, 8)), "float64"),
        (np.zeros((0, 8, 8), np.uint8), "empty"),
        (np.zeros((3, 8, 9), np.uint8), "9x8x1"),
        (np.full((3, 8, 8), 17, np.uint8), "values up to 16"),
        (np.array(3, np.uint8), "shape ()"),
    ],
)
def test_data_that_the_model_does_not_know(
    array: np.ndarray, reason: str, refused: Refused, model: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", array)
    assert reason in refused(USAGE, "reconstruct", model, tmp_path / "x.npy", "-o", tmp_path / "r.png")


def test_missing_data(refused: Refused, model: Path, tmp_path: Path) -> None:
    assert "no such file" in refused(USAGE, "reconstruct", model, tmp_path / "gone.npy", "-o", tmp_path / "r.png")


@pytest.mark.parametrize("name", ["s.npy", "s.png"])
@pytest.mark.parametrize("force", [False, True])
def test_an_interrupted_run_leaves_nothing(
    name: str, force: bool, refused: Refused, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaedensity.api import sample

    passes = []

    def stop(*arguments: Any, **options: Any) -> Any:
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt
        return simulate(*arguments, **options)

    simulate = sample.simulate
    monkeypatch.setattr(sample, "simulate", stop)
    if force:
        (tmp_path / name).write_text("mine")
    options = ["-f"] if force else []
    line = refused(INTERRUPTED, "sample", model, "-n", 200, "-o", tmp_path / name, *options)
    assert "interrupted; nothing was written" in line and len(passes) == 2


def test_json_is_one_object(model: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["sample", str(model), "-n", "1", "-o", str(tmp_path / "s.npy"), "--json"])
    assert json.loads(result.stdout)["schema_version"] == 1 and result.stderr == ""


def test_entropy_sharpens_and_flattens(model: Path, tmp_path: Path, done: Done, refused: Refused) -> None:
    steps = []
    for fraction in (0.0, 0.6, 1.0, 1.15):
        record = done("sample", model, "-n", 32, "-o", tmp_path / "s.npy", "--entropy", fraction, "-f")
        assert record["entropy"] == fraction
        steps.append(float(np.abs(np.diff(np.load(tmp_path / "s.npy").astype(int), axis=2)).mean()))
    assert steps == sorted(steps) and steps[0] < 0.95 * steps[2]  # noise makes neighbours differ
    assert done("sample", model, "-n", 1, "-o", tmp_path / "s.npy", "-f")["entropy"] is None
    for wrong in ("nan", "inf"):
        assert "at least 0" in refused(USAGE, "sample", model, "-o", tmp_path / "t.npy", "--entropy", wrong)
    assert not (tmp_path / "t.npy").exists()
