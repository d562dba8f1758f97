"""What this process may use of its machine: memory, cores, and how many threads are worth while beside the work of others."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vaedensity.errors import UsageError

MEMORY_SHARE = 0.75
UNKNOWN_MEMORY = 4 << 30
LOOKS, PAUSE_SECONDS = 5, 0.002  # at what runs now


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes that decoding may take unless told otherwise: a share of the machine's memory, or of the container's where that is less."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        found = []
    found += _numbers(root, "memory", "memory.max", "memory.limit_in_bytes")
    return int(MEMORY_SHARE * min(found)) if found else UNKNOWN_MEMORY


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: by its affinity, its container's quota and the first number of OMP_NUM_THREADS."""
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
    """How many threads to use: ``wish``, or where that is None as many as there are usable cores, no more than torch is set to, less what
    others keep busy, and at least 1. No archive depends on it, scores and fits by rounding alone. Raises UsageError."""
    if wish is not None:
        if isinstance(wish, bool) or not isinstance(wish, int) or wish < 1:
            raise UsageError(f"threads {wish!r}: expected a whole number from 1 on, or None")
        return wish
    cores = usable_cores()
    if torch := sys.modules.get("torch"):
        cores = min(cores, torch.get_num_threads())
    return max(1, min(cores, (os.cpu_count() or 1) - busy_cores())) if cores > 1 else 1


def busy_cores() -> int:
    """Cores of the machine that others keep busy. Both the last minute's load and what runs now must say so: the one remembers work that is
    done, the other sees what lasts a moment, so that the least of several looks counts."""
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
    """Threads of this process that run now, at least this one: libraries' wait for work in loops."""
    own = 0
    for stat in Path("/proc/self/task").glob("*/stat"):
        words = _words(stat)  # a name may hold blanks: the state follows its last bracket
        own += " ".join(words).rpartition(")")[2].split()[:1] == ["R"]
    return max(1, own)


def _numbers(root: Path, kind: str, *names: str) -> list[int]:
    """What the files of these names say in this process's control groups, where it is a number."""
    words = [_words(folder / name) for folder in _groups(root, kind) for name in names]
    return [int(found[0]) for found in words if found and found[0].isdecimal()]


def _groups(root: Path, kind: str) -> Iterator[Path]:
    """Folders of this process's control groups, versions 1 and 2, up to the root: in a container, that is where its own limits are."""
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
