"""Commands that must refuse: one line on stderr, the documented status, and nothing left behind."""

import errno
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vaedensity.cli.main import main
from vaedensity.coding import classical

pytestmark = pytest.mark.usefixtures("no_released")
Done = Callable[..., dict[str, Any]]
Refused = Callable[..., str]
FAILURE, USAGE, DAMAGED, MODEL, INTERRUPTED = 1, 2, 3, 4, 130
COMMAND = [sys.executable, "-m", "vaedensity.cli.main"]
NO_TRAINING = ("--preset", "tiny", "--steps", "1", "--device", "cpu")


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.fixture
def few(tmp_path: Path, digits: np.ndarray) -> Path:
    return saved(tmp_path / "few.npy", digits[:12])


# Data


def refuse_data(refused: Refused, model: Path, folder: Path, spec: object, *commands: str) -> list[str]:
    """What fit, score and compress each say of data they must refuse."""
    lines = {
        "fit": ("fit", spec, "-o", folder / "new.safetensors", *NO_TRAINING),
        "score": ("score", model, spec, "-o", folder / "new.csv"),
        "compress": ("compress", spec, "-o", folder / "new.vdz", "-m", model),
    }
    return [refused(USAGE, *lines[command]) for command in commands or lines]


@pytest.mark.parametrize(
    "name", ["missing", "missing.npy", "missing.npz", "missing.npz:x", "no/such/folder", "", "mnst"]
)
def test_missing_data(name: str, refused: Refused, model: Path, tmp_path: Path) -> None:
    for line in refuse_data(refused, model, tmp_path, name):
        assert "no such file" in line or "empty name" in line


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_images_are_refused_with_how_to_convert(
    dtype: Any, refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray
) -> None:
    spec = saved(tmp_path / "f.npy", (digits[:9] / 16).astype(dtype))
    fit, score = refuse_data(refused, model, tmp_path, spec, "fit", "score")
    for line in (fit, score):
        assert np.dtype(dtype).name in line and "np.rint(x * 255).astype(np.uint8)" in line and "f.npy" in line
    assert np.dtype(dtype).name in refuse_data(refused, model, tmp_path, spec, "compress")[0]


