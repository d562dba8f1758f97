"""Folders of any depth: paths longer than the system takes are made, visited, flushed and removed without recursion."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ctypes import c_int
from pathlib import Path
from typing import Any

from vaedensity.data.system_calls import sync_folder, system_call

STEP = 1 << 10  # bytes of a path that are given to the system at once
BY_DESCRIPTOR = {os.open, os.stat, os.mkdir, os.rmdir, os.unlink} <= os.supports_dir_fd
MANY = 16  # files and folders whose flushes one by one take longer than one of all that the system has to write
OPEN_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
ONLY_PASS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)  # asks for no more than a path does


class LongPaths:
    """Access to what lies below the folder ``root``, by names of any length. A context manager; raises OSError.

    Long names are walked through open folders, part by part. A name is relative, with the system's separator, str or
    bytes as ``root`` is; the empty one is ``root`` itself.
    """

    def __init__(self, root: Any):
        self.root = root
        # folders that are open, each inside the one before
        self._held = [(root[:0], os.open(root, ONLY_PASS))] if BY_DESCRIPTOR else []

    def __enter__(self) -> "LongPaths":
        return self

    def __exit__(self, *error: object) -> None:
        while self._held:
            os.close(self._held.pop()[1])

    def at(self, name: Any) -> tuple[Any, dict[str, Any]]:
        """A path and the ``dir_fd`` that it begins at, for the functions of `os`; valid until the next call."""
        if not BY_DESCRIPTOR:
            return (os.path.join(self.root, name) if name else self.root), {}
        slash = b"/" if isinstance(name, bytes) else "/"
        while len(self._held) > 1 and not name.startswith(self._held[-1][0] + slash):
            os.close(self._held.pop()[1])
        while True:
            held, handle = self._held[-1]
            rest = name[len(held) + 1 :] if held else name
            if len(rest) <= STEP:
                return rest or (b"." if isinstance(name, bytes) else "."), {"dir_fd": handle}
            cut = rest.rfind(slash, 0, STEP)
            if cut <= 0:
                return rest, {"dir_fd": handle}
            self._held.append((name[: len(name) - len(rest) + cut], os.open(rest[:cut], ONLY_PASS, dir_fd=handle)))

    def state(self, name: Any) -> os.stat_result:
        """What `os.stat` says, links not followed but for ``root`` itself."""
        path, where = self.at(name)
        return os.stat(path, follow_symlinks=not name, **where)

    def open(self, name: Any, flags: int, mode: int = 0o777) -> int:
        """As `os.open`."""
        path, where = self.at(name)
        return os.open(path, flags, mode, **where)

    def opener(self, name: Any, flags: int) -> int:
        """What the function `open` takes as ``opener``."""
        return self.open(name, flags, 0o666)

    def list(self, name: Any) -> list[Any]:
        """The names in a folder, of the type of ``name``."""
        if not BY_DESCRIPTOR:
            return os.listdir(self.at(name)[0])
        handle = self.open(name, OPEN_FOLDER | (os.O_NOFOLLOW if name else 0))
        try:
            found = os.listdir(handle)
        finally:
            os.close(handle)
        return [os.fsencode(one) for one in found] if isinstance(name, bytes) else found

    def walk(
        self,
        refused: Callable[[Any, OSError], object],
        left_out: Callable[[os.stat_result, Any], bool] = lambda folder, name: False,
    ) -> Iterator[tuple[Any, os.stat_result]]:
        """(name, state) of all that is below, folders before what is in them; links are not followed.

        ``refused`` is called with the name of what cannot be looked at, which is passed over. So is what ``left_out``
        says of a folder's state and a name in it.
        """
        waiting = [self.root[:0]]
        while waiting:
            name = waiting.pop()
            try:
                state = self.state(name)
                inside = self.list(name) if not name or stat.S_ISDIR(state.st_mode) else []
            except OSError as error:
                refused(name, error)
                continue
            if name:
                yield name, state
            waiting += [os.path.join(name, one) for one in inside if not left_out(state, one)]


def make_folders(folder: Path) -> None:
    """Make a folder and those that it lies in, where they are missing. Raises OSError."""
    for path in reversed(missing(folder)):
        path.mkdir(exist_ok=True)
    if not folder.is_dir():
        folder.mkdir()  # says what is in the way


def missing(folder: Path) -> list[Path]:
    """Which of a folder and those that it lies in are not there, innermost first."""
    found = []
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            break
        found.append(path)
    return found


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove ``folders``, innermost first, up to the first that holds something."""
    with suppress(OSError):
        for path in folders:
            path.rmdir()


def remove_tree(root: Path) -> None:
    """Remove a folder with all that is in it, also what its owner may not write to. What cannot be removed stays."""
    with suppress(OSError), LongPaths(os.fsencode(root) if BY_DESCRIPTOR else os.fspath(root)) as paths:
        _open_up(paths, paths.root[:0])
        waiting: list[tuple[Any, bool]] = [(one, False) for one in paths.list(paths.root[:0])]
        while waiting:
            name, emptied = waiting.pop()
            with suppress(OSError):
                path, where = paths.at(name)
                if emptied:
                    os.rmdir(path, **where)
                elif stat.S_ISDIR(os.stat(path, follow_symlinks=False, **where).st_mode):
                    _open_up(paths, name)
                    waiting.append((name, True))
                    waiting += [(os.path.join(name, one), False) for one in paths.list(name)]
                else:
                    os.unlink(path, **where)
    with suppress(OSError):
        os.rmdir(root)


def _open_up(paths: LongPaths, name: Any) -> None:
    """Let a folder be emptied. Raises OSError."""
    state = paths.state(name)
    if state.st_mode & 0o700 != 0o700:
        path, where = paths.at(name)
        with suppress(PermissionError):
            os.chmod(path, 0o700, **where)


def sync_tree(path: Path) -> None:
    """Flush ``path``, a file or a folder with all in it, to the disk. Raises OSError where the disk cannot take it."""
    state = os.lstat(path)
    if not stat.S_ISDIR(state.st_mode):
        if stat.S_ISREG(state.st_mode):  # links are in their folder
            _sync_file(path)
        return
    with LongPaths(os.fsencode(path) if BY_DESCRIPTOR else os.fspath(path)) as paths:
        folders, files = [paths.root[:0]], []
        for name, state in paths.walk(lambda name, error: None):  # what its owner may not look into
            if stat.S_ISDIR(state.st_mode):
                folders.append(name)
            elif stat.S_ISREG(state.st_mode):
                files.append(name)
        if len(files) + len(folders) > MANY and _sync_system(path):
            return
        for name in files:
            inner, where = paths.at(name)
            _sync_file(inner, **where)
        for name in reversed(folders):
            inner, where = paths.at(name)
            sync_folder(inner, **where)


def _sync_file(path: Any, **where: int) -> None:
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY, **where)
    except PermissionError:
        return  # a file that not even its owner may read: the system writes it in its own time
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_system(path: Path) -> bool:
    """Flush the whole file system that ``path`` lies on; False where that is not to be had or may not have worked."""
    function = system_call("syncfs", c_int)
    if function is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return False
    try:
        return bool(function(handle) == 0)
    finally:
        os.close(handle)
