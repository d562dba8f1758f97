"""Inputs that change while they are packed: rejected by name, nothing is written, no archive lies about them."""

import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke, tree

import vaedensity as vd
from vaedensity.archive import fallback, model_blocks
from vaedensity.errors import SourceChanged

CHANGED = "changed while it was read"


def touch_time(path: Path) -> None:
    """As a write of the same bytes does."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


def change_bytes(path: Path) -> None:
    """In place, the time of change put back: only the values tell."""
    found = path.stat()
    with open(path, "r+b") as f:
        f.seek(-8, os.SEEK_END)
        f.write(b"\1\2\3\1\2\3\1\2")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def cut_off(path: Path) -> None:
    os.truncate(path, 100)


def grow(path: Path) -> None:
    with open(path, "ab") as f:
        f.write(b"more")


CHANGES = [touch_time, change_bytes, cut_off, grow]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something happen once, after the first part was read to be coded."""

    def plan(happen: Callable[[], None]) -> None:
        done: list[bool] = []

        def first(function: Any) -> Any:
            def instead(*arguments: Any, **options: Any) -> Any:
                if not done:
                    done.append(True)
                    happen()
                return function(*arguments, **options)

            return instead

        monkeypatch.setattr(fallback, "encode_verified", first(fallback.encode_verified))
        monkeypatch.setattr(model_blocks.BlockCoder, "code", first(model_blocks.BlockCoder.code))

    return plan


def write_npy(path: Path, digits: np.ndarray) -> None:
    np.save(path, digits[:100])


