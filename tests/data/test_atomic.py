"""One file, whole or not at all: whoever else writes it, whatever was killed, whatever the system refuses."""

import errno
import itertools
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from killed import die, killed

from vaedensity.data import atomic, system_calls
from vaedensity.data.atomic import atomic_file, remove_stale
from vaedensity.data.system_calls import exchange, rename_new
from vaedensity.data.targets import keep_attributes
from vaedensity.errors import UsageError, VaedensityError

fcntl = pytest.importorskip("fcntl")
WAYS = ["as it is", "without renameat2", "without hard links"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file gets its name: what systems have differs."""

    def refuse(*names: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param != WAYS[0]:
        monkeypatch.setattr(system_calls, "_renameat2", lambda: None)
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


def killed_at_each_line(files: set[str], before: Callable[[], object], work: Callable[[], object]) -> Iterator[int]:
    """Do ``work`` in processes that are killed before the first line they run in ``files``, the second, and so on.

    Each time, and when no line is left to be killed at, it is the caller's turn to look at what is there.
    """
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
    ".a.metas.partial",
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

    for _ in killed_at_each_line(
        {atomic.__file__, system_calls.__file__}, before, lambda: write(path, b"new", overwrite=bool(old))
    ):
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
    monkeypatch.setattr(system_calls, "_renameat2", lambda: None)
    assert not exchange(tmp_path / "file", tmp_path / "folder")


# What is replaced


def links_to(place: Path, folder: Path) -> Path:
    """A link to a relative link to ``place``."""
    (folder / "links").mkdir()
    (folder / "links" / "second").symlink_to(os.path.relpath(place, folder / "links"))
    (folder / "first").symlink_to(folder / "links" / "second")
    return folder / "first"


@pytest.mark.parametrize("old", [b"old", None])
def test_links_are_written_through(way: str, old: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    place = tmp_path / "disk" / "a"
    if old:
        place.write_bytes(old)
    link = links_to(place, tmp_path)
    with pytest.raises(UsageError, match="first exists"):
        write(link, b"new")
    write(link, b"new", overwrite=True)
    assert place.read_bytes() == b"new" and os.readlink(link) == str(tmp_path / "links" / "second")
    assert names(tmp_path) == ["disk", "first", "links"] and names(tmp_path / "disk") == ["a"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError, match="a is a folder; expected the name of a file to make"):
        write(tmp_path / "a", b"new", overwrite=True)
    assert names(tmp_path) == ["a"]


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="a is a link that leads back to itself"):
        write(tmp_path / "a", b"new", overwrite=True)
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("spelling", ["/proc/self/fd/{}", "/dev/fd/{}", "/proc/thread-self/fd/{}", "link"])
@pytest.mark.skipif(sys.platform != "linux", reason="open files have such names on Linux")
def test_open_files_are_not_replaced(spelling: str, tmp_path: Path) -> None:
    with open(tmp_path / "got", "w+b") as f:
        path = Path(spelling.format(f.fileno()))
        if spelling == "link":
            path = tmp_path / "stdout"
            path.symlink_to(f"/proc/self/fd/{f.fileno()}")
        before = names(tmp_path)
        with pytest.raises(UsageError, match="is an open file, such as standard output"):
            write(path, b"new", overwrite=True)
        assert names(tmp_path) == before and os.path.samestat(os.fstat(f.fileno()), os.stat(tmp_path / "got"))


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("kind", ["device", "pipe", "socket"])
def test_what_is_no_file_is_not_replaced(
    kind: str, linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path("/dev/null") if kind == "device" else Path("special")
    listening = socket.socket(socket.AF_UNIX)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listening.bind("special")
    link = links_to(path.absolute(), tmp_path) if linked else path
    before = names(tmp_path)
    with pytest.raises(UsageError, match="is a device or pipe; expected the name of a file to make"):
        write(link, b"new", overwrite=True)
    listening.close()
    assert names(tmp_path) == before and not stat.S_ISREG(os.stat(path).st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444 | 0o200, 0o777])
def test_permissions_stay(way: str, mode: int, tmp_path: Path) -> None:
    write(tmp_path / "a", b"old")
    (tmp_path / "a").chmod(mode)
    with atomic_file(tmp_path / "a", True) as f:
        assert stat.S_IMODE(os.fstat(f.fileno()).st_mode) & 0o077 == 0, "others cannot read it meanwhile"
        f.write(b"new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode and (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_stays(tmp_path: Path) -> None:
    write(tmp_path / "a", b"old")
    os.chown(tmp_path / "a", 65534, 65533)
    write(tmp_path / "a", b"new", overwrite=True)
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid) == (65534, 65533)


def test_where_the_group_cannot_stay_its_members_get_no_more_than_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", b"old")
    (tmp_path / "a").chmod(0o664)
    stranger = os.stat_result((*os.lstat(tmp_path / "a")[:5], 12345, *os.lstat(tmp_path / "a")[6:10]))

    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "b").touch()
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: stranger if path == tmp_path / "a" else lstat(path))
    monkeypatch.setattr(os, "chown", refuse)
    keep_attributes(tmp_path / "a", tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no such attributes")
def test_attributes_stay(tmp_path: Path) -> None:
    write(tmp_path / "a", b"old")
    try:
        os.setxattr(tmp_path / "a", "user.meta", b"mine")
    except OSError:
        pytest.skip("a file system without attributes")
    write(tmp_path / "a", b"new", overwrite=True)
    assert os.getxattr(tmp_path / "a", "user.meta") == b"mine"


def test_hard_links_keep_what_they_had(tmp_path: Path) -> None:
    write(tmp_path / "a", b"old")
    os.link(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "a", b"new", overwrite=True)
    assert (tmp_path / "b").read_bytes() == b"old" and (tmp_path / "a").read_bytes() == b"new"


def as_nobody(work: Callable[[], object]) -> None:
    """Do ``work`` in a process of its own without root's permission to do everything."""
    child = os.fork()
    if not child:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.__stderr__)
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_what_may_not_be_written_to() -> None:
    with tempfile.TemporaryDirectory() as folder:  # that every user can reach; pytest's own are not
        home = Path(folder)
        home.chmod(0o777)
        (home / "shut").mkdir(0o755)
        (home / "shut" / "b").write_bytes(b"old")
        (home / "shut" / "b").chmod(0o666)
        (home / "shut").chmod(0o555)
        (home / "a").write_bytes(b"old")
        (home / "a").chmod(0o444)

        def work() -> None:
            with pytest.raises(UsageError, match="a is write-protected; make it writable or choose another name"):
                write(home / "a", b"new", overwrite=True)
            for name in ("b", "new"):
                with pytest.raises(VaedensityError, match=f"cannot write .*{name}: nothing can be made in .*shut"):
                    write(home / "shut" / name, b"new", overwrite=True)

        as_nobody(work)
        assert names(home) == ["a", "shut"] and names(home / "shut") == ["b"]
        assert (home / "a").read_bytes() == (home / "shut" / "b").read_bytes() == b"old"
