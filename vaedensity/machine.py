"""What this process may use of its machine: memory, cores, and how many threads pay beside the work of others."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vaedensity.errors import UsageError

MEMORY_SHARE = 0.75
UNKNOWN_MEMORY = 4 << 30
LOOKS, PAUSE_SECONDS = 5, 0.002  # at the threads that run now


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes that decoding may take unless told otherwise: three quarters of the machine's or the container's memory.

    ``root``: of the file system that says so (for tests).
    """
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        found = []
    found += _numbers(root, "memory", "memory.max", "memory.limit_in_bytes")
    return int(MEMORY_SHARE * min(found)) if found else UNKNOWN_MEMORY


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use: the least of its affinity, its container's quota and OMP_NUM_THREADS."""
    cores = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wish.isdecimal():
        cores.append(int(wish))
    for folder in _groups(root, "cpu"):
        quota = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal() and int(quota[1]):
            cores.append(max(1, -(-int(quota[0]) // int(quota[1]))))
    return min(n for n in cores if n > 0)


def choose_threads(wish: int | None = None) -> int:
    """How many threads to use. Archives do not depend on it; scores and fits do by rounding alone.

    Parameters
    ----------
    wish
        The number to use; None for as many as :func:`usable_cores`, no more than torch is set to, less what others
        keep busy, and at least 1.

    Raises
    ------
    UsageError
        If ``wish`` is no whole number from 1 on.

    Examples
    --------
    >>> choose_threads(3)
    3
    """
    if wish is not None:
        if isinstance(wish, bool) or not isinstance(wish, int) or wish < 1:
            raise UsageError(f"threads {wish!r}: expected a whole number from 1 on, or None")
        return wish
    cores = usable_cores()
    if torch := sys.modules.get("torch"):
        cores = min(cores, torch.get_num_threads())
    return max(1, min(cores, (os.cpu_count() or 1) - busy_cores())) if cores > 1 else 1


def busy_cores() -> int:
    """How many cores of the machine other processes keep busy.

    Both the last minute's load and the threads that run now must say so: the load remembers work that is done, and a
    look at what runs sees what lasts a moment only, so the least of several looks counts.
    """
    try:
        load = os.getloadavg()[0]
        if load < 0.5:
            return 0
        running = []
        for _ in range(LOOKS):
            running.append(int(_words(Path("/proc/loadavg"))[3].partition("/")[0]) - _own_running())
            time.sleep(PAUSE_SECONDS)
        return round(max(0, min(load, *running)))
    except (AttributeError, OSError, ValueError, IndexError):
        return 0  # a system that does not say


def _own_running() -> int:
    """Threads of this process that run now, at least this one: those of libraries wait for work in busy loops."""
    own = 0
    for stat in Path("/proc/self/task").glob("*/stat"):
        words = _words(stat)  # a name may hold blanks: the state follows its last bracket
        own += " ".join(words).rpartition(")")[2].split()[:1] == ["R"]
    return max(1, own)


def _numbers(root: Path, kind: str, *names: str) -> list[int]:
    """The numbers in files of these names in this process's control groups."""
    words = [_words(folder / name) for folder in _groups(root, kind) for name in names]
    return [int(found[0]) for found in words if found and found[0].isdecimal()]


def _groups(root: Path, kind: str) -> Iterator[Path]:
    """Folders of this process's control groups, versions 1 and 2, and those above: at the root, a container's."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        if not kinds:
            tops = [mounted, mounted / "unified"]
        elif kind in kinds.split(","):
            tops = [mounted / kinds, mounted / kind]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for top in tops:
            yield from (top.joinpath(*parts[:n]) for n in range(len(parts), -1, -1))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, ValueError):
        return []
