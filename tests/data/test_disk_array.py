"""Arrays that are read from their file piece by piece."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaedensity import items
from vaedensity.data.disk_array import FileArray
from vaedensity.data.load import load
from vaedensity.errors import SourceChanged

VALUES = np.arange(2 * 3 * 40, dtype=">i2").reshape(40, 2, 3)


@pytest.fixture
def stored(tmp_path: Path) -> FileArray:
    np.save(tmp_path / "x.npy", VALUES)
    found = load(str(tmp_path / "x.npy")).arrays["x"]
    assert isinstance(found, FileArray)
    return found


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(3, 9), slice(0, 0), slice(-5, None), slice(30, 99), slice(1, 40, 7), slice(None, None, 39)],
)
def test_slices_are_numpys(stored: FileArray, rows: slice) -> None:
    assert same(stored[rows], VALUES[rows])


def test_it_says_what_an_array_says(stored: FileArray) -> None:
    for name in ("dtype", "shape", "ndim", "size", "nbytes"):
        assert getattr(stored, name) == getattr(VALUES, name)
    assert len(stored) == 40 and same(np.asarray(stored), VALUES)
    assert same(np.asarray(stored, np.float32), VALUES.astype(np.float32))


@pytest.mark.parametrize("length", [1, 7, 50, 64, 100])
def test_pieces_of_a_file_are_those_of_its_bytes(tmp_path: Path, length: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, 64, np.uint8)
    (tmp_path / "x").write_bytes(data)
    found = items.pieces(load(str(tmp_path / "x")).arrays["bytes"], length)
    for part, expected in zip(found, items.pieces(data, length)):
        assert isinstance(part, FileArray) and same(part[:], expected)
        assert same(part[1:3], expected[1:3])


def cut(path: Path) -> None:
    os.truncate(path, 200)


def append(path: Path) -> None:
    with open(path, "ab") as f:
        f.write(b"x")


def overwrite(path: Path) -> None:
    with open(path, "r+b") as f:
        f.seek(-4, os.SEEK_END)
        f.write(b"zzzz")
    os.utime(path, ns=(10**18, 10**18))  # as a clock that goes on


def replace(path: Path) -> None:
    data, other = path.read_bytes(), path.with_name("other")
    other.write_bytes(data)
    os.replace(other, path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [cut, append, overwrite, replace, remove], ids=lambda f: f.__name__)
def test_what_happened_to_the_file_is_noticed(stored: FileArray, change: Any) -> None:
    stored.require_unchanged()
    change(stored.path)
    with pytest.raises(SourceChanged, match=r"x\.npy changed while it was read"):
        stored.require_unchanged()


def test_a_file_that_was_cut_off_is_refused_when_it_is_read(stored: FileArray) -> None:
    os.truncate(stored.path, 200)
    assert same(stored[:1], VALUES[:1])
    with pytest.raises(SourceChanged, match=r"x\.npy changed while it was read"):
        stored[:]


@pytest.mark.parametrize(
    "array", [np.array(5), np.zeros((0, 3)), np.zeros((4, 0)), np.asfortranarray(np.eye(3)[:2]), np.zeros(3, "V0")]
)
def test_arrays_that_cannot_be_read_by_pieces_are_read_whole(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    found = load(str(tmp_path / "x.npy")).arrays["x"]
    assert type(found) is np.ndarray and same(found, array)
