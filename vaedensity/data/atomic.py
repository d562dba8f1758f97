"""Files that are there whole or not at all."""

import ctypes
import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from vaedensity.data.targets import keep_attributes, real_target, require_free
from vaedensity.errors import AlreadyThere, UsageError, VaedensityError

TOKEN = r"[0-9a-f]{16}"
ENDING = ".partial"
NO_REPLACE, EXCHANGE = 1, 2
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)  # EPERM: sandboxes that know no renameat2
LONGEST_STEM = 180  # bytes of a name of at most 255
_held: set[int] = set()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise UsageError where something at ``path`` must not be replaced, VaedensityError where nothing can be written."""
    try:
        require_free(path, overwrite)
    except AlreadyThere:
        remove_stale(real_target(path))  # a run may have been killed between its last two steps
        raise


@contextmanager
def atomic_file(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends well, and vanishes otherwise; what killed runs
    left of theirs is removed.

    Where ``path`` is a link, it stays, and what it leads to is replaced. Of what is replaced, permissions, owner and
    attributes are kept; other names of the same file (hard links) keep what they had. Raises UsageError where another
    run made ``path`` first and ``overwrite`` is not set, else VaedensityError where the system refuses.
    """
    refuse_existing(path, overwrite)
    place, claim = real_target(path), Claim()
    if place.is_dir():
        raise UsageError(f"{path} is a folder; expected the name of a file to make")
    try:
        remove_stale(place)
        mode = 0o600 if overwrite and place.exists() else 0o666  # what is kept from others is so from the beginning
        temporary = claim.file(place.parent, f".{_stem(place)}.{os.getpid()}.", mode)
        with open(temporary, "r+b") as f:
            yield f
            f.flush()
            if overwrite:
                keep_attributes(place, temporary)
            os.fsync(f.fileno())
        if overwrite:
            os.replace(temporary, place)
        else:
            try:
                rename_new(temporary, place)
            except FileExistsError:
                raise AlreadyThere(path) from None
        sync_folder(place.parent)
    except OSError as error:
        raise VaedensityError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        claim.give_up()


def remove_stale(path: Path) -> None:
    """Remove the temporary files of ``path`` whose runs were killed. Never one in use, nor what cannot be told from one."""
    for found in beside(path.parent, temporaries(path)):
        with suppress(OSError):
            if not stat.S_ISREG(os.lstat(found).st_mode):
                continue
            handle = seize(found, os.O_RDWR)
            if handle is not None:
                try:
                    os.unlink(found)
                finally:
                    os.close(handle)


def temporaries(path: Path) -> re.Pattern[str]:
    """The names of the temporary files of ``path``, which is no link."""
    return re.compile(rf"\.{re.escape(_stem(path))}\.\d+\.{TOKEN}{re.escape(ENDING)}")


class OwnFiles:
    """Files that a run writes, and the temporary ones on the way to them: left out where it reads the folder that they
    lie in, however that is spelt. ``met``: which were."""

    def __init__(self, *paths: Path | None):
        self._known: list[tuple[Path, os.stat_result, re.Pattern[str]]] = []
        self.met: list[Path] = []
        for path in filter(None, paths):
            with suppress(OSError, VaedensityError):  # nothing can be written there: that is told when it is tried
                place = real_target(path)
                pattern = re.compile(f"{re.escape(place.name)}|{temporaries(place).pattern}", re.DOTALL)
                self._known.append((place.parent, os.stat(place.parent), pattern))

    def has(self, folder: os.stat_result, name: str | bytes) -> bool:
        """Whether one of them has the ``name`` in ``folder``."""
        name = os.fsdecode(name)
        found = [at / name for at, state, own in self._known if own.fullmatch(name) and os.path.samestat(folder, state)]
        self.met += found
        return bool(found)

    def require_other(self, path: Path) -> None:
        """Raise UsageError where ``path``, which is to be read, is one of them."""
        with suppress(OSError):
            place = real_target(path)
            if self.has(os.stat(place.parent), place.name):
                raise UsageError(f"{path} is read and written; choose another name for what is written")


