"""One file, whole or not at all: whoever else writes it, whatever was killed, whatever the system refuses."""

import errno
import itertools
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vaedensity import atomic
from vaedensity.atomic import atomic_file, exchange, remove_stale, rename_new
from vaedensity.errors import UsageError, VaedensityError

fcntl = pytest.importorskip("fcntl")
WAYS = ["as it is", "without renameat2", "without hard links"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file gets its name: what systems have differs."""

    def refuse(*names: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param != WAYS[0]:
        monkeypatch.setattr(atomic, "_renameat2", lambda: None)
    if request.param == WAYS[2]:
        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush nothing: what a killed process has written is there all the same."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def write(path: Path, data: bytes, overwrite: bool = False) -> None:
    with atomic_file(path, overwrite) as f:
        f.write(data)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def killed(work: Callable[[], object]) -> None:
    """Do ``work`` in a process of its own, which must be killed by it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at_each_line(files: set[str], before: Callable[[], object], work: Callable[[], object]) -> Iterator[int]:
    """Do ``work`` in processes that are killed before the first line they run in ``files``, before the second, and so on; each
    time it is the caller's turn to look at what is there. In the end, when no line is left to be killed at, too."""
    for last in itertools.count(1):
        before()
        child = os.fork()
        if not child:
            lines = itertools.count(1)

            def trace(frame: Any, event: str, argument: Any, last: int = last, lines: Any = lines) -> Any:
                if event == "line" and next(lines) == last:
                    die()
                return trace if frame.f_code.co_filename in files else None

            sys.settrace(trace)
            work()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        yield last
        if not status:
            assert last > 10
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


def left_by_a_killed_run(path: Path) -> None:
    def work() -> None:
        with atomic_file(path, True) as f:
            f.write(b"half")
            f.flush()
            die()

    killed(work)


def test_new_and_replaced(way: str, tmp_path: Path) -> None:
    write(tmp_path / "a", b"1")
    write(tmp_path / "a", b"2", overwrite=True)
    with pytest.raises(UsageError, match="a exists; choose another name or pass overwrite=True"):
        write(tmp_path / "a", b"3")
    assert (tmp_path / "a").read_bytes() == b"2" and names(tmp_path) == ["a"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_an_error_inside_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a", True) as f:
        f.write(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_of_two_writers_one_wins_and_the_other_is_told(way: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a exists"), atomic_file(tmp_path / "a", False) as slow:
        slow.write(b"slow")
        write(tmp_path / "a", b"fast")
    assert (tmp_path / "a").read_bytes() == b"fast" and names(tmp_path) == ["a"]


def test_of_two_writers_that_may_replace_the_last_one_wins(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a", True) as slow:
        slow.write(b"slow")
        write(tmp_path / "a", b"fast", overwrite=True)
    assert (tmp_path / "a").read_bytes() == b"slow" and names(tmp_path) == ["a"]


def test_many_writers_at_once(way: str, tmp_path: Path) -> None:
    if way == WAYS[2]:
        pytest.skip("without links and renameat2, the first look and the rename are two steps")
    gate, said = threading.Barrier(8), []

    def work(n: int) -> None:
        gate.wait()
        try:
            write(tmp_path / "a", bytes([n]) * 1000)
            said.append(n)
        except UsageError:
            pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1 and (tmp_path / "a").read_bytes() == bytes(said) * 1000 and names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["a.vdz", "with space [x]*.vdz", "x" * 250, "é" * 120])
def test_what_a_killed_run_left_goes_with_the_next(name: str, tmp_path: Path) -> None:
    left_by_a_killed_run(tmp_path / name)
    (first,) = names(tmp_path)
    left_by_a_killed_run(tmp_path / name)
    assert len(names(tmp_path)) == 1 and first not in names(tmp_path)
    write(tmp_path / name, b"new")
    assert names(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"new"


def test_a_refused_run_removes_it_too(tmp_path: Path) -> None:
    write(tmp_path / "a", b"1")
    left_by_a_killed_run(tmp_path / "a")
    with pytest.raises(UsageError):
        write(tmp_path / "a", b"2")
    assert names(tmp_path) == ["a"]


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a", True) as f:
        f.write(b"first")
        with atomic_file(tmp_path / "a", True) as g:
            g.write(b"second")
            remove_stale(tmp_path / "a")
            assert len(names(tmp_path)) == 2
        assert (tmp_path / "a").read_bytes() == b"second"
    assert (tmp_path / "a").read_bytes() == b"first" and names(tmp_path) == ["a"]


def test_workers_that_outlive_a_killed_run_keep_nothing_in_use(tmp_path: Path) -> None:
    start, end = os.pipe()
    worker_id, told = os.pipe()

    def work() -> None:
        with atomic_file(tmp_path / "a", True):
            if not os.fork():
                os.close(end)
                os.write(told, str(os.getpid()).encode())
                os.read(start, 1)  # until the test lets go
                os._exit(0)
            os.write(told, os.read(worker_id, 20))
            die()

    killed(work)
    worker = int(os.read(worker_id, 20))
    os.kill(worker, 0)  # it lives
    write(tmp_path / "a", b"new", overwrite=True)
    assert names(tmp_path) == ["a"]
    for handle in (start, end, worker_id, told):
        os.close(handle)


OTHERS = [
    ".a.partial",
    ".a.12.partial",
    ".a.notes.partial",
    ".b.12.0123456789abcdef.partial",
    ".a.b.12.0123456789abcdef.partial",
    "a.12.0123456789abcdef.partial",
    ".a.12.0123456789abcdef.partial2",
]


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    for name in OTHERS:
        (tmp_path / name).write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    (tmp_path / ".a.1.0123456789abcdef.partial").symlink_to(outside)
    (tmp_path / ".a.2.0123456789abcdef.partial").mkdir()
    os.mkfifo(tmp_path / ".a.3.0123456789abcdef.partial")
    before = names(tmp_path)
    write(tmp_path / "a", b"new")
    assert names(tmp_path) == sorted([*before, "a"]) and outside.read_bytes() == b"x"


@pytest.mark.parametrize("moment", ["opened", "locked", "removed"])
def test_a_new_file_that_is_taken_for_a_stale_one(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run looks between making and locking: the writer notices, and begins again."""
    lock, met = atomic.lock, []

    def late(handle: int) -> Any:
        if met:
            return lock(handle)
        (found,) = tmp_path.glob(".a.*.partial")
        met.append(found)
        if moment != "removed":  # the other holds the lock, and removes the file now or in a while
            other = os.open(found, os.O_RDWR)
            assert lock(other)
            if moment == "locked":
                found.unlink()
            result = lock(handle)
            os.close(other)
            return result
        remove_stale(tmp_path / "a")
        assert not found.exists()
        return lock(handle)

    monkeypatch.setattr(atomic, "lock", late)
    if moment == "removed":
        monkeypatch.setattr(atomic, "seize", lambda path, flags: os.open(path, flags))
    write(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"new" and met


@pytest.mark.parametrize("old", [b"old", None])
def test_killed_anywhere(way: str, old: bytes | None, tmp_path: Path, no_sync: None) -> None:
    path, found = tmp_path / "a", set()

    def before() -> None:
        path.unlink(missing_ok=True)
        if old:
            path.write_bytes(old)

    for _ in killed_at_each_line({atomic.__file__}, before, lambda: write(path, b"new", overwrite=bool(old))):
        found.add(path.read_bytes() if path.exists() else None)
        with suppress(UsageError):
            write(path, b"newer", overwrite=bool(old))
        assert names(tmp_path) == ["a"] and path.read_bytes() in ((b"newer",) if old else (b"newer", b"new"))
    assert found == {old, b"new"}


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by_a_killed_run(tmp_path / "a")

    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(atomic.fcntl, "flock", flock)
    write(tmp_path / "a", b"new")
    assert len(names(tmp_path)) == 2 and (tmp_path / "a").read_bytes() == b"new"


def test_a_system_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "fcntl", None)
    write(tmp_path / "a", b"1")
    write(tmp_path / "a", b"2", overwrite=True)
    assert (tmp_path / "a").read_bytes() == b"2" and names(tmp_path) == ["a"] and not atomic._held


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_the_system_refuses(call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch, pytest.raises(VaedensityError) as found:
        patch.setattr(os, call, refuse)
        write(tmp_path / "a", b"new", overwrite=True)
    assert str(found.value) == f"cannot write {tmp_path / 'a'}: {os.strerror(code)}" and found.value.exit_status == 1
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"] and not atomic._held


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VaedensityError, match="No such file"):
        write(tmp_path / "no" / "a", b"new")


def test_rename_new(way: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "d").mkdir()
    rename_new(tmp_path / "a", tmp_path / "b")
    rename_new(tmp_path / "d", tmp_path / "e")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for source, target in (("b", "e"), ("e", "b"), ("e", "empty"), ("b", "dangling"), ("e", "dangling")):
        with pytest.raises(FileExistsError):
            rename_new(tmp_path / source, tmp_path / target)
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "gone", tmp_path / "new")
    assert names(tmp_path) == ["b", "dangling", "e", "empty"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    if not exchange(tmp_path / "file", tmp_path / "folder"):
        pytest.skip("this file system exchanges nothing")
    assert (tmp_path / "file").is_dir() and (tmp_path / "folder").read_bytes() == b"x"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "file", tmp_path / "gone")
    monkeypatch.setattr(atomic, "_renameat2", lambda: None)
    assert not exchange(tmp_path / "file", tmp_path / "folder")
