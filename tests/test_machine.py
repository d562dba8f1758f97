"""What a process may use: its machine's, its container's, what others leave."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vaedensity import machine
from vaedensity.archive.limits import Limits
from vaedensity.errors import UsageError
from vaedensity.machine import MEMORY_SHARE, busy_cores, choose_threads, usable_cores, usable_memory

MIB = 1 << 20
PLENTY = str(1 << 62)


def control_groups(root: Path, own: str, files: dict[str, str]) -> Path:
    """A file system with the control groups ``own`` of this process and ``files`` below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n"
MEMORY = {
    "version 2": ("0::/user/job\n", {"user/job/memory.max": f"{64 * MIB}"}),
    "version 2, a limit further up": (
        "0::/user/job\n",
        {"user/job/memory.max": "max", "user/memory.max": f"{64 * MIB}"},
    ),
    "version 2, the least of all": ("0::/a/b\n", {"a/b/memory.max": f"{96 * MIB}", "a/memory.max": f"{64 * MIB}"}),
    "version 2 within a container": ("0::/\n", {"memory.max": f"{64 * MIB}"}),
    "version 2, as its host names it": ("0::/../../docker/abc\n", {"memory.max": f"{64 * MIB}"}),
    "version 2 beside version 1": ("1:cpu:/\n0::/job\n", {"unified/job/memory.max": f"{64 * MIB}"}),
    "version 1": (V1, {"memory/docker/abc/memory.limit_in_bytes": f"{64 * MIB}"}),
    "version 1 within a container": (V1, {"memory/memory.limit_in_bytes": f"{64 * MIB}"}),
}
NO_MEMORY_LIMIT = {
    "version 2": ("0::/job\n", {"job/memory.max": "max"}),
    "version 1": (V1, {"memory/docker/abc/memory.limit_in_bytes": PLENTY}),
    "of another kind": ("0::/\n", {"memory.high": f"{64 * MIB}"}),
    "no number": ("0::/\n", {"memory.max": ""}),
    "no groups": ("", {}),
    "lines cut off": ("4\n:\n\n", {}),
}


@pytest.mark.parametrize("case", MEMORY)
def test_memory_of_a_container(case: str, tmp_path: Path) -> None:
    assert usable_memory(control_groups(tmp_path, *MEMORY[case])) == int(MEMORY_SHARE * 64 * MIB)


@pytest.mark.parametrize("case", NO_MEMORY_LIMIT)
def test_memory_without_a_limit(case: str, tmp_path: Path) -> None:
    root = control_groups(tmp_path, *NO_MEMORY_LIMIT[case])
    assert usable_memory(root) == int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def test_archives_too_large_for_the_container_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaedensity.archive.limits.usable_memory", lambda: 64 * MIB)
    array = SimpleNamespace(row_bytes=MIB, blocks=[0])
    archive = SimpleNamespace(path=Path("a.vdz"), blocks=[SimpleNamespace(items=60)])
    with pytest.raises(UsageError, match=f"the limit is {64 * MIB}"):
        Limits().check_memory(archive, [array])  # type: ignore[arg-type, list-item] # what it looks at


CORES = {
    "version 2": ("0::/job\n", {"job/cpu.max": "300000 100000"}, 3),
    "version 2, part of a core": ("0::/job\n", {"job/cpu.max": "20000 100000"}, 1),
    "version 2, one and a half": ("0::/job\n", {"job/cpu.max": "150000 100000"}, 2),
    "version 2, further up": ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
    "version 2, no quota": ("0::/job\n", {"job/cpu.max": "max 100000"}, 8),
    "version 1": (
        V1,
        {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "200000", "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"},
        2,
    ),
    "version 1, another name": (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    "version 1, no quota": (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    "no period": ("0::/job\n", {"job/cpu.max": "300000 0"}, 8),
}


@pytest.mark.parametrize("case", CORES)
def test_cores_of_a_container(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    *files, expected = CORES[case]
    assert usable_cores(control_groups(tmp_path, *files)) == expected


@pytest.mark.parametrize(("wish", "most"), [("1", 1), ("1,4", 1), ("", 8), ("abc", 8), ("0", 8), ("99", 8)])
def test_cores_as_openmp_is_told(wish: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert usable_cores(tmp_path) == most


@pytest.mark.parametrize(
    ("own", "torch", "machine_cores", "busy", "expected"),
    [
        (8, 8, 8, 0, 8),
        (8, 8, 8, 5, 3),
        (8, 8, 8, 30, 1),
        (2, 2, 64, 40, 2),
        (8, 1, 8, 0, 1),
        (8, 4, 8, 3, 4),
        (1, 8, 8, 0, 1),
    ],
)
def test_threads_beside_others(
    own: int, torch: int, machine_cores: int, busy: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: own)
    monkeypatch.setattr(machine, "busy_cores", lambda: busy)
    monkeypatch.setattr(os, "cpu_count", lambda: machine_cores)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: torch))  # type: ignore[arg-type]
    assert choose_threads() == expected
    assert choose_threads(5) == 5  # who says a number gets it


@pytest.mark.parametrize("wish", [0, -1, 1.5, True, "2"])
def test_threads_that_are_no_number_are_refused(wish: object) -> None:
    with pytest.raises(UsageError, match="expected a whole number from 1 on, or None"):
        choose_threads(wish)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("load", "running", "busy"), [(3.0, 4, 3), (3.0, 1, 0), (0.1, 9, 0), (2.4, 9, 2), (3.0, None, 0)]
)
def test_load_counts_where_it_goes_on(
    load: float, running: int | None, busy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(
        machine, "_words", lambda path: [] if running is None else ["x", "x", "x", f"{running}/99", "1"]
    )
    monkeypatch.setattr(machine, "PAUSE_SECONDS", 0)
    assert busy_cores() == busy


def test_threads_of_this_process_are_not_the_work_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's threads that wait for work in loops count as running."""
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0), raising=False)
    stat = "1 (a (b) c) R 0 0"
    words = {"/proc/loadavg": "x x x 4/99 1", "1": stat, "2": stat, "3": stat.replace("R", "S")}
    monkeypatch.setattr(machine, "_words", lambda path: words[str(path)].split())
    monkeypatch.setattr(Path, "glob", lambda self, pattern: map(Path, "123"))
    monkeypatch.setattr(machine, "PAUSE_SECONDS", 0)
    assert busy_cores() == 2
