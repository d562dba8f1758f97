"""data/: files of any kind and folders of them, as bytes, in and out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaedensity.data import restore
from vaedensity.data.byte_files import load_file, load_files
from vaedensity.data.collection import Collection, LoadOptions
from vaedensity.data.disk_array import FileArray
from vaedensity.data.load import load
from vaedensity.errors import DamagedArchive, UsageError, VaedensityError

AS_BYTES = LoadOptions(as_bytes=True)
TEXT = b"The quick brown fox\r\njumps over \0 the lazy dog.\n" * 3
TREE = {"a/deep/x": b"abc", "a/deep.txt": b"", "b.tar.gz": bytes(range(256)), "no suffix": b"", "\u00fc.npy": TEXT}


def grow(folder: Path, tree: dict[str, bytes]) -> Path:
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def harvest(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def restored(collection: Collection, stage: Path) -> Path:
    """What is made of a collection that came back from an archive as it went in."""
    meta = collection.meta | {"arrays": {f"0/{name}": name for name in collection.arrays}}
    arrays = {f"0/{name}": np.array(a) for name, a in collection.arrays.items()}
    restore.check_restore_metadata([meta], list(arrays))
    restore.check_files(meta, arrays)
    return restore.write_collection(meta, arrays, stage)


# Loading


def test_load_file_reads_its_bytes_when_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "metas.txt").write_bytes(TEXT)
    found = load_file(tmp_path / "metas.txt")
    assert list(found.arrays) == ["bytes"] and isinstance(found.arrays["bytes"], FileArray)
    assert found.arrays["bytes"].dtype == np.uint8 and found.arrays["bytes"].shape == (len(TEXT),)
    assert np.asarray(found.arrays["bytes"]).tobytes() == TEXT
    assert found.meta == {"kind": "file", "name": "metas.txt"} and found.source == str(tmp_path / "metas.txt")
    assert found.item_names is None


def test_load_file_of_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    array = load_file(tmp_path / "empty").arrays["bytes"]
    assert array.dtype == np.uint8 and array.shape == (0,)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no /proc here")
def test_load_file_without_a_size() -> None:
    assert load_file(Path("/proc/version")).arrays["bytes"].tobytes() == Path("/proc/version").read_bytes() != b""


def test_load_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    found = load_files(grow(tmp_path / "tree", TREE))
    names = ["a/deep/x", "a/deep.txt", "b.tar.gz", "no suffix", "\u00fc.npy"]
    assert found.meta == {"kind": "files", "name": "tree", "files": names, "sizes": [len(TREE[n]) for n in names]}
    assert found.arrays["bytes"].dtype == np.uint8 and found.arrays["bytes"].ndim == 1
    assert found.arrays["bytes"].tobytes() == b"".join(TREE[n] for n in names)


def test_load_reads_other_files_as_bytes_and_folders_so_only_when_told(tmp_path: Path) -> None:
    grow(tmp_path / "tree", TREE)
    for options in (LoadOptions(), AS_BYTES):
        assert load(str(tmp_path / "tree" / "b.tar.gz"), options).meta == {"kind": "file", "name": "b.tar.gz"}
    with pytest.raises(UsageError, match=r"5 files are no images \(a/deep/x, a/deep.txt, b.tar.gz, \.\.\.\)"):
        load(str(tmp_path / "tree"))
    for told in (AS_BYTES, LoadOptions(as_bytes=None)):
        assert load(str(tmp_path / "tree"), told).meta["kind"] == "files"


def test_load_keeps_array_files_and_names_as_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(5))
    np.savez(tmp_path / "z.npz", x=np.arange(5))
    for spec, kind in (("x.npy", "npy"), ("z.npz", "npz"), ("z.npz:x", "npy")):
        found = load(str(tmp_path / spec), AS_BYTES)
        assert found.meta["kind"] == kind and np.array_equal(next(iter(found.arrays.values())), np.arange(5))
    assert load("digits", AS_BYTES).meta["name"] == "digits.npy"


def said(read: Callable[[], Any]) -> str:
    with pytest.raises(UsageError) as refusal:
        read()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("name", ["pipe", "pipe.npy", "pipe.npz"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for options in (LoadOptions(), AS_BYTES):
        line = said(lambda options=options: load(str(tmp_path / name), options))
        assert name in line and "no regular file" in line
    assert "no regular file" in said(lambda: load_file(tmp_path))
    assert "no regular file" in said(lambda: load_file(tmp_path / "missing"))


FAULTS: dict[str, Callable[[Path], Any]] = {
    "link": lambda f: (f / "z").symlink_to(f / "b.tar.gz"),
    "dangling-link": lambda f: (f / "z").symlink_to("nowhere"),
    "linked-folder": lambda f: (f / "z").symlink_to(f),
    "pipe": lambda f: os.mkfifo(f / "z"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_folders_with_what_cannot_be_kept_are_refused(tmp_path: Path, fault: str) -> None:
    FAULTS[fault](grow(tmp_path / "tree", TREE))
    line = said(lambda: load_files(tmp_path / "tree"))
    assert "tree: z is a link or no regular file; expected regular files only" in line


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "void" / "deep").mkdir(parents=True)
    assert "void: the folder is empty; expected regular files" in said(lambda: load(str(tmp_path / "void"), AS_BYTES))


@pytest.mark.parametrize("options", [LoadOptions(), AS_BYTES])
def test_a_subfolder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: LoadOptions
) -> None:
    grow(tmp_path / "tree", TREE)
    really = os.open

    def locked(path: str, *flags: int, **where: int) -> int:
        if path.endswith("deep"):
            raise PermissionError(13, os.strerror(13), path)
        return really(path, *flags, **where)

    monkeypatch.setattr(os, "open", locked)
    line = said(lambda: load(str(tmp_path / "tree"), options))
    assert "a/deep cannot be read (Permission denied)" in line


@pytest.mark.parametrize("read", [load_file, lambda path: load_files(path.parent)])
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], Any]
) -> None:
    def locked(path: Any, mode: str, **options: Any) -> Any:
        raise PermissionError(13, os.strerror(13), str(path))

    (tmp_path / "secret").write_bytes(TEXT)
    for home in ("byte_files", "disk_array"):
        monkeypatch.setattr(f"vaedensity.data.{home}.open", locked, raising=False)
    line = said(lambda: read(tmp_path / "secret"))
    assert "secret cannot be read (Permission denied)" in line.replace("secret:", "secret")


@pytest.mark.parametrize("now", [TEXT[:-1], TEXT + b"x", b""])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: bytes
) -> None:
    grow(tmp_path, {"log": TEXT, "other": b"abc"})

    def opened(name: str, mode: str, **options: Any) -> Any:
        path = tmp_path / name
        path.write_bytes(now if name == "log" else path.read_bytes())
        return open(path, mode)

    monkeypatch.setattr("vaedensity.data.byte_files.open", opened, raising=False)
    assert "log changed while it was read" in said(lambda: load_files(tmp_path))


# There and back


@pytest.mark.parametrize("data", [TEXT, b"", b"\0"])
def test_a_file_comes_back(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "some.bin").write_bytes(data)
    with restore.staging(tmp_path / "out") as stage:
        path = restored(load(str(tmp_path / "some.bin")), stage)
        assert path == stage / "some.bin" and path.read_bytes() == data


@pytest.mark.parametrize("tree", [TREE, {"one": TEXT}, {"x": b"", "y/z": b""}])
def test_a_folder_of_files_comes_back(tmp_path: Path, tree: dict[str, bytes]) -> None:
    grow(tmp_path / "tree", tree)
    with restore.staging(tmp_path / "out") as stage:
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
    for meta in (noted(), {"kind": "file", "name": "x", "arrays": {"x": "bytes"}}):
        with pytest.raises(VaedensityError, match="No space left"):
            restore.write_collection(meta, {"x": np.arange(5, dtype=np.uint8)}, tmp_path)


# What must not be restored


def noted(**changes: Any) -> dict[str, Any]:
    """The meta of a folder of two files, of 2 and 3 bytes; a change to None takes an entry out."""
    meta = {"kind": "files", "name": "f", "files": ["a", "b/c"], "sizes": [2, 3], "arrays": {"x": "bytes"}}
    return {key: value for key, value in (meta | changes).items() if value is not None}


def test_the_note_that_is_changed_below_is_good(tmp_path: Path) -> None:
    restore.check_restore_metadata([noted()], ["x"])
    path = restore.write_collection(noted(), {"x": np.arange(5, dtype=np.uint8)}, tmp_path)
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
def test_check_note_refuses_notes_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedArchive) as refusal:
        restore.check_restore_metadata([noted(**changes)], ["x"])
    assert "\n" not in str(refusal.value)


def test_check_note_refuses_arrays_that_are_not_there_or_belong_to_another() -> None:
    two = {"x": "chunks", "y": "rest"}
    assert restore.check_restore_metadata([noted(arrays=two)], ["y", "x"]) is None
    for metas, arrays in (
        ([noted(arrays=two)], ["x"]),
        ([noted()], ["x", "y"]),
        ([noted(arrays=two), noted(name="g", arrays={"y": "bytes"})], ["x", "y"]),
        ([noted(arrays={"x": "bytes", "y": "bytes"})], ["x", "y"]),
        ([noted(), {"kind": "file", "name": "f/a", "arrays": {"y": "bytes"}}], ["x", "y"]),
    ):
        with pytest.raises(DamagedArchive):
            restore.check_restore_metadata(metas, arrays)


ESCAPES = ["../x", "/x", "/etc/passwd", "a/../../x", "..", ".", "", "a\0", "\ud800"]


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_would_leave_the_folder_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    arrays = {"x": np.arange(5, dtype=np.uint8)}
    single = {"kind": "file", "name": name, "arrays": {"x": "bytes"}}
    for meta in (noted(files=["a", name]), noted(name=name), single):
        with pytest.raises(DamagedArchive, match="leave the target folder"):
            restore.check_restore_metadata([meta], ["x"])
        with restore.staging(tmp_path) as stage:
            with pytest.raises(DamagedArchive, match="leave the target folder"):
                restore.write_collection(meta, arrays, stage)
            assert list(stage.iterdir()) == []


WRONG = [
    (noted(), np.arange(5, dtype=np.int8)),
    (noted(), np.ones(5, bool)),
    (noted(), np.arange(5.0)),
    (noted(), np.array([b"a"] * 5)),
    (noted(kind="file", files=None, sizes=None), np.arange(5, dtype=np.uint16)),
    (noted(), np.zeros(4, np.uint8)),
    (noted(), np.zeros((2, 3), np.uint8)),
    (noted(), np.zeros(0, np.uint8)),
    (noted(sizes=[2, 2**70]), np.zeros(5, np.uint8)),
    *((noted(sizes=sizes), np.zeros(5, np.uint8)) for sizes in SIZES),
    (noted(files=["a", "a"]), np.zeros(5, np.uint8)),
    (noted(files="ab"), np.zeros(5, np.uint8)),
    (noted(files=["a", 5]), np.zeros(5, np.uint8)),
    (noted(files=None), np.zeros(5, np.uint8)),
]


@pytest.mark.parametrize(("meta", "array"), WRONG)
def test_arrays_that_are_not_the_noted_bytes_are_refused_before_anything_is_written(
    tmp_path: Path, meta: dict[str, Any], array: np.ndarray
) -> None:
    with pytest.raises(DamagedArchive) as refusal:
        restore.check_files(meta, {"x": array})
    assert "nothing was restored" in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(DamagedArchive):
        restore.write_collection(meta, {"x": array}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_array_of_several_that_holds_no_bytes_is_refused() -> None:
    meta = noted(arrays={"x": "chunks", "y": "rest"})
    with pytest.raises(DamagedArchive, match="int64, expected uint8"):
        restore.check_files(meta, {"x": np.zeros(3, np.uint8), "y": np.zeros(2, np.int64)})
