"""What befalls a command in a process forked for it: kills, refused writes, short reads, a file system of its own."""

import builtins
import ctypes
import io
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vaedensity.cli.main import main
from vaedensity.data import atomic, staging, system_calls

TIMEOUT = 120.0


class Run(NamedTuple):
    status: int  # minus the number of a signal
    said: str
    reported: int = 0  # by the fault


class Process:
    """A command in a forked process that leads a group of its own.

    ``fault`` is called in it first. What that returns is called last, and its number is reported.
    """

    def __init__(self, command: list[str], folder: Path, fault: Callable[[], Any] = lambda: None):
        self.line, told = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads: none is at work
            self.pid = os.fork()
        if self.pid:
            os.close(told)
            return
        status = 1
        try:
            os.setsid()
            os.close(self.line)
            os.chdir(folder)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(told, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            finish = fault()
            try:
                main(command, prog_name="vaedensity")
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if finish:
                os.write(told, f"\0{finish()}".encode())
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        os._exit(status)

    def wait(self) -> Run:
        end = time.monotonic() + TIMEOUT
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"a command that did not end within {TIMEOUT} s")
            time.sleep(0.001)
        os.set_blocking(self.line, False)  # workers of a killed process may have its other end for a while
        data = b""
        with suppress(BlockingIOError):
            while part := os.read(self.line, 1 << 16):
                data += part
        os.close(self.line)
        said, _, number = data.decode(errors="replace").partition("\0")
        return Run(os.waitstatus_to_exitcode(status), said, int(number or 0))

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """With all its workers."""
        os.kill(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """To the whole group, if it is there yet."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


# Each of these is called in the process that is to meet it


def die_at_line(line: int) -> Callable[[], int]:
    """Be killed before the n-th line that is executed in the modules that give files their names."""
    files, count = {atomic.__file__, staging.__file__, system_calls.__file__}, 0

    def local(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == line:
                os.killpg(0, signal.SIGKILL)
        return local

    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename in files else None)
    return lambda: count


def limit_files(size: int) -> None:
    """No file grows beyond ``size`` bytes: the system writes what fits, then says EFBIG."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def fail_at_operation(number: int, code: int) -> Callable[[], int]:
    """The n-th of all writes, renames, links, flushes and new folders fails; each third write is short."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == number:
            raise OSError(code, os.strerror(code))

    def failing(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def first(*arguments: Any, **options: Any) -> Any:
            tick()
            return function(*arguments, **options)

        setattr(owner, name, first)

    class Raw(io.FileIO):
        def write(self, data: Any) -> int | None:
            tick()
            view = memoryview(data).cast("B")
            return super().write(view[: max(1, len(view) // 2)] if count % 3 == 0 else view)

    for name in ("fsync", "link", "replace", "rename", "mkdir"):
        failing(os, name)
    failing(system_calls, "_rename_with")
    open_files_as(Raw, "wxa+")
    return lambda: count


def read_little(seed: int) -> None:
    """Each read gives fewer bytes than were asked for."""
    chance, read, pread = random.Random(seed), os.read, os.pread

    class Raw(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            view = memoryview(buffer).cast("B")
            return super().readinto(view[: chance.randint(1, len(view))] if len(view) else view)

    open_files_as(Raw, "r")
    os.read = lambda handle, size: read(handle, chance.randint(1, size) if size else 0)
    os.pread = lambda handle, size, at: pread(handle, chance.randint(1, size) if size else 0, at)


def open_files_as(kind: type[io.FileIO], modes: str) -> None:
    """Binary files opened in Python in any of ``modes`` are of this ``kind`` below their buffers."""
    plain = builtins.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        if "b" not in mode or not set(mode) & set(modes) or isinstance(file, int) or buffering == 0:
            return plain(file, mode, buffering, *rest, **options)
        raw = kind(file, mode.replace("b", ""), opener=options.get("opener"))
        if "+" in mode:
            return io.BufferedRandom(raw)
        return io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)

    builtins.open = io.open = opened  # type: ignore[assignment]


READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 1 << 14, 1 << 18
NEW_NAMESPACE, NEW_USER = 0x20000, 0x10000000


def own_file_system(folder: Path) -> None:
    """A small, empty file system at ``folder``, which only this process and its children see.

    Raises OSError where that is not allowed.
    """
    user, group = os.geteuid(), os.getegid()
    call("unshare", NEW_NAMESPACE | (0 if user == 0 else NEW_USER))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount(Path("/"), "", RECURSIVE | PRIVATE, "")
    mount(folder, "tmpfs", 0, "size=16m")


def remount(folder: Path, read_only: bool) -> None:
    mount(folder, "", REMOUNT | (READ_ONLY if read_only else 0), "")


def mount(target: Path, kind: str, flags: int, options: str) -> None:
    call("mount", b"none", os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())


def call(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
