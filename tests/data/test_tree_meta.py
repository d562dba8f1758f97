"""data/: what restore metadata of kind `tree` must be like."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaedensity.data import restore
from vaedensity.data.restore_metadata import check_restore_metadata
from vaedensity.data.tree_contents import check_metadata
from vaedensity.data.tree_meta import check_tree, check_tree_meta, entry_times, renamed, suffix_of
from vaedensity.data.tree_write import write_tree
from vaedensity.errors import DamagedArchive

PNG_TEXT = b"\0\0\0\3tEXtk\0v" + bytes.fromhex("cb04f390")
GOOD: dict[str, Any] = {
    "kind": "tree",
    "name": "t",
    "arrays": {"0/bytes": "bytes", "grey": "images 4x2 L", "colour": "images 3x3 RGB"},
    "entries": ["a", "a/0.png", "a/b", "a/b/1.bmp", "a/l", "f.txt", "p.WEBP", "q.png"],
    "types": "didilfii",
    "bytes": ["0/bytes"],
    "images": [{"array": "grey", "mode": "L"}, {"array": "colour", "mode": "RGB"}],
    "groups": [0, 1, 1, 0],
    "sizes": [5],
    "extras": [15, 0, 0, 0],
    "links": ["../f.txt"],
    "rights": [0o755, 0o700, 0o644, 0o755, 0, 0, 0o600, 0o644, 4095],
    "times": [10**18, -1, 5, 0, 0, 0, -(10**18), 7, 7],
}
ARRAYS = {
    "0/bytes": np.frombuffer(PNG_TEXT + b"hello", np.uint8),
    "grey": np.arange(16, dtype=np.uint8).reshape(2, 2, 4),
    "colour": np.arange(54, dtype=np.uint8).reshape(2, 3, 3, 3),
}
BIG = 10**400


def put(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    meta = copy.deepcopy(GOOD)
    inner: Any = meta
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return meta


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def entry(name: Any) -> dict[str, Any]:
    """A meta with the file f.txt under another name."""
    return put(("entries", 5), name)


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


HOSTILE: dict[str, Any] = {
    **{f"no {name}": without(name) for name in GOOD if name not in ("kind", "name", "arrays", "rights", "times")},
    **{
        f"{name} is {value!r:.20}": put((name,), value)
        for name in ("entries", "types", "bytes", "images", "groups", "sizes", "extras", "links", "rights", "times")
        for value in (None, 1, BIG, "x", [], {}, [None], [[]], [BIG], True, 1.5, ["x"], {"x": 1})
        if (name, value) != ("links", ["x"])
    },
    **{f"name {name!r:.30}": entry(name) for name in (
        "", "/", "/f", "f/", ".", "..", "a//x", "a/./x", "a/../x", "../x", "a/..", "x\0", "a", "a/0.png", "a/l/x",
        "f/x", "a/0.png/x", "\ud800", "\udcc3\udca4", "a/b/\udce2\udc82\udcac", "\udfff", None, 1, [], {}, True,
        b"x".hex, BIG, "a/l",
    )},
    "an entry twice": put(("entries", 7), "p.WEBP"),
    "a child before its parent": GOOD | {"entries": ["a/b", "a", *GOOD["entries"][2:]]},
    "a parent that is a file": GOOD | {"entries": [*GOOD["entries"][:6], "f.txt/p.webp", "q.png"]},
    "a type that is not known": put(("types",), "didilfiX"),
    "too many types": put(("types",), "didilfiid"),
    "types as a list": put(("types",), list("didilfii")),
    "a jpeg as an image": put(("entries", 7), "q.jpg"),
    "an image without suffix": put(("entries", 7), ".png"),
    "a group too high": put(("groups",), [0, 1, 1, 2]),
    "a group below 0": put(("groups",), [0, 1, 1, -1]),
    "a group True": put(("groups",), [0, True, 1, 0]),
    "too few groups": put(("groups",), [0, 1, 1]),
    "a grey webp": put(("groups",), [0, 1, 0, 1]),
    "a size below 0": put(("sizes",), [-1]),
    "a huge size": put(("sizes",), [2**63]),
    "a size that is a float": put(("sizes",), [5.0]),
    "metadata below 0": put(("extras",), [16, 0, 0, -1]),
    "metadata of a bitmap": put(("extras",), [14, 1, 0, 0]),
    "too little metadata": put(("extras",), [15, 0, 0]),
    "an empty link": put(("links",), [""]),
    "a link with NUL": put(("links",), ["x\0"]),
    "a link that is no text": put(("links",), ["\ud900"]),
    "two links": put(("links",), ["x", "y"]),
    "rights of the folder left out": put(("rights",), GOOD["rights"][1:]),
    "rights too high": put(("rights", 3), 4096),
    "rights below 0": put(("rights", 3), -1),
    "a time too late": put(("times", 0), 10**9 * 2**63),
    "a time too early": put(("times", 6), -(10**9 * 2**63) - 10**18 - 100),
    "times too few": put(("times",), GOOD["times"][1:]),
    "a mode that is not known": put(("images", 0, "mode"), "CMYK"),
    "a mode that is a list": put(("images", 0, "mode"), []),
    "an array that is a list": put(("images", 0, "array"), []),
    "a group without array": put(("images", 0), {"mode": "L"}),
    "an array twice": put(("images", 0, "array"), "colour"),
    "an array as images and bytes": put(("bytes",), ["0/bytes", "grey"]),
    "an array that is not listed": put(("bytes",), ["0/bytes", "more"]),
    "an array that is not used": put(("arrays", "more"), "more"),
    "a deep list": put(("sizes",), [deep(500)]),
    "a list": [],
    "nothing": None,
    "a number": 5,
}  # fmt: skip


def test_good_metadata_passes_and_is_restored(tmp_path: Path) -> None:
    check_tree_meta(GOOD)
    check_tree(GOOD, ARRAYS)
    check_metadata(GOOD, ARRAYS)
    check_tree(without("rights"), ARRAYS)
    check_tree(without("times"), ARRAYS)
    check_restore_metadata([GOOD], list(ARRAYS))
    restore.check_collection(GOOD, ARRAYS)
    check_tree(json.loads(json.dumps(GOOD)), ARRAYS)
    assert write_tree(GOOD, ARRAYS, tmp_path / "t") == []
    assert (tmp_path / "t/f.txt").read_bytes() == b"hello"
    assert (tmp_path / "t/a/0.png").read_bytes()[33:].startswith(PNG_TEXT)


@pytest.mark.parametrize("name", HOSTILE)
def test_metadata_that_makes_no_sense_is_rejected(tmp_path: Path, name: str) -> None:
    meta = HOSTILE[name]
    with pytest.raises(DamagedArchive, match=r"^[^\n]{1,400}$"):
        check_tree_meta(meta)
        check_tree(meta, ARRAYS)  # where only arrays tell
    with pytest.raises(DamagedArchive):
        write_tree(meta, ARRAYS, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DamagedArchive):
        check_restore_metadata([meta], list(ARRAYS))
        restore.check_collection(meta, ARRAYS)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("0/bytes", np.zeros(19, np.uint8)),
        ("0/bytes", np.zeros(21, np.uint8)),
        ("0/bytes", np.zeros(20, np.int8)),
        ("0/bytes", np.zeros(20, bool)),
        ("0/bytes", np.zeros((), np.uint8)),
        ("0/bytes", np.zeros((20, 0), np.uint8)),
        ("grey", np.zeros((3, 2, 4), np.uint8)),
        ("grey", np.zeros((1, 2, 4), np.uint8)),
        ("grey", np.zeros((2, 2, 4, 3), np.uint8)),
        ("grey", np.zeros((2, 2, 4, 1), np.uint8)),
        ("grey", np.zeros((2, 8), np.uint8)),
        ("grey", np.zeros((2, 0, 4), np.uint8)),
        ("grey", np.zeros((2, 2, 4), np.uint16)),
        ("grey", np.zeros((2, 2, 4), bool)),
        ("grey", np.zeros((), np.uint8)),
        ("colour", np.zeros((2, 3, 3), np.uint8)),
        ("colour", np.zeros((2, 3, 3, 4), np.uint8)),
        ("colour", np.zeros((2, 3, 3, 3, 3), np.uint8)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, name: str, array: np.ndarray) -> None:
    with pytest.raises(DamagedArchive, match=r"^the archive's list of a folder does not fit its arrays \([^\n]+\)$"):
        check_tree(GOOD, ARRAYS | {name: array})
    with pytest.raises(DamagedArchive):
        write_tree(GOOD, ARRAYS | {name: array}, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_arrays_that_are_missing_are_refused() -> None:
    for name in ARRAYS:
        with pytest.raises(DamagedArchive):
            check_tree(GOOD, {key: array for key, array in ARRAYS.items() if key != name})


@pytest.mark.parametrize("at", range(15))
def test_metadata_are_checked_with_their_checksums(tmp_path: Path, at: int) -> None:
    pool = ARRAYS["0/bytes"].copy()
    pool[at] ^= 0x10
    with pytest.raises(DamagedArchive, match=r"^the archive's metadata of 'a/0.png' make no sense \([^\n]+\)$"):
        restore.check_collection(GOOD, ARRAYS | {"0/bytes": pool})
    with pytest.raises(DamagedArchive):
        write_tree(GOOD, ARRAYS | {"0/bytes": pool}, tmp_path / "t")


def test_a_pool_may_be_several_arrays_of_any_shape() -> None:
    meta = GOOD | {"bytes": ["x", "y", "z"], "arrays": dict.fromkeys("xyz", "") | {"grey": "", "colour": ""}}
    whole = ARRAYS["0/bytes"]
    parts = {"x": whole[:12].reshape(3, 2, 2), "y": whole[12:12].reshape(0, 7), "z": whole[12:].reshape(4, 2)}
    check_tree(meta, ARRAYS | parts)
    check_metadata(meta, ARRAYS | parts)


def test_large_metadata_is_checked_quickly() -> None:
    count = 100_000
    folders = [f"folder {n}" for n in range(1000)]
    names = [
        name for n, folder in enumerate(folders) for name in (folder, *(f"{folder}/{k}.png" for k in range(n, n + 99)))
    ]
    meta = {
        "entries": names,
        "types": ("d" + "i" * 99) * 1000,
        "bytes": ["bytes"],
        "images": [{"array": f"{n}", "mode": "L"} for n in range(900)],
        "groups": [n % 900 for n in range(99_000)],
        "sizes": [],
        "extras": [1] * 99_000,
        "links": [],
        "rights": [0o644] * (count + 1),
        "times": [10**18, *[1] * count],
    }
    arrays = {f"{n}": np.broadcast_to(np.uint8(0), (110, 2, 2)) for n in range(900)}
    started = time.process_time()
    check_tree(meta, arrays | {"bytes": np.zeros(99_000, np.uint8)})
    assert time.process_time() - started < 5


def test_deep_paths_are_checked_quickly() -> None:
    names = ["/".join(["d"] * n) for n in range(1, 2000)]
    meta = {"entries": names, "types": "d" * len(names), "bytes": [], "images": [], "sizes": [], "links": []}
    check_tree(meta, {})


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.PNG", ".png"),
        ("d.png/x", ""),
        (".png", ""),
        ("..png", ""),
        ("a.", ""),
        ("a.b.tif", ".tif"),
        ("\udcff.png", ".png"),
    ],
)
def test_suffixes(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


def test_times() -> None:
    assert list(entry_times(GOOD))[:3] == [10**18, 10**18 - 1, 10**18 + 4] and list(entry_times(without("times"))) == []


def test_renamed_arrays() -> None:
    meta = renamed(GOOD, {"0/bytes": "x", "grey": "y", "colour": "z"})
    assert meta["bytes"] == ["x"] and meta["images"] == [{"array": "y", "mode": "L"}, {"array": "z", "mode": "RGB"}]
    assert GOOD["bytes"] == ["0/bytes"] and GOOD["images"][0] == {"array": "grey", "mode": "L"}


@pytest.mark.parametrize("name", ["/t", "../t", "", "a/../..", "x\0", "\ud800"])
def test_names_of_trees_are_checked(name: str) -> None:
    with pytest.raises(DamagedArchive):
        check_restore_metadata([GOOD | {"name": name}], list(ARRAYS))


def test_trees_lie_apart() -> None:
    other = GOOD | {"arrays": {}, "entries": [], "types": "", "bytes": [], "images": [], "sizes": [], "links": []}
    for name in ("groups", "extras", "rights", "times"):
        other.pop(name)
    for name, good in (("t", False), ("t/a", False), ("u", True), ("t:a", True), ("a\\b", True)):
        if good:
            check_restore_metadata([GOOD, other | {"name": name}], list(ARRAYS))
        else:
            with pytest.raises(DamagedArchive):
                check_restore_metadata([GOOD, other | {"name": name}], list(ARRAYS))