@pytest.mark.parametrize("shape", [(0, 8, 8), (5, 0, 8), (8, 8), (5, 8, 8, 2), ()])
def test_arrays_that_hold_no_images(shape: tuple[int, ...], refused: Refused, model: Path, tmp_path: Path) -> None:
    spec = saved(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert all("a" in line for line in refuse_data(refused, model, tmp_path, spec))


def test_fit_needs_two_items(refused: Refused, tmp_path: Path, digits: np.ndarray) -> None:
    spec = saved(tmp_path / "one.npy", digits[:1])
    assert "at least 2" in refused(USAGE, "fit", spec, "-o", tmp_path / "m.safetensors", *NO_TRAINING)


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickles_inside_array_files_are_never_run(name: str, refused: Refused, model: Path, tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], object)
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, trap)
    assert all(name in line for line in refuse_data(refused, model, tmp_path, tmp_path / name))
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert all(name in line for line in refuse_data(refused, model, tmp_path, tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def test_npz_without_the_array_asked_for(refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", images=digits[:5], labels=np.arange(5))
    for line in refuse_data(refused, model, tmp_path, f"{tmp_path}/a.npz:pictures"):
        assert "'pictures'" in line and "images, labels" in line


def test_npz_whose_array_is_not_clear(refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", left=digits[:5], right=digits[5:10])
    for line in refuse_data(refused, model, tmp_path, tmp_path / "a.npz", "fit", "score"):
        assert "which array" in line and "left" in line and "right" in line and "a.npz:NAME" in line


def test_a_single_array_under_the_name_of_several(refused: Refused, model: Path, few: Path) -> None:
    few.rename(few.with_suffix(".npz"))
    for line in refuse_data(refused, model, few.parent, few.with_suffix(".npz")):
        assert "single array" in line


def test_an_npz_damaged_inside(refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray) -> None:
    f = io.BytesIO()
    np.savez_compressed(f, x=digits[:50])
    damaged = bytearray(f.getvalue())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(damaged)
    assert all("x.npz" in line for line in refuse_data(refused, model, tmp_path, tmp_path / "x.npz"))


def test_other_files_are_no_data(refused: Refused, model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert all(".npy, .npz" in line for line in refuse_data(refused, model, tmp_path, tmp_path / "notes.txt"))


def picture(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


FOLDER_FAULTS: dict[str, tuple[Callable[[Path, np.ndarray], Any], str]] = {
    "other-size": (lambda f, d: picture(f / "z.png", d[0, :5]), "8x5"),
    "other-mode": (lambda f, d: picture(f / "z.png", np.stack([d[0]] * 3, -1)), "RGB"),
    "no-image": (lambda f, d: (f / "z.txt").write_text("hello"), "z.txt"),
    "not-what-it-says": (lambda f, d: (f / "z.png").write_text("hello"), "z.png"),
    "cut-off": (lambda f, d: (f / "z.png").write_bytes((f / "0.png").read_bytes()[:-30]), "z.png"),
    "hidden": (lambda f, d: (f / ".DS_Store").write_bytes(b"x"), ".DS_Store"),
    "jpeg": (lambda f, d: picture(f / "z.jpg", d[0]), "z.jpg"),
    "link": (lambda f, d: (f / "z.png").symlink_to(f / "0.png"), "z.png"),
    "dangling-link": (lambda f, d: (f / "z.png").symlink_to("nowhere.png"), "z.png"),
    "linked-folder": (lambda f, d: (f / "z").symlink_to(f), "z is a link"),
    "pipe": (lambda f, d: os.mkfifo(f / "z.png"), "z.png"),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_folders_with_something_that_does_not_belong(
    fault: str, refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    for i in range(3):
        picture(folder / f"{i}.png", digits[i])
    make, named = FOLDER_FAULTS[fault]
    make(folder, digits)
    if fault == "pipe":
        (folder / "0.png").unlink()  # the watch below must not read from the pipe
    for line in refuse_data(refused, model, tmp_path, folder):
        assert named in line and "pictures" in line


def test_an_empty_folder(refused: Refused, model: Path, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    assert all("void" in line and "empty" in line for line in refuse_data(refused, model, tmp_path, tmp_path / "void"))


@pytest.mark.parametrize("name", ["a:b.png", "a\\b.png"])
def test_file_names_that_could_not_be_restored_are_refused_while_compressing(
    name: str, refused: Refused, tmp_path: Path, digits: np.ndarray
) -> None:
    picture(tmp_path / "p" / name, digits[0])
    assert "rename" in refused(USAGE, "compress", tmp_path / "p", "-o", tmp_path / "a.vdz")


def test_records_are_refused_as_their_fields_would_be_lost(refused: Refused, tmp_path: Path) -> None:
    spec = saved(tmp_path / "r.npy", np.zeros(4, [("a", "i4"), ("b", "f8")]))
    assert "dtype" in refused(USAGE, "compress", spec, "-o", tmp_path / "a.vdz")


def test_unknown_splits_and_sets_that_are_not_downloaded(refused: Refused, model: Path, tmp_path: Path) -> None:
    for line in refuse_data(refused, model, tmp_path, "digits:valid"):
        assert "train and test" in line
    for name in ("mnist", "cifar100:test"):
        line = refused(USAGE, "compress", name, "-o", tmp_path / "a.vdz", "--data-root", tmp_path / "data")
        assert "--data-root or --download" in line and name in line


def test_inputs_that_would_be_restored_over_each_other(refused: Refused, few: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    saved(tmp_path / "b" / "few.npy", np.zeros(3))
    assert "few.npy" in refused(USAGE, "compress", few, tmp_path / "b" / "few.npy", "-o", tmp_path / "a.vdz")


def test_values_that_the_model_was_not_fitted_to(
    refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray
) -> None:
    array = digits[:5].copy()
    array[3, 0, 0] = 17
    assert "item 3" in refused(USAGE, "score", model, saved(tmp_path / "a.npy", array))


# Models


def altered_model(model: Path, path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Path:
    """A copy of a model file whose tensors and record ``change`` has altered."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(model, "pt") as f:
        tensors, record = {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["vaedensity"])
    change(tensors, record)
    save_file(tensors, path, metadata={"vaedensity": json.dumps(record)})
    return path


def poison(tensors: dict[str, Any], value: float) -> None:
    name = next(key for key in tensors if key.startswith("float/"))
    tensors[name].view(-1)[0] = value


MODEL_FAULTS: dict[str, Callable[[Path, Path], Any]] = {
    "missing": lambda model, path: None,
    "folder": lambda model, path: path.mkdir(),
    "empty": lambda model, path: path.write_bytes(b""),
    "random": lambda model, path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "an-array": lambda model, path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(100)),
    "truncated": lambda model, path: path.write_bytes(model.read_bytes()[:-1000]),
    "half-a-header": lambda model, path: path.write_bytes(model.read_bytes()[:100]),
    "nan": lambda model, path: altered_model(model, path, lambda t, r: poison(t, float("nan"))),
    "infinity": lambda model, path: altered_model(model, path, lambda t, r: poison(t, float("inf"))),
    "no-start": lambda model, path: altered_model(model, path, lambda t, r: t.pop("integer/start")),
    "other-format": lambda model, path: altered_model(model, path, lambda t, r: r.update(format=99)),
    "other-preset": lambda model, path: altered_model(model, path, lambda t, r: r["config"].update(widths=[40, 24])),
    "no-config": lambda model, path: altered_model(model, path, lambda t, r: r.pop("config")),
    "odd-config": lambda model, path: altered_model(model, path, lambda t, r: r["config"].update(height="8")),
    "odd-values": lambda model, path: altered_model(model, path, lambda t, r: r.update(values=[3, 3])),
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
        assert "pass its file with -m" in refused(MODEL, *command)
        line = refused(MODEL, *command, "-m", other_model)
        assert model.stem in line and other_model.stem in line and line.count("sha256") == 2
        assert "no such file" in refused(MODEL, *command, "-m", tmp_path / "gone.safetensors")


# Options and outputs


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--steps", "0"), "--steps"),
        (("--steps", "-5"), "--steps"),
        (("--epochs", "nan"), "--epochs"),
        (("--epochs", "0"), "--epochs"),
        (("--budget", "0s"), "--budget"),
        (("--steps", "5", "--epochs", "2"), "--steps and --epochs"),
        (("--steps", "5", "--valid-fraction", "0"), "--valid-fraction"),
        (("--steps", "5", "--valid-fraction", "nan"), "--valid-fraction"),
        (("--steps", "5", "--device", "cuda:99"), "--device"),
        (("--steps", "5", "--device", "tpu"), "--device"),
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
def test_fit_options_that_click_refuses(
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


def test_resume_without_a_saved_run(refused: Refused, few: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors.metrics.jsonl").touch()
    line = refused(USAGE, "fit", few, "-o", tmp_path / "m.safetensors", *NO_TRAINING, "--resume")
    assert "no training state" in line


def test_resume_without_a_saved_run_leaves_no_file(refused: Refused, few: Path, tmp_path: Path) -> None:
    refused(USAGE, "fit", few, "-o", tmp_path / "m.safetensors", *NO_TRAINING, "--resume")


def test_fit_to_images_beyond_the_limit(refused: Refused, tmp_path: Path) -> None:
    spec = saved(tmp_path / "wide.npy", np.zeros((3, 2, 513), np.uint8))
    assert "512" in refused(USAGE, "fit", spec, "-o", tmp_path / "m.safetensors", *NO_TRAINING)


# A full disk


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Files written under a partial name hold ``after`` bytes and no more."""

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(memoryview(data).cast("B")) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data) or 0

    def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if ".partial" not in str(path):
            return open(path, mode, *rest, **options)
        raw = Full(path, mode.replace("b", ""))
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    for module in ("atomic", "data.restore", "tasks.rows"):
        monkeypatch.setattr(f"vaedensity.{module}.open", opened, raising=False)


@pytest.mark.parametrize("after", [0, 1500])
def test_a_full_disk(
    after: int,
    refused: Refused,
    model: Path,
    tmp_path: Path,
    digits: np.ndarray,
    done: Done,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = saved(tmp_path / "d.npy", digits[:300])
    done("compress", data, "-o", tmp_path / "a.vdz")
    fill_disk(monkeypatch, after)
    for command in (
        ("compress", data, "-o", tmp_path / "b.vdz"),
        ("compress", data, "-o", tmp_path / "a.vdz", "-f"),
        ("decompress", tmp_path / "a.vdz", "-o", tmp_path, "-f"),
        ("decompress", tmp_path / "a.vdz", "-o", tmp_path / "new"),
        ("score", model, data, "-k", "1", "-o", tmp_path / "rows.csv"),
        ("score", model, data, "-k", "1", "-o", tmp_path / "rows.jsonl"),
    ):
        assert "No space left on device" in refused(FAILURE, *command)


def test_files_that_the_system_does_not_let_grow(tmp_path: Path, unchanged: Callable[..., Any]) -> None:
    resource = pytest.importorskip("resource")
    data = saved(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 2**60, 50_000))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    with unchanged(tmp_path):
        line = [*COMMAND, "-q", "compress", str(data), "-o", str(tmp_path / "a.vdz")]
        run = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert run.returncode == FAILURE and run.stdout == ""
    assert run.stderr.startswith("vaedensity: cannot write") and run.stderr.count("\n") == 1


def test_a_training_state_that_finds_no_room(few: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    line = [*COMMAND, "-q", "fit", str(few), "-o", str(tmp_path / "m.safetensors"), *NO_TRAINING]
    run = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert (run.returncode, run.stdout) == (FAILURE, "")
    assert run.stderr.startswith("vaedensity: ") and run.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("missing", [1, 400])
def test_a_disk_that_fills_up_with_the_last_bytes_of_an_array(
    missing: int, tmp_path: Path, done: Done, unchanged: Callable[..., Any]
) -> None:
    resource = pytest.importorskip("resource")
    data = saved(tmp_path / "x.npy", np.arange(300))
    done("compress", data, "-o", tmp_path / "a.vdz")
    size = data.stat().st_size - missing

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    with unchanged(tmp_path):
        line = [*COMMAND, "decompress", str(tmp_path / "a.vdz"), "-o", str(tmp_path / "out")]
        run = subprocess.run(line, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert (run.returncode, run.stdout) == (FAILURE, "")
    assert run.stderr.startswith("vaedensity: cannot write") and run.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_answer_that_cannot_be_printed() -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([*COMMAND, "models"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert run.returncode == FAILURE
    assert run.stderr.startswith("vaedensity: ") and "No space left" in run.stderr and run.stderr.count("\n") == 1


def test_a_reader_that_goes_away_early(model_archive: Path) -> None:
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "w") as closed:
        line = [*COMMAND, "list", str(model_archive)]
        run = subprocess.run(line, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (FAILURE, "")


# Ctrl-C


def interrupt(arguments: list[object], ready: Callable[[str], bool]) -> tuple[int, str]:
    """Start a command, send SIGINT once ``ready`` (given its stderr so far); status and stderr."""
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + 120
        try:
            while not ready(Path(log.name).read_text()):
                assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.003)
            process.send_signal(signal.SIGINT)
            process.wait(120)
        finally:
            process.kill()
            process.wait()
        return process.returncode, Path(log.name).read_text()


@pytest.mark.parametrize("force", [False, True])
def test_ctrl_c_while_compressing(force: bool, model: Path, tmp_path: Path, unchanged: Callable[..., Any]) -> None:
    if force:
        (tmp_path / "a.vdz").write_bytes(b"mine")
    with unchanged(tmp_path):
        status, said = interrupt(
            ["compress", "digits", "-o", tmp_path / "a.vdz", "-m", model, *(["-f"] if force else [])],
            lambda said: any(tmp_path.glob(".*.partial")),
        )
    assert status == INTERRUPTED
    assert said == "vaedensity: interrupted; nothing was written\n"


def test_ctrl_c_while_decompressing(
    model: Path, tmp_path: Path, digits: np.ndarray, done: Done, unchanged: Callable[..., Any]
) -> None:
    data = saved(tmp_path / "d.npy", digits[:400])
    done("compress", data, "-o", tmp_path / "a.vdz", "-m", model, "--no-verify")
    with unchanged(tmp_path):
        status, said = interrupt(
            ["decompress", tmp_path / "a.vdz", "-o", tmp_path / "out" / "deep", "-m", model],
            lambda said: any(tmp_path.glob("out/deep/.*.partial")),
        )
    assert status == INTERRUPTED
    assert said == "vaedensity: interrupted; nothing was written\n"


def test_ctrl_c_while_fitting_saves_the_run_and_resume_continues_it(tmp_path: Path, done: Done) -> None:
    out = tmp_path / "m.safetensors"
    line = ["fit", "digits:train", "-o", out, "--preset", "tiny", "--batch-size", "32", "--device", "cpu"]
    status, said = interrupt([*line, "--steps", "100000"], lambda said: "step 1 " in said)
    assert status == INTERRUPTED
    last = said.splitlines()[-1]
    found = re.fullmatch(r"vaedensity: interrupted at step (\d+); state saved to (.*), go on with --resume", last)
    assert found, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors.metrics.jsonl", "m.safetensors.state"]
    assert Path(found[2]) == tmp_path / "m.safetensors.state" and int(found[1]) >= 1
    more = int(found[1]) + 3
    assert done(*line, "--steps", more, "--resume")["steps"] == more
    steps = [json.loads(text)["step"] for text in (tmp_path / "m.safetensors.metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "m.safetensors.metrics.jsonl"]


def test_ctrl_c_before_anything_was_done(refused: Refused, few: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vaedensity.data.load.load", stop)
    assert "interrupted" in refused(INTERRUPTED, "compress", few, "-o", tmp_path / "a.vdz")


# Damaged archives


@pytest.fixture
def archive(few: Path, done: Done) -> Path:
    done("compress", few, "-o", few.parent / "good.vdz")
    few.unlink()
    return few.parent / "good.vdz"


def refuse_archive(refused: Refused, path: Path, *options: object) -> set[str]:
    """What decompress (into a new and an old folder) and test say of a damaged archive."""
    return {
        refused(DAMAGED, "decompress", path, "-o", path.parent / "new" / "folder", *options),
        refused(DAMAGED, "decompress", path, "-o", path.parent, "-f", *options),
        refused(DAMAGED, "test", path, *options),
    }


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "text": lambda b: b"hello" * 40,
    "first-byte": lambda b: b"\x88" + b[1:],
    "text-mode-transfer": lambda b: b.replace(b"\r\n", b"\n"),
    "other-version": lambda b: b[:8] + b"\x02\x00" + b[10:],
    "half": lambda b: b[: len(b) // 2],
    "last-byte-cut": lambda b: b[:-1],
    "byte-appended": lambda b: b + b"\0",
    "block-altered": lambda b: b[:20] + bytes([b[20] ^ 1]) + b[21:],
    "directory-altered": lambda b: b[:-40] + bytes([b[-40] ^ 1]) + b[-39:],
    "tail-altered": lambda b: b[:-24] + b"\xff" * 8 + b[-16:],
    "byte-missing": lambda b: b[:30] + b[31:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_archives(damage: str, refused: Refused, archive: Path) -> None:
    archive.write_bytes(DAMAGE[damage](archive.read_bytes()))
    assert all("good.vdz" in line for line in refuse_archive(refused, archive))


@pytest.mark.parametrize("at", range(8))
def test_a_flipped_bit_anywhere_in_a_model_archive(
    at: int, refused: Refused, model: Path, model_archive: Path, tmp_path: Path
) -> None:
    whole = bytearray(model_archive.read_bytes())
    whole[at * (len(whole) - 1) // 7] ^= 1 << at
    (tmp_path / "flipped.vdz").write_bytes(whole)
    assert len(refuse_archive(refused, tmp_path / "flipped.vdz", "-m", model)) >= 1


def test_test_names_each_damaged_archive_and_goes_on(refused: Refused, archive: Path) -> None:
    bad = archive.with_name("bad.vdz")
    bad.write_bytes(archive.read_bytes()[:-1])
    result = CliRunner().invoke(main, ["test", str(bad), str(archive), str(bad)])
    assert result.exit_code == DAMAGED and result.stderr.count("bad.vdz") == 2 and "ok" in result.stdout


def test_archives_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    for command in ("decompress", "test", "list"):
        assert "cannot be read" in refused(USAGE, command, tmp_path / "gone.vdz")
        assert "cannot be read" in refused(USAGE, command, tmp_path)


# Archives made to do harm


def test_the_hostile_writer_can_write_a_good_archive(hostile: Callable[..., Path], tmp_path: Path, done: Done) -> None:
    done("decompress", hostile(), "-o", tmp_path / "out")
    assert np.load(tmp_path / "out" / "x.npy").tolist() == np.arange(12).reshape(4, 3).tolist()


UNSAFE = [
    "../x.npy",
    "/tmp/x.npy",
    "a/../../x.npy",
    "..",
    ".",
    "",
    "a\\..\\x.npy",
    "c:x.npy",
    "x\0.npy",
    5,
    None,
    ["x"],
]


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_would_leave_the_folder(name: Any, refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(note={"name": name}))


@pytest.mark.parametrize("name", ["../0.png", "/tmp/0.png", "a/../../0.png", "..\\0.png", "", 5])
def test_file_names_that_would_leave_the_folder(name: Any, refused: Refused, hostile: Callable[..., Path]) -> None:
    note = {"kind": "folder", "name": "p", "mode": "L", "files": [name]}
    refuse_archive(
        refused, hostile(note=note, entry={"shape": [1, 4, 3]}, blocks=[(classical.RAW, 1, bytes(range(12)))])
    )


@pytest.mark.parametrize(
    "note",
    [
        {"kind": "tar"},
        {"kind": None},
        {"kind": "folder"},
        {"kind": "folder", "files": "abcd", "mode": "L"},
        {"files": ["a.png"]},
        {"arrays": ["x"]},
        {"arrays": {}},
        {"arrays": {"y": "y"}},
        {"arrays": {"x": 5}},
        {"arrays": {"x": "a\0b"}},
        {"arrays": {"x": "\ud800"}, "kind": "npz"},
        {"arrays": "x"},
    ],
)
def test_notes_that_are_wrong(note: dict[str, Any], refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(note=note))


@pytest.mark.parametrize(
    "note", [{}, {"collections": 5}, {"collections": [5]}, {"collections": {"a": 1}}, [], "x", None]
)
def test_notes_of_the_wrong_kind(note: Any, refused: Refused, hostile: Callable[..., Path]) -> None:
    path = hostile()
    assert path.exists()

    def rewrite(**changes: Any) -> Path:
        return hostile(**changes)

    for command in ("decompress", "test"):
        refused(DAMAGED, command, rewrite_note(rewrite, note))


def rewrite_note(hostile: Callable[..., Path], note: Any) -> Path:
    """The hostile archive with its whole note replaced."""
    import zlib

    from vaedensity.coding import container, varint

    path = hostile()
    with open(path, "rb") as f:
        directory = container.read_directory(f, "x")
    head = container.HEAD.pack(container.MAGIC, container.VERSION, 0)
    text = json.dumps(directory.record | {"note": note}).encode()
    packed = zlib.compress(varint.put(len(text)) + text + container.pack_index(directory.blocks))
    tail = container.TAIL.pack(12, len(packed), zlib.crc32(packed, zlib.crc32(head)), container.END_MAGIC)
    path.write_bytes(head + bytes(range(12)) + packed + tail)
    return path


@pytest.mark.parametrize("files", [["0.png"], ["0.png"] * 4, ["a.png", "a.png/b.png", "c.png", "d.png"], ["0.exe"] * 4])
def test_folders_whose_files_do_not_fit(files: list[str], refused: Refused, hostile: Callable[..., Path]) -> None:
    note = {"kind": "folder", "name": "p", "mode": "L", "files": files}
    path = hostile(note=note, entry={"shape": [4, 1, 3]})
    refused(DAMAGED, "decompress", path, "-o", path.parent / "out")


@pytest.mark.parametrize(
    ("entry", "mode"),
    [
        ({"shape": [4, 3]}, "L"),
        ({"shape": [4, 1, 3]}, "RGB"),
        ({"shape": [4, 1, 1, 3]}, "L"),
        ({"shape": [4, 1, 3], "dtype": "|i1"}, "L"),
        ({"shape": [4, 1, 3]}, "P"),
        ({"shape": [4, 1, 3]}, {"L": 1}),
    ],
)
def test_folders_whose_arrays_are_no_images(
    entry: dict[str, Any], mode: Any, refused: Refused, hostile: Callable[..., Path]
) -> None:
    note = {"kind": "folder", "name": "p", "mode": mode, "files": [f"{i}.png" for i in range(4)]}
    path = hostile(note=note, entry=entry)
    refused(DAMAGED, "decompress", path, "-o", path.parent / "out")


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [5, 3]},
        {"shape": [4, 4]},
        {"shape": [2, 2, 3]},
        {"shape": [-4, -3]},
        {"shape": [4.0, 3]},
        {"shape": [True, 12]},
        {"shape": 12},
        {"shape": "43"},
        {"shape": None},
        {"shape": [1] * 40},
        {"shape": [4, 2**60]},
        {"shape": [2**62, 2**62]},
        {"dtype": "O"},
        {"dtype": "|O8"},
        {"dtype": "f4,O"},
        {"dtype": "<f8"},
        {"dtype": "nonsense"},
        {"dtype": ["<f8"]},
        {"dtype": None},
        {"name": 5},
        {"name": "y"},
        {"blocks": 0},
        {"blocks": 2},
        {"blocks": -1},
        {"blocks": "1"},
        {"layout": "NHW"},
        {"layout": "XYZ"},
        {"layout": 5},
    ],
)
def test_arrays_described_wrongly(entry: dict[str, Any], refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(entry=entry))


@pytest.mark.parametrize("dtype", [",", "(1,", "4)O"])
def test_dtype_texts_that_numpy_cannot_parse(dtype: str, refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(entry={"dtype": dtype}))


@pytest.mark.parametrize("shape", [[2**47], [1, 2**47], [2**40, 1]])
def test_arrays_larger_than_memory_are_refused_before_anything_is_written(
    shape: list[int], hostile: Callable[..., Path], tmp_path: Path, unchanged: Callable[..., Any]
) -> None:
    path = hostile(entry={"shape": shape}, blocks=[(classical.RAW, shape[0], bytes(12))])
    with unchanged(tmp_path):
        result = CliRunner().invoke(main, ["decompress", str(path), "-o", str(tmp_path / "out")])
    assert result.exit_code in (FAILURE, DAMAGED)  # a system that promises any memory gets as far as the block
    assert result.stderr.startswith("vaedensity: ") and result.stderr.count("\n") == 1


def bomb() -> bytes:
    """A megabyte of zeros in few bytes."""
    coder, payload = classical.encode(bytes(1 << 20))
    assert coder != classical.RAW and len(payload) < 2000
    return payload


DATA = bytes(range(12))
BLOCKS: dict[str, list[tuple[int, int, bytes]]] = {
    "none": [],
    "too-few-items": [(classical.RAW, 3, DATA[:9])],
    "too-many-items": [(classical.RAW, 5, DATA + bytes(3))],
    "two-for-one": [(classical.RAW, 2, DATA[:6]), (classical.RAW, 2, DATA[6:])],
    "short": [(classical.RAW, 4, DATA[:-1])],
    "long": [(classical.RAW, 4, DATA + b"\0")],
    "other-data": [(classical.RAW, 4, DATA[::-1])],
    "no-deflate": [(classical.DEFLATE, 4, DATA)],
    "no-lzma": [(classical.LZMA2, 4, DATA)],
    "bomb": [(classical.encode(bytes(1 << 20))[0], 4, bomb())],
    "unknown-coder": [(200, 4, DATA)],
    "model-coder-without-model": [(16, 4, DATA)],
    "particles-in-the-first-version": [(17, 4, DATA)],
    "parts-in-the-first-version": [(18, 4, DATA)],
    "parts-and-particles-in-the-first-version": [(21, 4, DATA)],
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_that_do_not_add_up(kind: str, refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(blocks=BLOCKS[kind]))


def test_a_block_beyond_the_arrays(refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(arrays=[]))


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "00"},
        {"sha256": 5},
        {"arrays": 5},
        {"arrays": ["x"]},
        {"model": "x"},
        {"model": {"name": 5}},
        {"model": {"name": "x", "sha256": "00", "particles": 0}},
        {"model": {"name": "x", "sha256": "00", "particles": 257}},
        {"model": {"name": "x", "sha256": "00", "particles": 2.0}},
        {"model": {"name": "x", "sha256": "00", "particles": True}},
    ],
)
def test_records_that_are_wrong(changes: dict[str, Any], refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(**changes))


@pytest.mark.parametrize("payload", [b"", b"\0", b"\1\0\4", b"\1\0\1" + bytes(40), b"\xff" * 60, b"\1\1\1abcdefgh"])
def test_model_blocks_of_nonsense(payload: bytes, refused: Refused, model: Path, hostile: Callable[..., Path]) -> None:
    from vaedensity.model.checkpoint import load_model

    path = hostile(
        entry={"shape": [2, 8, 8], "layout": "NHW"},
        blocks=[(16, 2, payload)],
        model={"sha256": load_model(model).network_sha256, "name": "m"},
    )
    refuse_archive(refused, path, "-m", model)


@pytest.mark.parametrize(
    "changes",
    [
        {"entry": {"shape": 5}},
        {"entry": {"shape": ["x"]}},
        {"entry": {"shape": None}},
        {"note": {"files": 5}},
        {"model": "x"},
        {"model": {"name": "x"}},
        {"model": []},
        {"arrays": 5},
        {"arrays": ["x"]},
        {"note": {"name": "../x"}, "arrays": None},
    ],
)
@pytest.mark.parametrize("command", ["list", "info"])
def test_list_and_info_of_archives_that_make_no_sense(
    changes: dict[str, Any], command: str, refused: Refused, hostile: Callable[..., Path]
) -> None:
    assert "hostile.vdz" in refused(DAMAGED, command, hostile(**changes))


# What nobody foresaw


def test_memory_that_runs_out(refused: Refused, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("vaedensity.tasks.packing.write_archive", greedy)
    assert "9 TiB" in refused(FAILURE, "compress", few, "-o", tmp_path / "a.vdz")


def test_verification_that_fails_leaves_no_archive(
    refused: Refused, model: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaedensity.coding import chains

    decode = chains.decode_chains

    def inexact(*arguments: Any, **options: Any) -> Any:
        chain = decode(*arguments, **options)
        chain[0][0] ^= 1
        return chain

    monkeypatch.setattr("vaedensity.coding.chains.decode_chains", inexact)
    line = refused(FAILURE, "compress", few, "-o", tmp_path / "a.vdz", "-m", model)
    assert "nothing was written" in line
