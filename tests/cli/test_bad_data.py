"""Data that commands must reject: one line on stderr, the documented status, and nothing left behind."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rejections import NO_TRAINING, USAGE, Done, Refused, refuse_data, saved

pytestmark = pytest.mark.usefixtures("no_released")


@pytest.mark.parametrize(
    "name", ["missing", "missing.npy", "missing.npz", "missing.npz:x", "no/such/folder", "", "mnst"]
)
def test_missing_data(name: str, refused: Refused, model: Path, tmp_path: Path) -> None:
    for line in refuse_data(refused, model, tmp_path, name):
        assert "no such file" in line or "empty name" in line


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_images_are_rejected_with_how_to_convert(
    dtype: Any, refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray
) -> None:
    spec = saved(tmp_path / "f.npy", (digits[:9] / 16).astype(dtype))
    fit, score = refuse_data(refused, model, tmp_path, spec, "fit", "score")
    for line in (fit, score):
        assert np.dtype(dtype).name in line and "np.rint(x * 255).astype(np.uint8) rounds" in line and "f.npy" in line
    assert np.dtype(dtype).name in refuse_data(refused, model, tmp_path, spec, "compress")[0]


@pytest.mark.parametrize("shape", [(0, 8, 8), (5, 0, 8), (8, 8), (5, 8, 8, 2), ()])
def test_arrays_that_hold_no_images(shape: tuple[int, ...], refused: Refused, model: Path, tmp_path: Path) -> None:
    spec = saved(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    commands = ("score", "compress") if shape == (8, 8) else ("fit", "score", "compress")  # series may be fitted
    assert all("a" in line for line in refuse_data(refused, model, tmp_path, spec, *commands))


def test_fit_needs_two_items(refused: Refused, tmp_path: Path, digits: np.ndarray) -> None:
    spec = saved(tmp_path / "one.npy", digits[:1])
    assert "at least 2" in refused(USAGE, "fit", spec, "-o", tmp_path / "m.safetensors", *NO_TRAINING)


def same_bytes(path: Path, done: Done) -> None:
    """``path`` comes back from an archive as the bytes that it is."""
    done("compress", path, "-o", path.parent / "same.vdz", "-f")
    done("decompress", path.parent / "same.vdz", "-o", path.parent / "same", "-f")
    assert (path.parent / "same" / path.name).read_bytes() == path.read_bytes()


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickles_inside_array_files_are_never_run(
    name: str, refused: Refused, model: Path, tmp_path: Path, done: Done
) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], object)
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, trap)
    lines = refuse_data(refused, model, tmp_path, tmp_path / name, "fit", "score")
    assert all(name in line and "Python objects" in line for line in lines)
    same_bytes(tmp_path / name, done)
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert all(name in line for line in refuse_data(refused, model, tmp_path, tmp_path / name, "fit", "score"))
    same_bytes(tmp_path / name, done)
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
    for line in refuse_data(refused, model, few.parent, few.with_suffix(".npz"), "fit", "score"):
        assert "single array" in line


def test_an_npz_damaged_inside(refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray) -> None:
    f = io.BytesIO()
    np.savez_compressed(f, x=digits[:50])
    damaged = bytearray(f.getvalue())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(damaged)
    assert all("x.npz" in line for line in refuse_data(refused, model, tmp_path, tmp_path / "x.npz", "fit", "score"))


def test_other_files_hold_no_images(refused: Refused, model: Path, tmp_path: Path) -> None:
    (tmp_path / "metas.txt").write_text("hello")
    fit, score, compress = refuse_data(refused, model, tmp_path, tmp_path / "metas.txt")
    assert "metas.txt" in score and "(5,)" in score and "(N,H,W)" in score
    assert "metas.txt" in fit and "5 bytes, expected at least 64" in fit  # of a file, series are meant
    assert "uint8[5]" in compress


def picture(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


FOLDER_FAULTS: dict[str, tuple[Callable[[Path, np.ndarray], Any], str]] = {
    "other-size": (lambda f, d: picture(f / "z.png", d[0, :5]), "8x5"),
    "other-mode": (lambda f, d: picture(f / "z.png", np.stack([d[0]] * 3, -1)), "RGB"),
    "image-of-another-kind": (lambda f, d: picture(f / "z.gif", d[0]), "z.gif"),
    "not-what-it-says": (lambda f, d: (f / "z.png").write_text("hello"), "z.png"),
    "cut-off": (lambda f, d: (f / "z.png").write_bytes((f / "0.png").read_bytes()[:-30]), "z.png"),
    "link": (lambda f, d: (f / "z.png").symlink_to(f / "0.png"), "z.png"),
    "dangling-link": (lambda f, d: (f / "z.png").symlink_to("nowhere.png"), "z.png"),
    "linked-folder": (lambda f, d: (f / "z").symlink_to(f), "z is a link"),
    "pipe": (lambda f, d: os.mkfifo(f / "z.png"), "z.png"),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_folders_with_something_that_does_not_belong(
    fault: str, refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    """They are no data to fit and score; compress takes all but pipes."""
    folder = tmp_path / "pictures"
    for i in range(3):
        picture(folder / f"{i}.png", digits[i])
    make, named = FOLDER_FAULTS[fault]
    make(folder, digits)
    if fault == "pipe":
        (folder / "0.png").unlink()  # the watch below must not read from the pipe
    commands = ("fit", "score", *(("compress",) if fault == "pipe" else ()))
    for line in refuse_data(refused, model, tmp_path, folder, *commands):
        assert named in line and "pictures" in line
    if fault != "pipe":
        assert done("compress", folder, "-o", tmp_path / "a.vdz", "-m", model)["model_tried_items"] == 3
        done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "back", "-m", model, "--links", "any")
        assert sorted(os.listdir(tmp_path / "back" / "pictures")) == sorted(os.listdir(folder))


def test_an_empty_folder(refused: Refused, model: Path, tmp_path: Path, done: Done) -> None:
    (tmp_path / "void").mkdir()
    void = tmp_path / "void"
    assert all(
        "void" in line and "empty" in line for line in refuse_data(refused, model, tmp_path, void, "fit", "score")
    )
    assert "codes items" in refused(USAGE, "compress", void, "-o", tmp_path / "a.vdz", "-m", model)
    done("compress", void, "-o", tmp_path / "a.vdz")
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "back")
    assert list((tmp_path / "back").rglob("*")) == [tmp_path / "back" / "void"]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows cannot hold")
@pytest.mark.parametrize("name", ["a:b.png", "a\\b.png", os.fsdecode(b"\xe9.png")])
def test_file_names_that_other_systems_cannot_hold(name: str, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    picture(tmp_path / "p" / name, digits[0])
    done("compress", tmp_path / "p", "-o", tmp_path / "a.vdz")
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "back")
    assert os.listdir(tmp_path / "back" / "p") == [name]


@pytest.mark.parametrize(
    "array", [np.zeros(4, [("a", "i4"), ("b", "f8")]), np.zeros((1,) * 10), np.array([{"a": 1}, None], object)]
)
def test_array_files_that_no_archive_holds_as_arrays_are_kept_byte_for_byte(
    array: np.ndarray, tmp_path: Path, done: Done
) -> None:
    same_bytes(saved(tmp_path / "r.npy", array), done)


def test_unknown_splits_and_sets_that_are_not_downloaded(refused: Refused, model: Path, tmp_path: Path) -> None:
    for line in refuse_data(refused, model, tmp_path, "digits:valid"):
        assert "train and test" in line
    for name in ("mnist", "cifar100:test"):
        line = refused(USAGE, "compress", name, "-o", tmp_path / "a.vdz", "--data-root", tmp_path / "data")
        assert "pass --data-root FOLDER, or --download" in line and name in line


def test_inputs_that_would_be_restored_over_each_other(refused: Refused, few: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    saved(tmp_path / "b" / "few.npy", np.zeros(3))
    assert "few.npy" in refused(USAGE, "compress", few, tmp_path / "b" / "few.npy", "-o", tmp_path / "a.vdz")


def test_values_that_the_model_was_not_fitted_to(
    refused: Refused, model: Path, tmp_path: Path, digits: np.ndarray
) -> None:
    array = digits[:5].copy()
    array[3, 0, 0] = 17
    line = ("reconstruct", model, saved(tmp_path / "a.npy", array), "-o", tmp_path / "a.png")
    assert "item 3" in refused(USAGE, *line)  # score goes on: tests/api/test_unseen_values.py
