"""data/: files of any kind and folders of them, read as bytes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaedensity.data.byte_files import load_file, load_files
from vaedensity.data.collection import LoadOptions
from vaedensity.data.disk_array import FileArray
from vaedensity.data.load import load, load_array
from vaedensity.errors import UsageError

AS_BYTES = LoadOptions(as_bytes=True)
TEXT = b"The quick brown fox\r\njumps over \0 the lazy dog.\n" * 3
TREE = {"a/deep/x": b"abc", "a/deep.txt": b"", "b.tar.gz": bytes(range(256)), "no suffix": b"", "\u00fc.npy": TEXT}


def grow(folder: Path, tree: dict[str, bytes]) -> Path:
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_load_file_reads_its_bytes_when_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(TEXT)
    found = load_file(tmp_path / "notes.txt")
    assert list(found.arrays) == ["bytes"] and isinstance(found.arrays["bytes"], FileArray)
    assert found.arrays["bytes"].dtype == np.uint8 and found.arrays["bytes"].shape == (len(TEXT),)
    assert np.asarray(found.arrays["bytes"]).tobytes() == TEXT
    assert found.meta == {"kind": "file", "name": "notes.txt"} and found.source == str(tmp_path / "notes.txt")
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
    assert found.files == tuple((n, len(TREE[n])) for n in names) and not found.meta
    assert found.arrays["bytes"].dtype == np.uint8 and found.arrays["bytes"].ndim == 1
    assert found.arrays["bytes"].tobytes() == b"".join(TREE[n] for n in names)


def test_load_reads_other_files_as_bytes_and_folders_so_only_when_told(tmp_path: Path) -> None:
    grow(tmp_path / "tree", TREE)
    for options in (LoadOptions(), AS_BYTES):
        assert load(str(tmp_path / "tree" / "b.tar.gz"), options).meta == {"kind": "file", "name": "b.tar.gz"}
    with pytest.raises(UsageError, match=r"5 files are no images \(a/deep/x, a/deep.txt, b.tar.gz, \.\.\.\)"):
        load_array(str(tmp_path / "tree"))
    for told in (AS_BYTES, LoadOptions(as_bytes=None)):
        assert len(load_array(str(tmp_path / "tree"), told)[0].files) == 5
    assert "tree: no regular file" in said(lambda: load(str(tmp_path / "tree")))  # compress packs folders as trees


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
    assert "void: the folder is empty; expected regular files" in said(
        lambda: load_array(str(tmp_path / "void"), AS_BYTES)
    )


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
    line = said(lambda: load_array(str(tmp_path / "tree"), options))
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
