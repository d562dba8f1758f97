"""data/: restore metadata is checked, in its own words, never Python's; by it arrays become files again."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_byte_files import AS_BYTES, TEXT, TREE, grow
from test_tree_meta import ARRAYS, GOOD

from vaedensity.data import restore
from vaedensity.data.collection import Collection
from vaedensity.data.folder import load_folder
from vaedensity.data.load import load
from vaedensity.data.restore_metadata import check_restore_metadata, safe_name
from vaedensity.data.staging import staging
from vaedensity.data.tree_meta import check_tree, check_tree_meta
from vaedensity.errors import DamagedArchive, VaedensityError

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def harvest(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def restored(collection: Collection, stage: Path) -> Path:
    """What is made of a collection that came back from an archive as it went in."""
    meta = collection.meta | {"arrays": {f"0/{name}": name for name in collection.arrays}}
    arrays = {f"0/{name}": np.array(a) for name, a in collection.arrays.items()}
    check_restore_metadata([meta], list(arrays))
    restore.check_files(meta, arrays)
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
    folder = entry("folder", "pictures", {"images": "images"}, mode="L", files=["a/0.png", "a/1.png", "b.png"])
    several = entry("npz", "z.npz", {"1/x": "x", "y": "y"})
    assert check_restore_metadata([entry(), folder, several], ["x", "images", "1/x", "y"]) is None
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
        [entry("folder", "f", files=["/etc/a.png"])],
        [entry("folder", "f", files=["a.png", "a.png"])],
        [entry("folder", "f", files=["a.png", "./a.png"])],
        [entry("folder", "f", files=["a.png", "a.png/b.png"])],
        [entry("folder", "f", files=None)],
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


@pytest.mark.parametrize(
    ("images", "changes"),
    [
        (GREY[0].astype(np.float32)[None], {}),
        (GREY[:2], {}),
        (GREY[:1], {"mode": "RGB"}),
        (RGB[:1], {}),
        (GREY[:1], {"mode": "CMYK"}),
        (GREY[:1], {"mode": ["L"]}),
        (GREY[:1, :, :0], {}),
        (GREY[0, 0], {}),
        (np.array(5, np.uint8), {}),
        (GREY[:1], {"files": ["0.exe"]}),
        (GREY[:1], {"files": "0"}),
    ],
)
def test_arrays_that_are_not_the_described_images_are_rejected(
    tmp_path: Path, images: np.ndarray, changes: dict[str, Any]
) -> None:
    meta = entry("folder", "f", mode="L", files=["0.png"]) | changes
    with pytest.raises(DamagedArchive):
        restore.write_collection(meta, {"x": images}, tmp_path)


def test_write_collection_of_each_kind(tmp_path: Path) -> None:
    kept = {"x": GREY, "y": np.array(2.5)}
    assert restore.write_collection(entry(), kept, tmp_path) == tmp_path / "x.npy"
    assert np.array_equal(np.load(tmp_path / "x.npy"), GREY)
    restore.write_collection(entry("npz", "z.npz", {"x": "pictures", "y": "factor"}), kept, tmp_path)
    with np.load(tmp_path / "z.npz") as back:
        assert np.array_equal(back["pictures"], GREY) and back["factor"] == 2.5
    names = [f"d/{i}.bmp" for i in range(6)]
    restore.write_collection(entry("folder", "f", mode="L", files=names), kept, tmp_path)
    back = load_folder(tmp_path / "f")
    assert back.meta["files"] == names and np.array_equal(back.arrays["images"], GREY)


# Files as bytes


@pytest.mark.parametrize("data", [TEXT, b"", b"\0"])
def test_a_file_comes_back(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "some.bin").write_bytes(data)
    with staging(tmp_path / "out") as stage:
        path = restored(load(str(tmp_path / "some.bin")), stage)
        assert path == stage / "some.bin" and path.read_bytes() == data


@pytest.mark.parametrize("tree", [TREE, {"one": TEXT}, {"x": b"", "y/z": b""}])
def test_a_folder_of_files_comes_back(tmp_path: Path, tree: dict[str, bytes]) -> None:
    grow(tmp_path / "tree", tree)
    with staging(tmp_path / "out") as stage:
        path = restored(load(str(tmp_path / "tree"), AS_BYTES), stage)
        assert path == stage / "tree" and harvest(path) == tree


def in_parts(data: bytes, cuts: list[int]) -> list[np.ndarray]:
    return np.split(np.frombuffer(data, np.uint8), cuts)


@pytest.mark.parametrize("cuts", [[], [1], [0, 90], [90, 90, 91], [2, 3, 200, 250], [402]])
def test_bytes_in_several_arrays_of_any_shape_are_joined_in_order(tmp_path: Path, cuts: list[int]) -> None:
    names = sorted(TREE)
    data = b"".join(TREE[name] for name in names)
    parts = [p.reshape(-1, 2) if p.size and p.size % 2 == 0 else p for p in in_parts(data, cuts)]
    parts = [np.asfortranarray(p) for p in parts] + [np.array(33, np.uint8)]
    arrays = {f"{len(parts) - i}": p for i, p in enumerate(parts)}  # restore metadata's order counts, not the names'
    own = {stored: f"part{stored}" for stored in arrays}
    other, sizes = {"y": np.zeros(3)}, [len(TREE[name]) for name in names]
    files = {"kind": "files", "name": "tree", "files": [*names, "last"], "sizes": [*sizes, 1], "arrays": own}
    assert harvest(restore.write_collection(files, arrays | other, tmp_path)) == TREE | {"last": b"!"}
    path = restore.write_collection({"kind": "file", "name": "deep/x", "arrays": own}, other | arrays, tmp_path)
    assert path == tmp_path / "deep" / "x" and path.read_bytes() == data + b"!"


def test_a_disk_that_is_full_while_files_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Any, mode: str) -> Any:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("vaedensity.data.restore.open", full, raising=False)
    for meta in (two_files(), {"kind": "file", "name": "x", "arrays": {"x": "bytes"}}):
        with pytest.raises(VaedensityError, match="No space left"):
            restore.write_collection(meta, {"x": np.arange(5, dtype=np.uint8)}, tmp_path)


# What must not be restored


def two_files(**changes: Any) -> dict[str, Any]:
    """The meta of a folder of two files, of 2 and 3 bytes; a change to None takes an entry out."""
    meta = {"kind": "files", "name": "f", "files": ["a", "b/c"], "sizes": [2, 3], "arrays": {"x": "bytes"}}
    return {key: value for key, value in (meta | changes).items() if value is not None}


def test_the_metadata_that_is_changed_below_is_good(tmp_path: Path) -> None:
    check_restore_metadata([two_files()], ["x"])
    path = restore.write_collection(two_files(), {"x": np.arange(5, dtype=np.uint8)}, tmp_path)
    assert harvest(path) == {"a": b"\0\1", "b/c": b"\2\3\4"}


SIZES = [
    None,
    [5],
    [2, 3, 0],
    [],
    [2, -3],
    [2, 3.0],
    [True, 3],
    [2, "3"],
    [2, None],
    [[2], 3],
    "23",
    {"a": 2, "b": 3},
    5,
]


@pytest.mark.parametrize(
    "changes",
    [
        *({"sizes": sizes} for sizes in SIZES),
        {"files": [], "sizes": []},
        {"files": None},
        {"files": "ab"},
        {"files": {"a": 0, "b": 0}},
        {"files": ["a", "a"]},
        {"files": ["a", "./a"]},
        {"files": ["a", "a/c"]},
        {"files": ["a", 5]},
        {"arrays": {}},
        {"arrays": None},
        {"arrays": ["x"]},
        {"arrays": {"x": 5}},
        {"kind": "file"},
        {"kind": "file", "files": None},
        {"kind": "file", "files": None, "sizes": []},
        {"kind": "file", "sizes": None},
        {"kind": "file", "files": None, "sizes": None, "arrays": {}},
        {"kind": "file", "files": None, "sizes": None, "name": None},
        {"kind": "File"},
        {"kind": ["files"]},
    ],
)
def test_metadata_of_files_that_makes_no_sense_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedArchive) as refusal:
        check_restore_metadata([two_files(**changes)], ["x"])
    assert "\n" not in str(refusal.value)


def test_arrays_that_are_not_there_or_belong_to_another_are_rejected() -> None:
    two = {"x": "chunks", "y": "rest"}
    assert check_restore_metadata([two_files(arrays=two)], ["y", "x"]) is None
    for metas, arrays in (
        ([two_files(arrays=two)], ["x"]),
        ([two_files()], ["x", "y"]),
        ([two_files(arrays=two), two_files(name="g", arrays={"y": "bytes"})], ["x", "y"]),
        ([two_files(arrays={"x": "bytes", "y": "bytes"})], ["x", "y"]),
        ([two_files(), {"kind": "file", "name": "f/a", "arrays": {"y": "bytes"}}], ["x", "y"]),
    ):
        with pytest.raises(DamagedArchive):
            check_restore_metadata(metas, arrays)


ESCAPES = ["../x", "/x", "/etc/passwd", "a/../../x", "..", ".", "", "a\0", "\ud800"]


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_would_leave_the_folder_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    arrays = {"x": np.arange(5, dtype=np.uint8)}
    single = {"kind": "file", "name": name, "arrays": {"x": "bytes"}}
    for meta in (two_files(files=["a", name]), two_files(name=name), single):
        with pytest.raises(DamagedArchive, match="leave the target folder"):
            check_restore_metadata([meta], ["x"])
        with staging(tmp_path) as stage:
            with pytest.raises(DamagedArchive, match="leave the target folder"):
                restore.write_collection(meta, arrays, stage)
            assert list(stage.iterdir()) == []


WRONG = [
    (two_files(), np.arange(5, dtype=np.int8)),
    (two_files(), np.ones(5, bool)),
    (two_files(), np.arange(5.0)),
    (two_files(), np.array([b"a"] * 5)),
    (two_files(kind="file", files=None, sizes=None), np.arange(5, dtype=np.uint16)),
    (two_files(), np.zeros(4, np.uint8)),
    (two_files(), np.zeros((2, 3), np.uint8)),
    (two_files(), np.zeros(0, np.uint8)),
    (two_files(sizes=[2, 2**70]), np.zeros(5, np.uint8)),
    *((two_files(sizes=sizes), np.zeros(5, np.uint8)) for sizes in SIZES),
    (two_files(files=["a", "a"]), np.zeros(5, np.uint8)),
    (two_files(files="ab"), np.zeros(5, np.uint8)),
    (two_files(files=["a", 5]), np.zeros(5, np.uint8)),
    (two_files(files=None), np.zeros(5, np.uint8)),
]


@pytest.mark.parametrize(("meta", "array"), WRONG)
def test_arrays_that_are_not_the_described_bytes_are_rejected_before_anything_is_written(
    tmp_path: Path, meta: dict[str, Any], array: np.ndarray
) -> None:
    with pytest.raises(DamagedArchive) as refusal:
        restore.check_files(meta, {"x": array})
    assert "nothing was restored" in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(DamagedArchive):
        restore.write_collection(meta, {"x": array}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_array_of_several_that_holds_no_bytes_is_refused() -> None:
    meta = two_files(arrays={"x": "chunks", "y": "rest"})
    with pytest.raises(DamagedArchive, match="int64, expected uint8"):
        restore.check_files(meta, {"x": np.zeros(3, np.uint8), "y": np.zeros(2, np.int64)})


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
        (entry(files=["a"]), "kind 'npy' with files"),
        (entry(kind="folder"), "kind 'folder' without files"),
        (entry(name=5), "name: found a number, expected a text"),
        (entry(arrays=["x"]), "arrays: found a list, expected an object"),
        (entry(arrays={"x": None}), "arrays: found nothing as an original name, expected a text"),
        (entry(arrays={"x": "a\0b"}), r"an array has the original name 'a\x00b', which can be none"),
        (entry(arrays={"x": "\ud800"}), r"an array has the original name '\ud800', which can be none"),
        (entry(kind="files", files="ab", sizes=[1, 1]), "files: found a text, expected a list"),
        (entry(kind="files", files=["a", 5], sizes=[1, 1]), "files: found a number as a name, expected a text"),
        (entry(kind="npz", arrays={"x": "a", "y": "a"}), "two arrays have one original name"),
    ],
)
def test_found_and_expected(meta: Any, told: str) -> None:
    with pytest.raises(DamagedArchive) as caught:
        check_restore_metadata([meta], ["x"])
    assert str(caught.value) == f"the archive's restore metadata makes no sense ({told})"


@pytest.mark.parametrize("field", ["kind", "name", "arrays", "files", "sizes", "mode"])
@pytest.mark.parametrize("kind", ["npy", "npz", "folder", "file", "files"])
def test_any_value_of_a_field_is_refused_in_its_words(kind: str, field: str) -> None:
    more = (
        {"files": ["a"], "mode": "L"} if kind == "folder" else {"files": ["a"], "sizes": [1]} if kind == "files" else {}
    )
    meta = entry(kind=kind, **more)
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
