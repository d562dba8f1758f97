"""Folders deeper than Python recurses, and paths longer than the system takes, wherever trees are gone through."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import invoke
from killed import die, killed
from rejections import Done

from vaedensity.data import staging
from vaedensity.data.collection import LoadOptions
from vaedensity.data.load import load_array
from vaedensity.data.long_paths import LongPaths, make_folders, remove_tree, sync_tree
from vaedensity.data.tree import scan
from vaedensity.data.tree_meta import LONGEST_NAME
from vaedensity.errors import UsageError

pytestmark = [
    pytest.mark.usefixtures("no_released"),
    pytest.mark.skipif(os.name == "nt", reason="by descriptors of folders"),
]
SHAPES = {"1200 levels": ["d"] * 1200, "beyond PATH_MAX": ["n" * 200] * 40, "both": ["m" * 20] * 1100}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, as pytest itself cannot remove such trees; in memory where that can be had."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield folder
    remove_tree(folder)


def dig(folder: Path, names: list[str], mode: int = 0o755) -> Path:
    """Folders in one another, in the innermost a file, a link and an empty folder."""
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, 0o755, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    with open("leaf", "wb", opener=lambda path, flags: os.open(path, flags, 0o640, dir_fd=handle)) as f:
        f.write(b"x")
    os.symlink("../" * min(len(names), 1300) + names[0], "up", dir_fd=handle)
    os.mkdir("empty", mode, dir_fd=handle)
    os.utime("leaf", ns=(0, 123456789), dir_fd=handle)
    os.close(handle)
    return folder


def bottom(folder: Path, names: list[str]) -> dict[str, Any]:
    """What is in the innermost."""
    with LongPaths(os.fspath(folder)) as paths:
        inner = "/".join(names)
        found: dict[str, Any] = {}
        for name in paths.list(inner):
            state = paths.state(f"{inner}/{name}")
            found[name] = (stat.S_IMODE(state.st_mode), state.st_mtime_ns if name == "leaf" else None)
    return found


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back(shape: str, engine: str, home: Path, done: Done) -> None:
    names = SHAPES[shape]
    tree = dig(home / "deep", names)
    done("compress", tree, "-o", home / "deep.vdz")
    done("test", home / "deep.vdz")
    done("list", home / "deep.vdz")
    for force in ([], ["-f"]):
        done("decompress", home / "deep.vdz", "-o", home / "out", "--engine", engine, *force)
        assert bottom(home / "out" / "deep", names) == bottom(tree, names)
        assert [p.name for p in (home / "out").iterdir()] == ["deep"]
    (home / "other").write_text("hello")
    done("compress", home / "other", "-o", home / "other.vdz")
    done("decompress", home / "other.vdz", "-o", home / "out")
    assert sorted(p.name for p in (home / "out").iterdir()) == ["deep", "other"]


def test_one_item_of_a_deep_tree(home: Path, done: Done) -> None:
    names = SHAPES["1200 levels"]
    done("compress", dig(home / "deep", names), "-o", home / "deep.vdz")
    done("decompress", home / "deep.vdz", "-o", home / "out", "--item", "/".join([*names, "leaf"]))
    assert list(bottom(home / "out" / "deep", names)) == ["leaf"]


@pytest.mark.parametrize("moment", ["sync_tree", "_place", "remove_tree"])
@pytest.mark.parametrize("shape", ["1200 levels", "beyond PATH_MAX"])
def test_what_a_killed_run_left_is_healed(moment: str, shape: str, home: Path, done: Done) -> None:
    names = SHAPES[shape]
    done("compress", dig(home / "deep", names), "-o", home / "deep.vdz")

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(staging, moment, lambda *arguments, **options: die())
            invoke("decompress", home / "deep.vdz", "-o", home / "out")

    killed(work)
    assert any(p.name.endswith(".partial") for p in (home / "out").iterdir())
    (home / "other").write_text("hello")
    done("compress", home / "other", "-o", home / "other.vdz")
    done("decompress", home / "other.vdz", "-o", home / "out")
    there = ["deep", "other"] if moment == "remove_tree" else ["other"]
    assert sorted(p.name for p in (home / "out").iterdir()) == there


def test_what_cannot_be_moved_is_removed(home: Path, done: Done) -> None:
    done("compress", dig(home / "deep", SHAPES["1200 levels"]), "-o", home / "deep.vdz")
    (home / "out").mkdir()

    def refuse(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "_place", refuse)
        result = invoke("decompress", home / "deep.vdz", "-o", home / "out")
    assert result.exit_code == 1 and "Input/output error" in result.stderr and list((home / "out").iterdir()) == []


def test_read_for_models_of_series(home: Path) -> None:
    names = SHAPES["1200 levels"]
    tree = dig(home / "deep", names)
    with LongPaths(os.fspath(tree)) as paths:
        link, where = paths.at("/".join([*names, "up"]))
        os.unlink(link, **where)
    found, data = load_array(str(tree), LoadOptions(as_bytes=None))  # which looks for images first
    assert bytes(data) == b"x" and found.files == (("/".join([*names, "leaf"]), 1),)


def test_paths_beyond_what_archives_hold_are_rejected(home: Path) -> None:
    dig(home / "deep", ["n" * 250] * (LONGEST_NAME // 251 + 1))
    with pytest.raises(UsageError, match=r"is a path of .* characters, archives hold 32768 at most"):
        scan(home / "deep")


def test_removed_whatever_its_permissions(home: Path) -> None:
    dig(home / "deep", ["d"] * 1200, mode=0o000)
    (home / "deep" / "d").chmod(0o500)
    (home / "deep").chmod(0o000)
    sync_tree(home / "deep")
    remove_tree(home / "deep")
    assert not (home / "deep").exists()
    remove_tree(home / "deep")


def test_removing_follows_no_links(home: Path) -> None:
    dig(home / "kept", ["d"])
    (home / "deep").mkdir()
    (home / "deep" / "link").symlink_to(home / "kept")
    remove_tree(home / "deep")
    assert (home / "kept" / "d" / "leaf").read_bytes() == b"x" and not (home / "deep").exists()


def test_few_descriptors_are_held(home: Path) -> None:
    import resource

    tree = dig(home / "deep", ["m" * 20] * 1500)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, limits[1]))
    try:
        assert len(scan(tree).entries) == 1503
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_folders_are_made_one_by_one(home: Path) -> None:
    make_folders(home.joinpath(*["e"] * 1200))
    make_folders(home)
    with pytest.raises(OSError):
        (home / "file").touch()
        make_folders(home / "file" / "below")
    assert home.joinpath(*["e"] * 1200).is_dir()


def test_names_are_found_again_in_any_order(home: Path) -> None:
    """Folders that are held open are let go where a name is not inside them."""
    tree = dig(home / "deep", ["a" * 100] * 60)
    inner = "/".join(["a" * 100] * 60)
    with LongPaths(os.fspath(tree)) as paths:
        for name in (f"{inner}/leaf", "a" * 100, inner, f"{inner}/empty", "", f"{inner}/leaf"):
            assert paths.state(name).st_ino
        (tree / ("a" * 99 + "b")).mkdir()
        assert paths.list("a" * 99 + "b") == [] and len(paths.list(inner)) == 3
