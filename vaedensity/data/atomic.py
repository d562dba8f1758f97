"""New files that appear whole or not at all, whatever happens meanwhile."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment] # a module elsewhere

from vaedensity.data.system_calls import rename_new, sync_folder
from vaedensity.data.targets import keep_attributes, real_target, require_free
from vaedensity.errors import AlreadyThere, UsageError, VaedensityError, writing

TOKEN = r"[0-9a-f]{16}"
ENDING = ".partial"
LONGEST_STEM = 180  # bytes of a name of at most 255
_held: set[int] = set()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise UsageError where something at ``path`` must not be replaced, VaedensityError where nothing can be written.

    What a killed run left there is removed.
    """
    try:
        require_free(path, overwrite)
    except AlreadyThere:
        remove_stale(real_target(path))  # a run may have been killed between its last two steps
        raise


@contextmanager
def atomic_file(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """Write a file that takes its place only when the block ends well, and vanishes otherwise.

    Where ``path`` is a link, it stays, and what it leads to is replaced. Of what is replaced, permissions, owner and
    attributes are kept; other names of the same file (hard links) keep the old content. What killed runs left beside
    ``path`` is removed.

    Parameters
    ----------
    path
        The file to make.
    overwrite
        Whether what is there may be replaced.

    Yields
    ------
    BinaryIO
        A file beside ``path``, open for reading and writing.

    Raises
    ------
    UsageError
        If ``path`` exists and ``overwrite`` is not set, also where another run made it meanwhile; or if it is a folder.
    VaedensityError
        If the system refuses.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_file(Path(folder) / "x", overwrite=False) as f:
    ...         _ = f.write(b"abc")
    ...     (Path(folder) / "x").read_bytes()
    b'abc'
    """
    refuse_existing(path, overwrite)
    place, claim = real_target(path), Claim()
    if place.is_dir():
        raise UsageError(f"{path} is a folder; expected the name of a file to make")
    try:
        with writing(path):
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
    finally:
        claim.give_up()


def remove_stale(path: Path) -> None:
    """Remove the temporary files of ``path`` whose runs were killed; never one that may be in use."""
    for found in beside(path.parent, _temporaries(path)):
        with suppress(OSError):
            if not stat.S_ISREG(os.lstat(found).st_mode):
                continue
            handle = seize(found, os.O_RDWR)
            if handle is not None:
                try:
                    os.unlink(found)
                finally:
                    os.close(handle)


def _temporaries(path: Path) -> re.Pattern[str]:
    """The names of the temporary files of ``path``, which is no link."""
    return re.compile(rf"\.{re.escape(_stem(path))}\.\d+\.{TOKEN}{re.escape(ENDING)}")


class OwnFiles:
    """The files at ``paths`` that a run writes, and its temporary files for them.

    They are left out where it reads the folder that they lie in, however that is spelt. ``met``: those that were.
    """

    def __init__(self, *paths: Path | None):
        self._known: list[tuple[Path, os.stat_result, re.Pattern[str]]] = []
        self.met: list[Path] = []
        for path in filter(None, paths):
            with suppress(OSError, VaedensityError):  # nothing can be written there: that is told when it is tried
                place = real_target(path)
                pattern = re.compile(f"{re.escape(place.name)}|{_temporaries(place).pattern}", re.DOTALL)
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
    """What in ``folder`` has a name like ``pattern``. Nothing where it cannot be listed: writing to it will tell."""
    try:
        return [folder / name for name in os.listdir(folder) if pattern.fullmatch(name)]
    except OSError:
        return []


def _stem(path: Path) -> str:
    """What names the temporaries of ``path``: its name, or a hash of one too long to add to."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= LONGEST_STEM else hashlib.sha256(name).hexdigest()


class Claim:
    """A new file or folder of one call alone, locked until it is given up or its process ends, however that ends.

    The lock is on a handle of its own, which forked processes close: those that outlive a killed run hold no lock.
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
            with suppress(FileNotFoundError):  # taken for stale already
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
            # Another run took it for stale in the moment before it was locked, and removes it.
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
    """A handle that holds the lock of ``path``, which a killed run left; None where somebody uses it, or may."""
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
