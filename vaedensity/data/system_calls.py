"""What the system can do beyond Python's own names: rename without replacing, exchange two names, flush to disk."""

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

NO_REPLACE, EXCHANGE = 1, 2
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)  # EPERM: sandboxes that know no renameat2


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
    """A function of Linux's C library that Python does not offer; None where there is none."""
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