def beside(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """What in ``folder`` has a name like ``pattern``. Nothing where it cannot be listed: that shows when it is written to."""
    try:
        return [folder / name for name in os.listdir(folder) if pattern.fullmatch(name)]
    except OSError:
        return []


def _stem(path: Path) -> str:
    """What names the temporaries of ``path``: its name, or a hash of one too long to add to."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= LONGEST_STEM else hashlib.sha256(name).hexdigest()


class Claim:
    """A new file or folder of one call alone, known to be in use until it is given up or its process ends, however.

    The lock is on a handle of its own, which forked processes close: those that outlive a killed run keep nothing alive.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._handle: int | None = None

    def file(self, folder: Path, prefix: str, mode: int) -> Path:
        """Make an empty file with what the umask leaves of ``mode``. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        return self._make(folder, prefix, lambda path: os.open(path, flags, mode), os.unlink)

    def folder(self, folder: Path, prefix: str) -> Path:
        """Make an empty folder that is its owner's alone. Raises OSError."""

        def make(path: Path) -> int | None:
            os.mkdir(path, 0o700)
            with suppress(FileNotFoundError):  # judged stale already
                return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) if fcntl else None
            return None

        return self._make(folder, prefix, make, os.rmdir)

    def _make(
        self, folder: Path, prefix: str, make: Callable[[Path], int | None], unmake: Callable[[Path], None]
    ) -> Path:
        while True:
            # Its name is known before it is there: an interrupt may come between.
            self.path = path = folder / f"{prefix}{token_hex(8)}{ENDING}"
            if self._hold(make(path), path):
                return path
            # Another run judged it stale in the moment before it was locked, and removes it.
            self.let_go()
            with suppress(FileNotFoundError):
                unmake(path)

    def _hold(self, handle: int | None, path: Path) -> bool:
        """Lock ``handle``; False where another run has, or has removed ``path``."""
        if fcntl is None:  # and a file that is open does not move
            if handle is not None:
                os.close(handle)
            return True
        if handle is None:
            return False
        self._handle = handle
        _held.add(handle)
        return lock(handle) is not False and _is(handle, path)

    def give_up(self) -> None:
        """Remove the file, if it is still there, and let go."""
        if self.path is not None:
            with suppress(OSError):  # the next run removes it
                os.unlink(self.path)
        self.let_go()

    def let_go(self) -> None:
        if self._handle in _held:
            _held.remove(self._handle)
            os.close(self._handle)
        self._handle = None


def _close_in_child() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def lock(handle: int) -> bool | None:
    """Lock what ``handle`` has open: True, or False where another has, or None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def seize(path: Path, flags: int) -> int | None:
    """A handle that holds the lock of ``path``, which nobody else uses any more; None where somebody does, or may."""
    try:
        handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    if lock(handle) and _is(handle, path):
        return handle
    os.close(handle)
    return None


def _is(handle: int, path: Path) -> bool:
    """Whether ``path`` still names what ``handle`` has open."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def rename_new(source: Path, target: Path) -> None:
    """Give ``source`` the name ``target``, which must be free. Raises FileExistsError where it is not, else OSError."""
    if _rename_with(source, target, NO_REPLACE):
        return
    if not source.is_dir():
        try:
            os.link(source, target)  # unlike rename, fails where another writer was faster
            source.unlink()
            return
        except FileExistsError:
            raise
        except OSError:
            pass  # a file system without hard links
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot. Raises OSError."""
    return _rename_with(one, other, EXCHANGE)


def _rename_with(source: Path, target: Path, flag: int) -> bool:
    """Linux's renameat2; False where the system or file system does not know it."""
    function = _renameat2()
    here = -100  # AT_FDCWD
    while function is not None:
        if function(here, os.fsencode(source), here, os.fsencode(target), flag) == 0:
            return True
        code = ctypes.get_errno()
        if code in CANNOT:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code), str(source), None, str(target))
    return False


@cache
def _renameat2() -> Any:
    return system_call("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def system_call(name: str, *arguments: Any) -> Any:
    """A function of Linux's C library that Python has no name for; None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = arguments, ctypes.c_int
    return function


def sync_folder(folder: Any, **where: int) -> None:
    """Have the names in ``folder`` on the disk, where the system knows how. ``where``: its ``dir_fd``, if any."""
    try:
        handle = os.open(folder, os.O_RDONLY, **where)
    except OSError:
        return  # not a platform that opens folders
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP):  # folders need none there
            raise
    finally:
        os.close(handle)
