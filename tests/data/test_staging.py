"""What is restored gets its place in one step, and what killed runs left is undone."""

import errno
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from killed import killed
from test_atomic import names, no_sync

from vaedensity.data import atomic, system_calls
from vaedensity.data import staging as module
from vaedensity.data.long_paths import sync_tree
from vaedensity.data.staging import Move, heal, move_into_place, staging
from vaedensity.data.system_calls import rename_new
from vaedensity.errors import UsageError, VaedensityError

pytest.importorskip("fcntl")
__all__ = ["no_sync"]  # a fixture


@pytest.fixture(params=["in one step", "in two steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How what exists is replaced."""
    if request.param == "in two steps":
        monkeypatch.setattr(system_calls, "_renameat2", lambda: None)
    return str(request.param)


def grow(path: Path, kind: str, content: bytes) -> None:
    if kind == "file":
        path.write_bytes(content)
    elif kind == "folder":
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "x").write_bytes(content)
    else:
        path.symlink_to(os.fsdecode(content))


def seen(path: Path) -> Any:
    if path.is_symlink():
        return os.readlink(path)
    return {p.name: seen(p) for p in path.iterdir()} if path.is_dir() else path.read_bytes()


def restore(folder: Path, kind: str, content: bytes, name: str = "target", overwrite: bool = True) -> None:
    with staging(folder) as stage:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        grow(stage / name, kind, content)
        move_into_place([Move(stage / name, folder / name)], overwrite)


@pytest.mark.parametrize("was", ["file", "folder"])
@pytest.mark.parametrize("new", ["file", "folder"])
def test_replaced(way: str, was: str, new: str, tmp_path: Path) -> None:
    grow(tmp_path / "target", was, b"old")
    grow(tmp_path / "expected", new, b"new")
    restore(tmp_path, new, b"new")
    assert seen(tmp_path / "target") == seen(tmp_path / "expected") and names(tmp_path) == ["expected", "target"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_not_replaced_where_it_must_not_be(way: str, kind: str, tmp_path: Path) -> None:
    grow(tmp_path / "target", kind, b"old")
    with pytest.raises(UsageError, match="target exists; choose another name or pass overwrite=True to replace it"):
        restore(tmp_path, kind, b"new", overwrite=False)
    restore(tmp_path, kind, b"new", "other", overwrite=False)
    assert seen(tmp_path / "target") == ({"deep": {"x": b"old"}} if kind == "folder" else b"old")
    assert names(tmp_path) == ["other", "target"]


@pytest.mark.parametrize("place", [".", "new/deep"])
@pytest.mark.parametrize("name", ["x", "y/z", "y/z/x.old"])
def test_relative_folders_and_nested_names(
    way: str, place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    restore(Path(place), "folder", b"old", name)
    restore(Path(place), "folder", b"new", name)
    assert seen(tmp_path / place / name) == {"deep": {"x": b"new"}}
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


def test_names_that_differ_by_an_ending(way: str, tmp_path: Path) -> None:
    for content in (b"1", b"2"):
        with staging(tmp_path) as stage:
            for name in ("x", "x.old", "old", "new"):
                grow(stage / name, "folder", content + name.encode())
            move_into_place([Move(stage / name, tmp_path / name) for name in ("x", "x.old", "old", "new")])
    assert {n: seen(tmp_path / n) for n in names(tmp_path)} == {
        n: {"deep": {"x": b"2" + n.encode()}} for n in ("x", "x.old", "old", "new")
    }


def test_it_vanishes_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "target", "folder", b"old")
    exchange = module.exchange

    def late(one: Path, other: Path) -> bool:
        other.rename(tmp_path / "moved")
        return exchange(one, other)

    monkeypatch.setattr(module, "exchange", late)
    restore(tmp_path, "folder", b"new")
    assert seen(tmp_path / "target") == {"deep": {"x": b"new"}}


def test_staging_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staging(tmp_path / "new" / "deep") as stage:
        (stage / "half").write_bytes(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_staging_keeps_the_folder_that_was_there_or_was_filled(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with staging(tmp_path / "old"):
        pass
    with staging(tmp_path / "new") as stage:
        (stage / "x").write_bytes(b"x")
        move_into_place([Move(stage / "x", tmp_path / "new" / "x")])
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["new", "new/x", "old"]


def test_two_restorations_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    with staging(tmp_path) as first:
        (first / "x").write_bytes(b"1")
        with staging(tmp_path) as second:
            (second / "x").write_bytes(b"2")
        assert (first / "x").read_bytes() == b"1"


# Killed


def dies_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int = 0, after: bool = False) -> None:
    """The process is killed at the n-th call of a function, before or after what it does."""
    function, left = getattr(owner, name), [call]

    def last(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0 and not after:
            os.kill(os.getpid(), 9)
        result = function(*arguments, **options)
        if left[0] < 0:
            os.kill(os.getpid(), 9)
        return result

    monkeypatch.setattr(owner, name, last)


def kill_a_run(folder: Path, kind: str, *where: Any, steps: str = "two", **options: Any) -> None:
    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            if steps == "two":
                patch.setattr(system_calls, "_renameat2", lambda: None)
            dies_at(patch, *where, **options)
            restore(folder, kind, b"new")

    killed(work)


@pytest.mark.parametrize("was", ["file", "folder"])
def test_killed_between_the_two_renames(was: str, tmp_path: Path) -> None:
    grow(tmp_path / "target", was, b"old")
    grow(tmp_path / "expected", "folder", b"new")
    kill_a_run(tmp_path, "folder", os, "rename", after=True)
    assert not os.path.lexists(tmp_path / "target") and len(names(tmp_path)) == 2
    heal(tmp_path)
    assert seen(tmp_path / "target") == seen(tmp_path / "expected") and names(tmp_path) == ["expected", "target"]


@pytest.mark.parametrize(
    ("steps", "owner", "name", "options", "expected"),
    [
        ("two", os, "replace", {}, b"old"),
        ("two", os, "rename", {}, b"new"),
        ("two", os, "rename", {"call": 1, "after": True}, b"new"),
        ("two", module, "remove_tree", {}, b"new"),
        ("one", module, "exchange", {}, b"old"),
        ("one", module, "exchange", {"after": True}, b"new"),
        ("one", module, "sync_tree", {}, b"old"),
        ("one", os, "mkdir", {"after": True}, b"old"),
    ],
)
def test_killed_elsewhere(steps: str, owner: Any, name: str, options: Any, expected: bytes, tmp_path: Path) -> None:
    grow(tmp_path / "target", "folder", b"old")
    kill_a_run(tmp_path, "folder", owner, name, steps=steps, **options)
    assert len(names(tmp_path)) == 2
    heal(tmp_path)
    assert seen(tmp_path / "target") == {"deep": {"x": expected}} and names(tmp_path) == ["target"]
    restore(tmp_path, "folder", b"newer")
    assert seen(tmp_path / "target") == {"deep": {"x": b"newer"}} and names(tmp_path) == ["target"]


STEPS = (
    (module, "rename_new"),
    (module, "exchange"),
    (os, "rename"),
    (os, "replace"),
    (module, "sync_folder"),
    (os, "mkdir"),
)


def at_step(patch: pytest.MonkeyPatch, number: int, meet: Callable[[], object]) -> list[str]:
    """Have ``meet`` called before the n-th of the STEPS that are taken; returns what is taken."""
    taken: list[str] = []

    def meeting(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def first(*arguments: Any, **options: Any) -> Any:
            taken.append(name)
            if len(taken) == number:
                meet()
            return function(*arguments, **options)

        patch.setattr(owner, name, first)

    for owner, name in STEPS:
        meeting(owner, name)
    return taken


def killed_at_each_step(before: Callable[[], Any], work: Callable[[], object]) -> Iterator[Any]:
    """Do ``work`` in processes that are killed before the first step, the second, and so on, until none is left.

    Yields each time what ``before`` has returned.
    """
    for number in itertools.count(1):
        made, child = before(), os.fork()
        if not child:
            with pytest.MonkeyPatch.context() as patch:
                at_step(patch, number, lambda: os.kill(os.getpid(), 9))
                work()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        yield made
        if not status:
            assert number > 3
            return


@pytest.mark.parametrize(("kind", "old"), [("folder", b"old"), ("file", b"old"), ("folder", None)])
def test_killed_anywhere(way: str, kind: str, old: bytes | None, tmp_path: Path, no_sync: None) -> None:
    place, found = tmp_path / "place", []

    def content(data: bytes | None) -> Any:
        return {"deep": {"x": data}} if kind == "folder" and data else data

    def before() -> None:
        shutil.rmtree(place, ignore_errors=True)
        if old:
            place.mkdir()
            grow(place / "target", kind, old)

    for _ in killed_at_each_step(before, lambda: restore(place, kind, b"new", overwrite=bool(old))):
        heal(place)
        found.append(seen(place / "target") if (place / "target").exists() else None)
        assert found[-1] in (content(old), content(b"new"))
        restore(place, kind, b"newer")
        assert seen(place) == {"target": content(b"newer")}
    assert found[0] == content(old) and found[-1] == content(b"new")


def test_what_came_since_is_not_replaced_by_the_old(tmp_path: Path) -> None:
    grow(tmp_path / "target", "folder", b"old")
    kill_a_run(tmp_path, "folder", os, "rename", after=True)
    grow(tmp_path / "target", "file", b"since")
    heal(tmp_path)
    assert seen(tmp_path / "target") == b"since" and names(tmp_path) == ["target"]


def test_what_cannot_be_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "target", "folder", b"old")
    kill_a_run(tmp_path, "folder", os, "rename", after=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "rename_new", refusing(errno.EROFS))
        heal(tmp_path)
    assert "target" not in names(tmp_path)
    heal(tmp_path)
    assert seen(tmp_path / "target") == {"deep": {"x": b"new"}} and names(tmp_path) == ["target"]


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    with staging(tmp_path) as stage:
        grow(stage / "target", "folder", b"new")
        heal(tmp_path)
        with staging(tmp_path):
            assert len(names(tmp_path)) == 2
        move_into_place([Move(stage / "target", tmp_path / "target")])
    assert names(tmp_path) == ["target"]


def test_a_stage_that_is_taken_for_a_stale_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, met = atomic.lock, []

    def late(handle: int) -> Any:
        if not met:
            met.append(handle)
            heal(tmp_path)
            assert names(tmp_path) == []
        return lock(handle)

    monkeypatch.setattr(atomic, "lock", late)
    restore(tmp_path, "folder", b"new")
    assert names(tmp_path) == ["target"] and met


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    stage = ".vaedensity.0123456789abcde{}.partial"
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "new").mkdir()
    (tmp_path / stage.format(0)).symlink_to("real")
    (tmp_path / stage.format(1)).write_bytes(b"x")
    (tmp_path / stage.format(2)).mkdir()
    (tmp_path / stage.format(2) / "mine").mkdir()
    (tmp_path / ".vaedensity.partial").mkdir()
    before = names(tmp_path)
    heal(tmp_path)
    assert names(tmp_path) == before and (tmp_path / "real" / "new").exists()


@pytest.mark.parametrize("place", ["../outside", "/outside", "a/../../outside"])
def test_a_journal_cannot_send_anything_out_of_the_folder(place: str, tmp_path: Path) -> None:
    stage = tmp_path / "folder" / ".vaedensity.0123456789abcdef.partial"
    (stage / "new").mkdir(parents=True)
    (stage / "new" / "x").write_bytes(b"planted")
    target = place if place[0] != "/" else str(tmp_path / "outside")
    entry = {"number": 0, "staged": "new/x", "target": target, "new": module._mark(stage / "new" / "x"), "old": None}
    (stage / "finish").write_text(json.dumps([entry | {"made": 0}]))
    heal(tmp_path / "folder")
    assert names(tmp_path) == ["folder"] and stage.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_what_is_another_users_stays(tmp_path: Path) -> None:
    stage = tmp_path / ".vaedensity.0123456789abcdef.partial"
    stage.mkdir()
    os.chown(stage, 65534, 65534)
    heal(tmp_path)
    assert stage.exists()


# Links, permissions


@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("was", ["file", "folder", None])
@pytest.mark.parametrize("place", ["beside", "elsewhere/deep"])
def test_what_a_link_leads_to_is_replaced(way: str, new: str, was: str | None, place: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "target").symlink_to("middle")
    (tmp_path / "out" / "middle").symlink_to(tmp_path / place)
    if was:
        grow(tmp_path / place, was, b"old")
    grow(tmp_path / "expected", new, b"new")
    restore(tmp_path / "out", new, b"new")
    assert names(tmp_path / "out") == ["middle", "target"] and os.readlink(tmp_path / "out" / "target") == "middle"
    assert seen(tmp_path / place) == seen(tmp_path / "expected")
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


def test_a_link_that_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "target").symlink_to("target")
    with pytest.raises(UsageError, match="target is a link that leads back to itself"):
        restore(tmp_path, "file", b"new")
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_permissions_of_what_is_replaced_stay(way: str, kind: str, tmp_path: Path) -> None:
    grow(tmp_path / "target", kind, b"old")
    (tmp_path / "target").chmod(0o710)
    restore(tmp_path, kind, b"new")
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o710
    with staging(tmp_path) as stage:
        grow(stage / "x", kind, b"newer")
        (stage / "x").chmod(0o705)
        move_into_place([Move(stage / "x", tmp_path / "target", mode=False)])
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o705


# Several at once

BEFORE = {"a": ("file", b"old"), "b": ("folder", b"old"), "c": None, "d/e": None, "f": ("folder", b"old")}


def several(folder: Path, overwrite: bool = True) -> None:
    with staging(folder) as stage:
        moves = []
        for n, name in enumerate(BEFORE):
            (stage / name).parent.mkdir(exist_ok=True)
            grow(stage / name, "folder" if n % 2 else "file", b"new")
            moves.append(Move(stage / name, folder / name))
        move_into_place(moves, overwrite)


def ready(folder: Path, overwrite: bool) -> tuple[Any, Any]:
    """What is there before and after."""
    for place in ("old", "new", "x"):
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).mkdir(parents=True)
    for name, what in BEFORE.items():
        if what and overwrite:
            grow(folder / "old" / name, *what)
            grow(folder / "x" / name, *what)
    several(folder / "new")
    return seen(folder / "old"), seen(folder / "new")


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_all_or_nothing_when_a_step_fails(
    way: str, overwrite: bool, error: BaseException, tmp_path: Path, no_sync: None
) -> None:
    def fail() -> None:
        raise error

    for number in itertools.count(1):
        old, new = ready(tmp_path, overwrite)
        with pytest.MonkeyPatch.context() as patch:
            taken = at_step(patch, number, fail)
            try:
                several(tmp_path / "x", overwrite)
            except (VaedensityError, OSError, KeyboardInterrupt):
                assert seen(tmp_path / "x") == old
            else:
                assert seen(tmp_path / "x") == new
        if len(taken) < number:  # none is left to fail
            break
    assert number > 10


def test_all_or_nothing_when_one_is_in_the_way(way: str, tmp_path: Path) -> None:
    ready(tmp_path, False)
    (tmp_path / "x" / "f").write_bytes(b"somebody's")
    with pytest.raises(UsageError, match="f exists"):
        several(tmp_path / "x", False)
    assert seen(tmp_path / "x") == {"f": b"somebody's"}


@pytest.mark.parametrize("overwrite", [True, False])
def test_all_or_nothing_when_killed(way: str, overwrite: bool, tmp_path: Path, no_sync: None) -> None:
    """Once the next run has come, all is old or all is new."""
    kinds = set()
    for old, new in killed_at_each_step(lambda: ready(tmp_path, overwrite), lambda: several(tmp_path / "x", overwrite)):
        heal(tmp_path / "x")
        found = {name: content for name, content in seen(tmp_path / "x").items() if content}
        assert found in (old, new)
        kinds.add(found == new)
    assert kinds == {True, False}


def test_killed_while_it_is_undone(way: str, tmp_path: Path, no_sync: None) -> None:
    do = module._Entry.do

    def refused(self: Any, stage: Path, overwrite: bool) -> None:
        if self.number == 3:
            raise VaedensityError("rejected")
        do(self, stage, overwrite)

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch, suppress(VaedensityError):
            patch.setattr(module._Entry, "do", refused)
            several(tmp_path / "x")

    for old, new in killed_at_each_step(lambda: ready(tmp_path, True), work):
        heal(tmp_path / "x")
        found = {name: content for name, content in seen(tmp_path / "x").items() if content}
        assert found in (old, new)
    assert found == old


# Refused


def refusing(code: int) -> Callable[..., Any]:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize(
    ("call", "kind"),
    [("fsync", "file"), ("fsync", "folder"), ("replace", "file"), ("rename", "folder"), ("mkdir", "folder")],
)
def test_the_system_refuses(call: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "target", kind, b"old")
    before = seen(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(VaedensityError) as found:
        patch.setattr(system_calls, "_renameat2", lambda: None)
        with staging(tmp_path) as stage:
            grow(stage / "target", kind, b"new")
            patch.setattr(os, call, refusing(errno.ENOSPC))
            move_into_place([Move(stage / "target", tmp_path / "target")])
    assert str(found.value) == f"cannot write {tmp_path / 'target'}: No space left on device"
    assert seen(tmp_path) == before and not atomic._held


def test_a_folder_in_which_nothing_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, tmp_path / "new"):
        with monkeypatch.context() as patch, pytest.raises(VaedensityError, match=r"cannot write to .*Read-only"):
            patch.setattr(os, "mkdir", refusing(errno.EROFS))
            with staging(folder):
                pass
    assert names(tmp_path) == []


def test_the_second_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "target", "folder", b"old")
    calls = []

    def second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename_new(source, target)

    monkeypatch.setattr(system_calls, "_renameat2", lambda: None)
    monkeypatch.setattr(module, "rename_new", second)
    with staging(tmp_path) as stage:
        grow(stage / "target", "folder", b"new")
        with pytest.raises(VaedensityError, match="No space left"):
            move_into_place([Move(stage / "target", tmp_path / "target")])
    assert seen(tmp_path / "target") == {"deep": {"x": b"old"}}
    assert len(calls) == 4 and names(tmp_path) == ["target"]


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A folder that every user can reach and write to; pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_folders_that_their_owner_may_not_write_to(mode: int, anyones: Path) -> None:
    """The new one keeps its mode, and the old one is removed with all in it; not as root, who may do anything."""
    child = os.fork()
    if not child:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            for content in (b"1", b"2"):
                with staging(anyones / "out") as stage:
                    grow(stage / "target", "folder", content)
                    for path in (stage / "target" / "deep", stage / "target"):
                        path.chmod(mode)
                    move_into_place([Move(stage / "target", anyones / "out" / "target")])
            status = 0
        except BaseException as error:
            print(repr(error))
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    target = anyones / "out" / "target"
    assert names(anyones / "out") == ["target"] and stat.S_IMODE(target.stat().st_mode) == mode
    for path in (target, target / "deep"):
        path.chmod(0o755)
    assert seen(target) == {"deep": {"x": b"2"}}


def test_sync_tree_walks_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for n in range(40):
        (tmp_path / str(n)).write_bytes(b"x")
    sync_tree(tmp_path)
    sync_tree(tmp_path / "0")
    sync_tree(tmp_path / "dangling")
