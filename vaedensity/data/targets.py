"""The place of a new file: where it lies, whether it may be written to, and what is kept of a file that is there."""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from vaedensity.errors import AlreadyThere, UsageError, VaedensityError, writing

MOST_LINKS = 40  # one after the other, the system's own limit
OPEN_FILES = re.compile(r"/proc/[^/]+/(task/[^/]+/)?fd|/dev/fd")


def is_open_file(path: Path) -> bool:
    """Whether ``path`` names what a process has open, such as standard output, rather than a file in a folder."""
    return any(OPEN_FILES.fullmatch(os.path.realpath(one.parent)) for one in _chain(path))


def real_target(path: Path) -> Path:
    """Where what is written to ``path`` lies: at the end of its links, whether or not anything is there.

    Raises UsageError for open files and for links that lead back to themselves.
    """
    chain = _chain(path)
    if is_open_file(path):
        raise UsageError(f"{path} is an open file, such as standard output; expected the name of a file to make")
    if chain[-1].is_symlink():
        raise UsageError(f"{path} is a link that leads back to itself; remove it or choose another name")
    return chain[-1]


def _chain(path: Path) -> list[Path]:
    """``path`` and where its links lead, one after the other."""
    chain = [path]
    while len(chain) <= MOST_LINKS and chain[-1].is_symlink():
        chain.append(chain[-1].parent / os.readlink(chain[-1]))
    return chain


def require_free(path: Path, overwrite: bool) -> None:
    """Raise UsageError where something at ``path`` must not be replaced, VaedensityError where nothing can be written.

    Devices, pipes, sockets and write-protected files are never replaced.
    """
    found: os.stat_result | None = None
    with writing(path):
        place = real_target(path)
        with suppress(FileNotFoundError):
            found = os.lstat(place)
    if found and not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise UsageError(f"{path} is a device or pipe; expected the name of a file to make")
    if os.path.lexists(path) and not overwrite:
        raise AlreadyThere(path)
    if not place.parent.is_dir():
        return  # it may be made yet
    if _is_read_only(place.parent):
        raise VaedensityError(f"cannot write {path}: Read-only file system")
    if found and stat.S_ISREG(found.st_mode) and not os.access(place, os.W_OK):
        raise UsageError(f"{path} is write-protected; make it writable or choose another name")
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise VaedensityError(
            f"cannot write {path}: nothing can be made in the folder {place.parent}, permission denied"
        )


def _is_read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def keep_attributes(old: Path, new: Path, *, mode: bool = True) -> None:
    """Give ``new``, which is to replace ``old``, what ``old`` has: owner, and with ``mode`` permissions and attributes.

    As far as that is permitted. Where the group cannot be kept, its members get no more than everybody. Nothing happens
    where ``old`` is not there, or the two are not of one type.
    """
    try:
        was, now = os.lstat(old), os.lstat(new)
    except FileNotFoundError:
        return
    if stat.S_IFMT(was.st_mode) != stat.S_IFMT(now.st_mode) or stat.S_ISLNK(was.st_mode):
        return
    bits = stat.S_IMODE(was.st_mode) & 0o777
    if hasattr(os, "chown"):
        if was.st_uid != now.st_uid:
            with suppress(OSError):
                os.chown(new, was.st_uid, -1)
        if was.st_gid != now.st_gid:
            try:
                os.chown(new, -1, was.st_gid)
            except OSError:
                bits &= ~0o070 | (bits & 0o007) << 3
    if mode and hasattr(os, "listxattr"):
        with suppress(OSError):
            for name in os.listxattr(old):
                with suppress(OSError):
                    os.setxattr(new, name, os.getxattr(old, name))
    if mode:
        with suppress(OSError):
            os.chmod(new, bits)
