"""data/: restore metadata is checked, in its own words, never Python's; by it arrays become files again."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_byte_files import TEXT
from test_tree_meta import ARRAYS, GOOD

from vaedensity.data import restore
from vaedensity.data.collection import Collection
from vaedensity.data.load import load
from vaedensity.data.restore_metadata import check_restore_metadata, safe_name
from vaedensity.data.staging import staging
from vaedensity.data.tree_meta import check_tree, check_tree_meta
from vaedensity.errors import DamagedArchive, VaedensityError

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)


def restored(collection: Collection, stage: Path) -> Path:
    """What is made of a collection that came back from an archive as it went in."""
    meta = collection.meta | {"arrays": {f"0/{name}": name for name in collection.arrays}}
    arrays = {f"0/{name}": np.array(a) for name, a in collection.arrays.items()}
    check_restore_metadata([meta], list(arrays))
    restore.check_collection(meta, arrays)
    return restore.write_collection(meta, arrays, stage)


@pytest.mark.parametrize("name", ["a", "a.npy", "a/b/c.png", ".hidden", "..a", "a..", "with space", "\u00e9", "./a"])
def test_safe_names(name: str) -> None:
    path = safe_name(name)
    assert not path.is_absolute() and ".." not in path.parts


@pytest.mark.parametrize("name", ["", ".", "/", "/a", "..", "../a", "a/../b", "a/..", "a\0"])
def test_unsafe_names(name: str) -> None:
    with pytest.raises(DamagedArchive, match="leave the target folder"):
        safe_name(name)


def entry(kind: str = "npy", name: str = "x.npy", arrays: Any = None, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "arrays": {"x": "x"} if arrays is None else arrays} | more


def test_good_restore_metadata() -> None:
    file = entry("file", "f", {"pieces": "pieces", "rest": "rest"}, files=5)  # fields not known are ignored
    several = entry("npz", "z.npz", {"1/x": "x", "y": "y"})
    assert check_restore_metadata([entry(), file, several], ["x", "pieces", "rest", "1/x", "y"]) is None
    assert check_restore_metadata([], []) is None


@pytest.mark.parametrize(
    "metas",
    [
        [],
        [entry(), entry()],
        [entry(), entry(arrays={"y": "y"}, name="y.npy")],
        [entry(name="../x.npy")],
        [entry(arrays={"y": "x"})],
        [entry(arrays={"x": 5})],
        [entry("file", arrays={})],
        [entry("file", arrays={"x": 5})],
        [entry("file", arrays=["x"])],
        [entry("file", name=None)],
        [entry("File")],
        [entry(kind=["file"])],
        ["x"],
    ],
)
def test_restore_metadata_that_cannot_be_meant_is_rejected(metas: list[Any]) -> None:
    with pytest.raises(DamagedArchive):
        check_restore_metadata(metas, ["x"])


@pytest.mark.parametrize("second", ["x.npy", "./x.npy", "x.npy/y.npy"])
def test_outputs_in_each_others_way_are_rejected(second: str) -> None:
    with pytest.raises(DamagedArchive):
        check_restore_metadata([entry(), entry(name=second, arrays={"y": "y"})], ["x", "y"])


def test_write_collection_of_each_kind(tmp_path: Path) -> None:
    kept = {"x": GREY, "y": np.array(2.5)}
    assert restore.write_collection(entry(), kept, tmp_path) == tmp_path / "x.npy"
    assert np.array_equal(np.load(tmp_path / "x.npy"), GREY)
    restore.write_collection(entry("npz", "z.npz", {"x": "pictures", "y": "factor"}), kept, tmp_path)
    with np.load(tmp_path / "z.npz") as back:
        assert np.array_equal(back["pictures"], GREY) and back["factor"] == 2.5


# Files as bytes


@pytest.mark.parametrize("data", [TEXT, b"", b"\0"])
def test_a_file_comes_back(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "some.bin").write_bytes(data)
    with staging(tmp_path / "out") as stage:
        path = restored(load(str(tmp_path / "some.bin")), stage)
        assert path == stage / "some.bin" and path.read_bytes() == data


def in_parts(data: bytes, cuts: list[int]) -> list[np.ndarray]:
    return np.split(np.frombuffer(data, np.uint8), cuts)


@pytest.mark.parametrize("cuts", [[], [1], [0, 90], [90, 90, 91], [2, 3, 200, 250], [402]])
def test_bytes_in_several_arrays_of_any_shape_are_joined_in_order(tmp_path: Path, cuts: list[int]) -> None:
    data = bytes(range(256)) + TEXT
    parts = [p.reshape(-1, 2) if p.size and p.size % 2 == 0 else p for p in in_parts(data, cuts)]
    parts = [np.asfortranarray(p) for p in parts] + [np.array(33, np.uint8)]
    arrays = {f"{len(parts) - i}": p for i, p in enumerate(parts)}  # restore metadata's order counts, not the names'
    own = {stored: f"part{stored}" for stored in arrays}
    meta = {"kind": "file", "name": "deep/x", "arrays": own}
    path = restore.write_collection(meta, {"y": np.zeros(3)} | arrays, tmp_path)
    assert path == tmp_path / "deep" / "x" and path.read_bytes() == data + b"!"


def test_a_disk_that_is_full_while_files_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Any, mode: str) -> Any:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("vaedensity.data.restore.open", full, raising=False)
    with pytest.raises(VaedensityError, match="No space left"):
        restore.write_collection(entry("file"), {"x": np.arange(5, dtype=np.uint8)}, tmp_path)


# What must not be restored


def test_arrays_that_are_not_there_or_belong_to_another_are_rejected() -> None:
    two = entry("file", arrays={"x": "chunks", "y": "rest"})
    assert check_restore_metadata([two], ["y", "x"]) is None
    for metas, arrays in (
        ([two], ["x"]),
        ([entry("file")], ["x", "y"]),
        ([two, entry("file", "g", {"y": "bytes"})], ["x", "y"]),
        ([entry("file", arrays={"x": "bytes", "y": "bytes"})], ["x", "y"]),
    ):
        with pytest.raises(DamagedArchive):
            check_restore_metadata(metas, arrays)


ESCAPES = ["../x", "/x", "/etc/passwd", "a/../../x", "..", ".", "", "a\0", "\ud800"]


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_would_leave_the_folder_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    arrays = {"x": np.arange(5, dtype=np.uint8)}
    for meta in (entry("file", name), entry("npy", name)):
        with pytest.raises(DamagedArchive, match="leave the target folder"):
            check_restore_metadata([meta], ["x"])
        with staging(tmp_path) as stage:
            with pytest.raises(DamagedArchive, match="leave the target folder"):
                restore.write_collection(meta, arrays, stage)
            assert list(stage.iterdir()) == []


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5, dtype=np.int8),
        np.ones(5, bool),
        np.arange(5.0),
        np.array([b"a"] * 5),
        np.arange(5, dtype=np.uint16),
    ],
)
def test_arrays_that_are_no_bytes_are_rejected_before_anything_is_written(tmp_path: Path, array: np.ndarray) -> None:
    meta, arrays = entry("file", arrays={"x": "pieces", "y": "rest"}), {"x": np.zeros(3, np.uint8), "y": array}
    for reject in (restore.check_collection, lambda *given: restore.write_collection(*given, tmp_path)):
        with pytest.raises(DamagedArchive) as refusal:
            reject(meta, arrays)
        assert str(refusal.value) == (
            f"the archive holds {array.dtype} for the file x.npy, expected uint8; nothing was restored"
        )
    assert list(tmp_path.iterdir()) == []


# Messages

ANYTHING: list[Any] = [None, True, 5, 1.5, "x", ["x"], {"x": "x"}, [None], {"x": 5}, [["x"]], {}, []]
PYTHON = re.compile(
    r"object|has no|attribute|subscript|unhashable|NoneType|not supported|iterable|codec|indices|unpack"
    r"|^'\w+'$|\('\w+'\)$"
)


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        (5, "a collection is a number, expected an object"),
        (None, "a collection is nothing, expected an object"),
        (entry(kind=None), "kind: found nothing, expected a text"),
        (entry(kind="tar"), "kind 'tar' is not known"),
        (entry(kind="a" * 500), f"kind '{'a' * 57}...' is not known"),
        (entry(kind="folder"), "kind 'folder' is not known"),
        (entry(arrays={}), "0 arrays, one expected"),
        (entry(name=5), "name: found a number, expected a text"),
        (entry(arrays=["x"]), "arrays: found a list, expected an object"),
        (entry(arrays={"x": None}), "arrays: found nothing as an original name, expected a text"),
        (entry(arrays={"x": "a\0b"}), r"an array has the original name 'a\x00b', which can be none"),
        (entry(arrays={"x": "\ud800"}), r"an array has the original name '\ud800', which can be none"),
        (entry(kind="npz", arrays={"x": "a", "y": "a"}), "two arrays have one original name"),
    ],
)
def test_found_and_expected(meta: Any, told: str) -> None:
    with pytest.raises(DamagedArchive) as caught:
        check_restore_metadata([meta], ["x"])
    assert str(caught.value) == f"the archive's restore metadata makes no sense ({told})"


@pytest.mark.parametrize("field", ["kind", "name", "arrays"])
@pytest.mark.parametrize("kind", ["npy", "npz", "file"])
def test_any_value_of_a_field_is_refused_in_its_words(kind: str, field: str) -> None:
    meta = entry(kind=kind)
    check_restore_metadata([meta], ["x"])
    missing = {name: value for name, value in meta.items() if name != field}
    for changed in (missing, *(meta | {field: value} for value in ANYTHING)):
        try:
            check_restore_metadata([changed], ["x"])
        except DamagedArchive as error:
            assert not PYTHON.search(str(error).replace("an object", "")), str(error)


@pytest.mark.parametrize("field", sorted({*GOOD} - {"kind", "name"}))
def test_any_value_of_a_field_of_a_tree_is_refused_in_its_words(field: str) -> None:
    missing = {name: value for name, value in GOOD.items() if name != field}
    for changed in (missing, *(GOOD | {field: value} for value in ANYTHING)):
        try:
            check_tree_meta(changed)
            check_tree(changed, ARRAYS)
        except DamagedArchive as error:
            assert not PYTHON.search(str(error).replace("an object", "")), str(error)


@pytest.mark.parametrize(
    ("group", "told"),
    [
        ({"mode": "L"}, "nothing as array and 'L' as mode"),
        ({"array": "grey"}, "'grey' as array and nothing as mode"),
        ({"array": 5, "mode": ["L"]}, "a number as array and a list as mode"),
        ({"array": "grey", "mode": "P"}, "'grey' as array and 'P' as mode"),
    ],
)
def test_a_group_without_array_or_mode(group: dict[str, Any], told: str) -> None:
    with pytest.raises(DamagedArchive) as caught:
        check_tree_meta(GOOD | {"images": [group, GOOD["images"][1]]})
    assert str(caught.value) == (
        f"the archive's restore metadata of a folder makes no sense (a group of images has {told}, expected the name "
        "of an array and one of L, RGB, 1)"
    )


def test_a_group_that_is_no_object_and_an_array_that_is_not_there() -> None:
    with pytest.raises(DamagedArchive, match="a group of images is a number, expected an object"):
        check_tree_meta(GOOD | {"images": [5]})
    with pytest.raises(DamagedArchive, match="array 'grey' is not there"):
        check_tree(GOOD, {name: array for name, array in ARRAYS.items() if name != "grey"})