def write_bytes(path: Path, digits: np.ndarray) -> None:
    path.write_bytes(digits[:100].tobytes())


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name, write", [("live.npy", write_npy), ("live.log", write_bytes)])
def test_a_file_that_changes_is_rejected_and_nothing_is_written(
    tmp_path: Path, digits: np.ndarray, meanwhile: Any, name: str, write: Any, change: Any
) -> None:
    live = tmp_path / name
    write(live, digits)
    (tmp_path / "still").write_bytes(b"at rest")
    meanwhile(lambda: change(live))
    before = set(tree(tmp_path))
    result = invoke("-q", "compress", live, tmp_path / "still", "-o", tmp_path / "a.vdz")
    assert result.exit_code == 2 and CHANGED in result.stderr and result.stderr.count("\n") == 1, result.output
    assert set(tree(tmp_path)) == before


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_with_a_model_too(tmp_path: Path, digits: np.ndarray, model: Path, meanwhile: Any, change: Any) -> None:
    live = tmp_path / "live.npy"
    write_npy(live, digits)
    meanwhile(lambda: change(live))
    result = invoke("-q", "compress", live, "-o", tmp_path / "a.vdz", "-m", model)
    assert result.exit_code == 2 and CHANGED in result.stderr, result.output
    assert sorted(tree(tmp_path)) == ["live.npy"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_what_is_added_too(tmp_path: Path, digits: np.ndarray, meanwhile: Any, change: Any) -> None:
    live, archive = tmp_path / "live.npy", tmp_path / "a.vdz"
    write_npy(live, digits)
    assert invoke("-q", "compress", live, "-o", archive, "-m", "digits").exit_code == 0
    whole = archive.read_bytes()
    live.rename(tmp_path / "more.npy")
    meanwhile(lambda: change(tmp_path / "more.npy"))
    result = invoke("-q", "add", archive, tmp_path / "more.npy")
    assert result.exit_code == 2 and CHANGED in result.stderr, result.output
    assert archive.read_bytes() == whole


@pytest.mark.parametrize("change", [touch_time, cut_off, grow], ids=lambda f: f.__name__)
def test_what_is_added_to_an_array_too(
    tmp_path: Path, digits: np.ndarray, two: Path, meanwhile: Any, change: Any
) -> None:
    write_npy(tmp_path / "more.npy", digits)
    whole = two.read_bytes()
    meanwhile(lambda: change(tmp_path / "more.npy"))
    result = invoke("-q", "add", two, tmp_path / "more.npy", "--to", "good")
    assert result.exit_code == 2 and CHANGED in result.stderr, result.output
    assert two.read_bytes() == whole


@pytest.mark.parametrize("model_name", [None, "digits"])
def test_arrays_in_memory_too(tmp_path: Path, digits: np.ndarray, meanwhile: Any, model_name: str | None) -> None:
    """Somebody's other thread writes to an array while it is packed."""
    live = digits[:100].copy()

    def write() -> None:
        live[-1, -1, -1] ^= 1

    meanwhile(write)
    with pytest.raises(SourceChanged, match=f"array live {CHANGED}"):
        vd.compress({"live": live}, tmp_path / "a.vdz", model=model_name)
    assert not tree(tmp_path)


@contextmanager
def altered_digest(archive: Path, number: int) -> Any:
    """The archive with the SHA-256 of one array made wrong, and its index's checksum right."""
    import zlib

    from vaedensity.archive.container import DIGEST, FIXED, FOOTER

    whole = archive.read_bytes()
    length, index_length, _, end = FOOTER.unpack(whole[-FOOTER.size :])
    at = len(whole) - FOOTER.size - index_length
    index = bytearray(zlib.decompress(whole[at : at + index_length]))
    index[DIGEST * number] ^= 1
    stream = zlib.compress(bytes(index), 9)
    footer = FOOTER.pack(length, len(stream), zlib.crc32(stream, zlib.crc32(whole[:FIXED])), end)
    archive.write_bytes(whole[:at] + stream + footer)
    yield
    archive.write_bytes(whole)


@pytest.fixture
def two(tmp_path: Path, digits: np.ndarray) -> Path:
    np.save(tmp_path / "bad.npy", digits[:50])
    np.save(tmp_path / "good.npy", digits[50:90])
    archive = tmp_path / "a.vdz"
    result = invoke("-q", "compress", tmp_path / "bad.npy", tmp_path / "good.npy", "-o", archive, "-m", "digits")
    assert result.exit_code == 0, result.output
    return archive


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_one_bad_digest_takes_no_other_array_with_it(
    two: Path, tmp_path: Path, digits: np.ndarray, engine: str
) -> None:
    with altered_digest(two, 0):
        out = tmp_path / "out"
        result = invoke("-q", "decompress", two, "-o", out, "--engine", engine)
        assert result.exit_code == 3 and "array bad does not have the SHA-256" in result.stderr and not out.exists()
        result = invoke("-q", "decompress", two, "-o", out, "--engine", engine, "--keep-going")
        assert result.exit_code == 3
        assert np.array_equal(np.load(out / "good.npy"), digits[50:90])
        assert not np.load(out / "bad.npy").any()


def test_adding_to_an_array_does_not_bless_what_was_rejected(two: Path, tmp_path: Path) -> None:
    with altered_digest(two, 0):
        whole = two.read_bytes()
        result = invoke("-q", "add", two, tmp_path / "good.npy", "--to", "bad")
        assert result.exit_code == 3 and "array bad does not have the SHA-256" in result.stderr, result.output
        assert two.read_bytes() == whole
        np.save(tmp_path / "other.npy", np.arange(5))
        assert invoke("-q", "add", two, tmp_path / "other.npy").exit_code == 0  # beside it is nobody's harm
        assert invoke("-q", "test", two).exit_code == 3


def test_adding_where_no_digest_is_known_makes_none_up(two: Path, tmp_path: Path) -> None:
    """A repaired archive may not know the SHA-256 of its arrays."""
    whole = two.read_bytes()
    two.write_bytes(whole[:-40])
    repaired = tmp_path / "r.vdz"
    assert invoke("-q", "repair", two, "-o", repaired).exit_code == 0
    assert invoke("-q", "add", repaired, tmp_path / "good.npy", "--to", "bad").exit_code == 0
    from vaedensity.archive.reader import ArchiveFile

    with ArchiveFile(repaired) as archive:
        assert archive.digests == [None, None]


def kept(folder: Path) -> list[str]:
    """Names of the files that the archive there restores."""
    result = invoke("-q", "decompress", folder / "a.vdz", "-o", folder.parent / f"{folder.name}-out")
    assert result.exit_code == 0, result.output
    return [name for name, data in tree(folder.parent / f"{folder.name}-out").items() if data is not None]


@pytest.mark.parametrize("change", [touch_time, cut_off, grow], ids=lambda f: f.__name__)
@pytest.mark.parametrize("model_name", [None, "digits"])
def test_with_keep_going_what_is_at_rest_is_packed(
    tmp_path: Path, digits: np.ndarray, meanwhile: Any, change: Any, model_name: str | None
) -> None:
    live = tmp_path / "live.npy"
    write_npy(live, digits)
    (tmp_path / "still").write_bytes(b"at rest")
    meanwhile(lambda: change(live))
    options = ["-m", model_name] if model_name else []
    np.save(tmp_path / "other.npy", digits[:20])
    inputs = [live, tmp_path / "still", tmp_path / "other.npy", tmp_path / "nowhere"]
    result = invoke("compress", *inputs, "-o", tmp_path / "a.vdz", "--keep-going", *options)
    assert result.exit_code == 3, result.output
    assert f"left out: {live} {CHANGED}" in result.stderr and "nowhere" in result.stderr
    assert result.stderr.splitlines()[-1] == "vaedensity: a.vdz: 2 left out, all else is packed"
    assert kept(tmp_path) == ["other.npy", "still"]


def test_a_model_that_nothing_is_left_for_is_not_used(tmp_path: Path, digits: np.ndarray, meanwhile: Any) -> None:
    live = tmp_path / "live.npy"
    write_npy(live, digits)
    (tmp_path / "still").write_bytes(b"at rest")
    meanwhile(lambda: grow(live))
    result = invoke("compress", live, tmp_path / "still", "-o", tmp_path / "a.vdz", "--keep-going", "-m", "digits")
    assert result.exit_code == 3 and "nothing is left that the model digits codes" in result.stderr, result.output
    assert kept(tmp_path) == ["still"]


def test_nothing_is_packed_where_nothing_is_left(tmp_path: Path, refused: Callable[..., str]) -> None:
    line = refused(2, "compress", tmp_path / "nowhere", "-o", tmp_path / "a.vdz", "--keep-going")
    assert "nothing is left to be packed" in line and "nowhere" in line


@pytest.mark.parametrize("keep_going", [False, True])
def test_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_going: bool) -> None:
    """One file changes after it was found, one cannot be read, one is no file."""
    from vaedensity.data import tree as trees

    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcde":
        (folder / name).write_bytes(name.encode() * 50)
    os.mkfifo(folder / "pipe")
    look, read = trees._look, trees._read_into

    def changing(source: Any, paths: Any, entry: Any, room: Any) -> None:
        if entry.name == "b":
            touch_time(folder / "b")
        if entry.name == "d":
            raise trees.UsageError("d cannot be read")
        read(source, paths, entry, room)

    monkeypatch.setattr(trees, "_read_into", changing)
    if not keep_going:
        monkeypatch.setattr(
            trees, "_look", lambda tree, paths, name, *rest: [] if name == "pipe" else look(tree, paths, name, *rest)
        )
    options = ["--keep-going"] if keep_going else []
    result = invoke("-q", "compress", folder, "-o", tmp_path / "a.vdz", "--json", *options)
    if not keep_going:
        assert result.exit_code == 2 and f"b {CHANGED}" in result.stderr
        assert not (tmp_path / "a.vdz").exists()
        return
    assert result.exit_code == 3, result.output
    left_out = json.loads(result.stdout)["left_out"]
    assert len(left_out) == 3 and "pipe is a pipe" in left_out[0] and f"b {CHANGED}" in left_out[1]
    assert kept(tmp_path) == ["in/a", "in/c", "in/e"]
