"""Commands that go well: what they print, what they write, and that everything comes back as it was."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vaedensity import __version__
from vaedensity.cli.main import COMMANDS, main

pytestmark = pytest.mark.usefixtures("no_released")
Done = Callable[..., dict[str, Any]]
RNG = np.random.default_rng(11)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# The command line as such


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules that a run of the command line imports."""
    code = (
        "import sys\n"
        "from vaedensity.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "sys.exit(status)"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_neither_torch_nor_numpy(command: str) -> None:
    modules = loaded_by(*filter(None, [command]), "--help")
    assert "vaedensity" in modules
    assert not modules & {"torch", "torchvision", "numpy", "constriction", "PIL"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_names_its_options(command: str) -> None:
    result = CliRunner().invoke(main, [command, "-h"])
    assert result.exit_code == 0 and result.stderr == ""
    assert f"{command} [OPTIONS]" in result.stdout and "--json" in result.stdout


def test_help_names_every_command_and_every_exit_status() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(f"\n  {command} " in result.stdout for command in COMMANDS)
    for status in ("0 fine", "1 failure", "2 usage", "3 damaged", "4 model", "130 interrupted"):
        assert status in " ".join(result.stdout.split())


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0 and result.stdout.split()[-1] == __version__


@pytest.mark.parametrize("arguments", [["unknown"], ["compress"], ["fit", "digits"], ["score"], ["list"]])
def test_usage_errors_have_status_2_and_say_nothing_on_stdout(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and result.stdout == "" and "Usage:" in result.stderr


# fit, score, info, models


def test_fit_record(fitted: tuple[Path, dict[str, Any]]) -> None:
    path, record = fitted
    assert record["schema_version"] == 1
    assert {"steps", "epochs", "seconds", "valid_bits_per_dim", "parameters", "device", "model"} <= set(record)
    assert record["steps"] == 120 and record["model"] == str(path) and record["device"] == "cpu"
    assert 0 < record["valid_bits_per_dim"] < math.log2(17)
    assert record["epochs"] == pytest.approx(120 * 32 / 1425, rel=0.01)
    assert record["parameters"] > 1000 and 0 < record["seconds"] < 600
    assert path.is_file() and not list(path.parent.glob("*.state*"))


def test_fit_without_json_talks_of_the_same_things(tmp_path: Path, digits: np.ndarray) -> None:
    np.save(tmp_path / "few.npy", (digits[:40, :3, :2] > 8) * np.uint8(255))
    out = tmp_path / "few.safetensors"
    line = ["fit", f"{tmp_path}/few.npy", "-o", str(out), "--preset", "tiny", "--steps", "1", "--device", "cpu"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    assert str(out) in result.stdout and "1 steps" in result.stdout and "bits/dim" in result.stdout
    assert "read as 40 grey images of 3x2; 38 to fit, 2 to validate, 2 levels" in result.stderr
    quiet = CliRunner().invoke(main, ["-q", *line, "-f"])
    assert quiet.exit_code == 0 and quiet.stderr == ""


def test_score_record(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    np.save(tmp_path / "d.npy", digits[1500:1540])
    record = done("score", model, tmp_path / "d.npy", "-k", 8)
    keys = {"n", "dims", "samples", "log_prob_nats", "standard_error_nats", "bits_per_dim", "elbo_bits_per_dim"}
    assert keys | {"estimator", "kind", "model_sha256", "seconds"} <= set(record)
    assert (record["n"], record["dims"], record["samples"]) == (40, 64, 8)
    assert (record["estimator"], record["kind"]) == ("importance", "lower bound")
    assert record["bits_per_dim"] == pytest.approx(-record["log_prob_nats"] / 64 / math.log(2))
    assert 0 < record["bits_per_dim"] < record["elbo_bits_per_dim"] < math.log2(17)
    assert record["standard_error_nats"] > 0
    assert len(record["model_sha256"]) == 64


def test_info_of_a_model(model: Path, done: Done) -> None:
    record = done("info", model)
    assert record["type"] == "model" and record["bytes"] == model.stat().st_size
    assert (record["config"]["height"], record["config"]["width"], record["config"]["levels"]) == (8, 8, 17)
    assert record["card"]["data"] == "digits:train" and record["card"]["steps"] == 120


def test_models_without_any(done: Done) -> None:
    assert done("models") == {"models": []}
    assert "no released models" in CliRunner().invoke(main, ["models"]).stdout


def test_a_released_model_is_listed_found_by_name_and_chosen(
    model: Path, model_archive: Path, tmp_path: Path, digits: np.ndarray, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: model.parent)
    (row,) = done("models")["models"]
    assert (row["name"], row["shape"], row["levels"]) == (model.stem, [8, 8, 1], 17)
    assert done("info", model.stem)["model"] == str(model)
    np.save(tmp_path / "d.npy", digits[:60])
    assert done("compress", tmp_path / "d.npy", "-o", tmp_path / "d.vdz")["model"] == model.stem
    done("decompress", tmp_path / "d.vdz", "-o", tmp_path / "out")  # needs no -m
    assert same(np.load(tmp_path / "out" / "d.npy"), digits[:60])
    assert done("test", model_archive)["archives"][0]["ok"] is True


# compress


def check_compress_record(record: dict[str, Any], archive: Path, items: int, dims: int, bytes_raw: int) -> None:
    assert (record["items"], record["dims"], record["bytes_raw"]) == (items, dims, bytes_raw)
    assert record["bytes_out"] == archive.stat().st_size
    assert record["bits_per_dim"] == pytest.approx(8 * record["bytes_out"] / (items * dims))
    assert set(record["overhead_bytes"]) == {"header", "index", "initial_bits", "coder_ends"}
    assert record["overhead_bytes"]["header"] > 0 and record["seconds"] >= 0


def test_compress_record_with_a_model(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    np.save(tmp_path / "d.npy", digits[:80])
    record = done("compress", tmp_path / "d.npy", "-o", tmp_path / "d.vdz", "-m", model)
    check_compress_record(record, tmp_path / "d.vdz", 80, 64, 80 * 64)
    assert record["model"] == model.stem and record["model_bytes"] == model.stat().st_size
    assert (record["model_items"], record["fallback_blocks"]) == (80, 0)
    assert 0 < record["expected_bits_per_dim"] < record["bits_per_dim"] < 8
    overhead = record["overhead_bytes"]
    parts = sum(overhead.values()) + record["expected_bits_per_dim"] * 80 * 64 / 8
    assert parts == pytest.approx(record["bytes_out"], abs=12)  # head, index and coder words in whole bytes


def test_compress_record_without_a_model(tmp_path: Path, done: Done) -> None:
    array = RNG.integers(0, 5, (30, 7))
    np.save(tmp_path / "a.npy", array)
    record = done("compress", tmp_path / "a.npy", "-o", tmp_path / "a.vdz")
    check_compress_record(record, tmp_path / "a.vdz", 30, 7, array.nbytes)
    assert record["model"] is None and record["model_bytes"] == 0 and record["expected_bits_per_dim"] is None
    assert record["fallback_blocks"] == 1


def test_lockstep_and_threads_do_not_change_what_is_restored(
    model: Path, model_archive: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    done("decompress", model_archive, "-m", model, "-o", tmp_path, "--lockstep", 1, "--threads", 2)
    assert same(np.load(tmp_path / "digits.npy"), digits[:120])


def test_force_replaces_outputs(tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    np.save(tmp_path / "d.npy", digits[:5])
    for name in ("a.vdz", "out/d.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"old")
    done("compress", tmp_path / "d.npy", "-o", tmp_path / "a.vdz", "-f")
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out", "-f")
    assert same(np.load(tmp_path / "out" / "d.npy"), digits[:5])
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.vdz", "d.npy", "d.npy", "out"]


def test_decompress_restores_into_the_current_folder_by_default(
    tmp_path: Path, digits: np.ndarray, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "d.npy", digits[:5])
    done("compress", tmp_path / "d.npy", "-o", tmp_path / "a.vdz")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert done("decompress", "../a.vdz")["restored"] == ["d.npy"]
    assert same(np.load("d.npy"), digits[:5])


# Round trips


def round_trip(done: Done, folder: Path, *inputs: object, model: Path | None = None) -> Path:
    """Compress ``inputs``, check the archive, restore it; the folder with what came back."""
    options = ["-m", model] if model else []
    packed = done("compress", *inputs, "-o", folder / "a.vdz", *options)
    checked = done("test", folder / "a.vdz", *options)["archives"][0]
    assert checked["ok"] is True and checked["bytes_out"] == packed["bytes_raw"]
    restored = done("decompress", folder / "a.vdz", "-o", folder / "restored", *options)
    assert restored["bytes_out"] == packed["bytes_raw"] and restored["items"] == checked["items"]
    here = sorted(str(p) for p in (folder / "restored").iterdir())
    assert here == sorted(restored["restored"])  # and no hidden rest
    return folder / "restored"


LAYOUTS = {
    "NHW": lambda d: d,
    "NHWC": lambda d: d[..., None],
    "NCHW": lambda d: d[:, None],
    "fortran": np.asfortranarray,
    "other-way-up": lambda d: d[:, ::-1],
    "one-item": lambda d: d[:1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip_of_images_through_the_model(
    layout: str, model: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    array = LAYOUTS[layout](digits[200:240])
    np.save(tmp_path / "x.npy", array)
    assert same(np.load(round_trip(done, tmp_path, tmp_path / "x.npy", model=model) / "x.npy"), array)


def test_values_the_model_does_not_know_come_back_too(
    model: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    array = digits[:30].copy()
    array[17, 3, 3] = 255
    np.save(tmp_path / "x.npy", array)
    assert same(np.load(round_trip(done, tmp_path, tmp_path / "x.npy", model=model) / "x.npy"), array)


def test_booleans_round_trip_through_a_model(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    array = digits[:30] > 8
    np.save(tmp_path / "x.npy", array)
    assert same(np.load(round_trip(done, tmp_path, tmp_path / "x.npy", model=model) / "x.npy"), array)


ARRAYS = {
    "uint8-NHW": RNG.integers(0, 256, (9, 5, 6), dtype=np.uint8),
    "uint8-NHWC": RNG.integers(0, 256, (9, 5, 6, 3), dtype=np.uint8),
    "uint8-NCHW": RNG.integers(0, 256, (9, 3, 5, 6), dtype=np.uint8),
    "bool": RNG.random((9, 5, 6)) < 0.2,
    "float32": RNG.standard_normal((9, 5)).astype(np.float32),
    "float32-oddities": np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45], np.float32),
    "float16": RNG.standard_normal(11).astype(np.float16),
    "int64": RNG.integers(-(2**62), 2**62, (9, 4)),
    "big-endian": RNG.integers(0, 2**30, 9).astype(">i8"),
    "complex": RNG.standard_normal(4) + 1j,
    "text": np.array(["a", "bcd", "\u00e9\u4e2d"]),
    "bytes": np.array([b"a", b"bcd"]),
    "times": np.array(["2024-02-29", "NaT"], "M8[ns]"),
    "scalar": np.array(2.5),
    "scalar-uint8": np.array(7, np.uint8),
    "empty": np.zeros((0, 8, 8), np.uint8),
    "empty-rows": np.zeros((5, 0), np.float64),
    "empty-1d": np.zeros(0, np.int64),
    "fortran": np.asfortranarray(RNG.integers(0, 256, (6, 7), dtype=np.uint8)),
    "fortran-3d": np.asfortranarray(RNG.standard_normal((4, 3, 5))),
    "strided": RNG.integers(0, 99, (20, 6))[::3, ::-2],
    "long-rows": np.resize(RNG.integers(0, 256, 999, dtype=np.uint8), (2, 5 << 20)),  # beyond a block each
}


@pytest.mark.parametrize("name", ARRAYS)
def test_round_trip_of_any_array(name: str, tmp_path: Path, done: Done) -> None:
    np.save(tmp_path / "x.npy", ARRAYS[name])
    assert same(np.load(round_trip(done, tmp_path, tmp_path / "x.npy") / "x.npy"), ARRAYS[name])


def test_round_trip_of_an_npz_with_labels(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    arrays = {
        "x_train": digits[:30],
        "x_test": digits[30:40],
        "y_train": np.arange(30) % 10,
        "names": np.array(["zero", "one"]),
        "scale": np.array(16.0),
        "nothing": np.zeros((0, 8, 8), np.uint8),
        "mask": digits[:10] > 0,
        "odd name/with slash": np.asfortranarray(digits[0]),
    }
    np.savez(tmp_path / "all.npz", **arrays)
    with np.load(round_trip(done, tmp_path, tmp_path / "all.npz", model=model) / "all.npz") as back:
        assert back.files == list(arrays)
        assert all(same(back[name], array) for name, array in arrays.items())


def test_one_array_of_an_npz(tmp_path: Path, done: Done) -> None:
    np.savez(tmp_path / "all.npz", a=np.arange(5), b=np.ones(3))
    restored = round_trip(done, tmp_path, f"{tmp_path}/all.npz:b")
    assert same(np.load(restored / "all-b.npy"), np.ones(3))


def pictures(folder: Path, images: dict[str, Image.Image]) -> Path:
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    return folder


def same_pictures(folder: Path, images: dict[str, Image.Image]) -> bool:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert names == sorted(images)
    for name, wanted in images.items():
        with Image.open(folder / name) as found:
            if found.mode != wanted.mode or found.size != wanted.size or found.tobytes() != wanted.tobytes():
                return False
    return True


FOLDERS = {
    "grey": lambda i: Image.fromarray(RNG.integers(0, 256, (6, 5), dtype=np.uint8)),
    "rgb": lambda i: Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)),
    "bilevel": lambda i: Image.fromarray(RNG.random((6, 11)) < 0.3),
    "one-pixel": lambda i: Image.fromarray(np.full((1, 1), 40 * i, np.uint8)),
}


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("layout", ["{}.png", "class {}/x.png", "a/b{}/c/y.PNG", "{}-\u00e9.bmp"])
def test_round_trip_of_folders(kind: str, layout: str, tmp_path: Path, done: Done) -> None:
    images = {layout.format(i): FOLDERS[kind](i) for i in range(5)}
    source = pictures(tmp_path / "some pictures", images)
    restored = round_trip(done, tmp_path, source)
    assert [p.name for p in restored.iterdir()] == ["some pictures"]
    assert same_pictures(restored / "some pictures", images)


def test_round_trip_of_a_folder_through_the_model(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    images = {f"{i % 3}/{i}.png": Image.fromarray(d) for i, d in enumerate(digits[:30])}
    restored = round_trip(done, tmp_path, pictures(tmp_path / "p", images), model=model)
    assert same_pictures(restored / "p", images)


def test_the_current_folder_is_restored_under_its_own_name(
    tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {f"{i}.png": FOLDERS["grey"](i) for i in range(3)}
    monkeypatch.chdir(pictures(tmp_path / "mine", images))
    done("compress", ".", "-o", "../a.vdz")
    monkeypatch.chdir(tmp_path)
    assert done("decompress", "a.vdz", "-o", "out")["restored"] == ["out/mine"]
    assert same_pictures(tmp_path / "out" / "mine", images)


def test_several_inputs_in_one_archive(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    np.save(tmp_path / "x.npy", digits[:25])
    np.savez(tmp_path / "y.npz", x=digits[25:50], labels=np.arange(25))
    images = {f"{i}.png": FOLDERS["rgb"](i) for i in range(3)}
    pictures(tmp_path / "z", images)
    restored = round_trip(done, tmp_path, *(tmp_path / n for n in ("x.npy", "y.npz", "z")), model=model)
    assert same(np.load(restored / "x.npy"), digits[:25])
    with np.load(restored / "y.npz") as back:
        assert back.files == ["x", "labels"]
        assert same(back["x"], digits[25:50]) and same(back["labels"], np.arange(25))
    assert same_pictures(restored / "z", images)


def test_inputs_whose_arrays_share_names(tmp_path: Path, done: Done) -> None:
    inputs = [
        {"x": np.arange(3), "1/x": np.arange(4), "2/x": np.ones(2)},
        {"x": np.arange(5), "1/x": np.arange(6)},
        {"x": np.arange(7), "1/1/x": np.zeros(1), "2/x": np.arange(8)},
    ]
    for i, arrays in enumerate(inputs):
        np.savez(tmp_path / f"{i}.npz", **arrays)
    restored = round_trip(done, tmp_path, *(tmp_path / f"{i}.npz" for i in range(3)))
    for i, arrays in enumerate(inputs):
        with np.load(restored / f"{i}.npz") as back:
            assert back.files == list(arrays)
            assert all(same(back[name], array) for name, array in arrays.items())


def test_a_named_data_set(tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    restored = round_trip(done, tmp_path, "digits:test")
    assert same(np.load(restored / "digits-test.npy"), digits[1500:])


@pytest.mark.parametrize("data", [b"", b"x", b"plain text, or not\n" * 99 + bytes(range(256))])
def test_a_file_of_any_kind(tmp_path: Path, data: bytes, done: Done) -> None:
    (tmp_path / "metas.txt").write_bytes(data)
    restored = round_trip(done, tmp_path, tmp_path / "metas.txt")
    assert (restored / "metas.txt").read_bytes() == data


# list, info, test of an archive


def test_list_and_info_of_an_archive(model: Path, model_archive: Path, done: Done) -> None:
    record = done("list", model_archive)
    assert record["archive"] == str(model_archive) and record["bytes"] == model_archive.stat().st_size
    (array,) = record["arrays"]
    assert len(array["sha256"]) == 64 and record["version"] == 1
    assert array == {"name": "digits", "dtype": "|u1", "shape": [120, 8, 8], "sha256": array["sha256"]}
    assert record["restores"] == [{"kind": "npy", "name": "digits.npy", "files": None}]
    assert record["model"]["name"] == model.stem and len(record["model"]["sha256"]) == 64
    assert record["items"] == 120 and record["blocks"] == record["model_blocks"] > 0
    assert done("info", model_archive) == {"type": "archive", **record}


def test_list_names_every_file_of_a_folder(tmp_path: Path, done: Done) -> None:
    images = {f"{i}.png": FOLDERS["grey"](i) for i in range(30)}  # of which pixels take less room than files
    done("compress", pictures(tmp_path / "p", images), "-o", tmp_path / "a.vdz")
    record = done("list", tmp_path / "a.vdz")
    assert record["restores"] == [{"kind": "tree", "name": "p", "files": sorted(images)}]
    assert [(e["name"], e["of"], e["items"], e["bytes"]) for e in record["entries"]][:2] == [
        ("p/", None, 30, 900),
        ("0.png", "p", None, 30),
    ]
    result = CliRunner().invoke(main, ["list", "--all", str(tmp_path / "a.vdz")])
    lines = [line.split() for line in result.stdout.splitlines()]
    assert all([name, "6x5", "uint8", "30", "bytes"] in lines for name in images)


def test_test_takes_several_archives_and_writes_nothing(
    model: Path, model_archive: Path, unchanged: Callable[..., Any], done: Done
) -> None:
    with unchanged(model_archive.parent):
        record = done("test", model_archive, model_archive, "-m", model)
    assert [r["ok"] for r in record["archives"]] == [True, True]
    assert record["archives"][0]["items"] == 120


def test_demo_record(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaedensity.data.named.DIGITS", {"train": slice(0, 200), "test": slice(200, 260)})
    record = done("demo", "--seconds", "5")
    assert record["items"] == 60 and "restored bit for bit" in record["verdict"]
    assert {row["name"] for row in record["table"]} >= {"ELBO", "vaedensity archive, complete"}
    assert all(row["bits_per_dim"] > 0 for row in record["table"])
    assert {"fit", "score", "bench"} <= set(record)
