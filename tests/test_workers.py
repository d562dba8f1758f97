"""Workers keep order, stop together, tell of failures, and take no more than their share."""

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from vaedensity import workers
from vaedensity.errors import DamagedArchive, VaedensityError
from vaedensity.workers import Cancelled, Ticker, can_fork, in_processes, in_threads, side_by_side

Ways = Callable[..., Iterator[Any]]
needs_fork = pytest.mark.skipif(not can_fork(), reason="this system does not fork")
WAYS = [in_threads, pytest.param(in_processes, marks=needs_fork)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 4])
def test_results_keep_the_order_of_jobs(way: Ways, count: int) -> None:
    def work(n: int) -> int:
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(way(work, list(range(50)), Ticker(lambda n: None), count)) == [n * n for n in range(50)]


@needs_fork
def test_a_collection_leaves_shared_objects_alone_and_is_whole_again_afterwards() -> None:
    assert gc.get_freeze_count() == 0
    frozen = list(in_processes(lambda n: gc.get_freeze_count(), [0, 1, 2], Ticker(lambda n: None), 2))
    assert min(frozen) > 1000 and gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError):
        list(in_processes(lambda n: 1 // n, [0, 1], Ticker(lambda n: None), 2))
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        list(in_processes(lambda n: n, [0, 1], Ticker(lambda n: None), 2))
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("way", WAYS)
def test_ticks_arrive(way: Ways) -> None:
    heard: list[int] = []
    ticker = Ticker(heard.append)

    def work(n: int) -> None:
        for _ in range(n):
            ticker.tick(2)

    list(way(work, [1, 2, 3, 4], ticker, 2))
    assert sum(heard) == 20


@pytest.mark.parametrize("way", WAYS)
def test_failures_keep_their_kind(way: Ways) -> None:
    def work(n: int) -> None:
        raise DamagedArchive(f"block {n}")

    with pytest.raises(DamagedArchive, match=r"^block 0$"):
        list(way(work, [0], Ticker(lambda n: None), 2))


def test_a_failure_stops_the_other_threads() -> None:
    started, stopped = threading.Event(), []
    ticker = Ticker(lambda n: None)

    def work(n: int) -> None:
        if n == 0:
            started.wait(10)
            raise ValueError("first")
        started.set()
        try:
            while True:
                ticker.tick(0)
        except Cancelled:
            stopped.append(n)
            raise

    with pytest.raises(ValueError, match="first"):
        list(in_threads(work, [0, 1], ticker, 2))
    assert stopped == [1]


@needs_fork
def test_no_process_is_left_behind() -> None:
    pids: list[int] = []
    heard = multiprocessing.get_context("fork").Event()

    def work(n: int) -> int:
        if n == 1:
            heard.wait(60)
            raise ValueError("second")
        time.sleep(0.1)
        return os.getpid()

    with pytest.raises(ValueError, match="second"):
        for pid in in_processes(work, [0, 0, 0, 1, 0, 0], Ticker(lambda n: None), 2):
            pids.append(pid)
            heard.set()
    results = in_processes(work, [0] * 9, Ticker(lambda n: None), 2)
    pids.append(next(results))
    results.close()  # as when the consumer fails or is interrupted
    assert len(pids) > 1 and os.getpid() not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@needs_fork
def test_a_killed_worker_is_reported() -> None:
    def work(n: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(VaedensityError, match="status -9"):
        list(in_processes(work, [0, 1], Ticker(lambda n: None), 2))


@needs_fork
def test_an_idle_worker_that_dies_is_reported() -> None:
    def work(n: int) -> int:
        time.sleep(0.05 if n else 0.6)
        return os.getpid()

    results = in_processes(work, [0, 1, 1, 1, 1, 0, 0, 0], Ticker(lambda n: None), 2)
    with pytest.raises(VaedensityError, match="status -9"):
        for k, pid in enumerate(results):
            if k == 1:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)


@needs_fork
def test_a_fork_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, forked = os.fork, []

    def refuse() -> int:
        if forked:
            raise OSError(12, "Cannot allocate memory")
        forked.append(fork())
        return forked[0]

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(VaedensityError, match="cannot start a worker process"):
        list(in_processes(lambda n: n, [0, 1, 2], Ticker(lambda n: None), 2))
    with pytest.raises(ProcessLookupError):
        os.kill(forked[0], 0)


@needs_fork
def test_results_that_cannot_travel_are_told() -> None:
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError, VaedensityError), match="pickle"):
        list(in_processes(lambda n: lambda: n, [0, 1], Ticker(lambda n: None), 2))


@needs_fork
def test_failures_that_cannot_travel_are_told() -> None:
    class Local(Exception):
        pass

    def work(n: int) -> None:
        raise Local("here")

    with pytest.raises(VaedensityError, match="Local: here"):
        list(in_processes(work, [0], Ticker(lambda n: None), 1))


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """What a worker changes of its process is put back."""
    handler, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    yield
    signal.signal(signal.SIGINT, handler)
    torch.set_num_threads(threads)


@needs_fork
def test_a_worker_answers_until_its_line_closes(as_it_was: None) -> None:
    """In this process, with a thread for its parent."""
    ours, theirs = multiprocessing.Pipe()
    other, _ = multiprocessing.Pipe()
    ticker, heard = Ticker(lambda n: None), []  # type: Ticker, list[Any]

    def parent() -> None:
        for number in range(4):
            ours.send(number)
            while (message := ours.recv())[0] == "tick":
                heard.append(message)
            heard.append(message)
        ours.close()

    class Local(Exception):
        pass

    def work(n: int) -> object:
        ticker.tick(5)
        if n % 2:
            raise DamagedArchive("here") if n == 1 else Local("there")
        return n if n == 0 else lambda: n

    thread = threading.Thread(target=parent)
    thread.start()
    workers._serve(work, [0, 1, 2, 3], ticker, theirs, [other])
    thread.join()
    assert other.closed
    assert [(kind, number) for kind, number, _ in heard[::2]] == [("tick", 5)] * 4
    assert heard[1] == ("done", 0, 0) and isinstance(heard[3][2], DamagedArchive) and heard[5][:2] == ("failed", 2)
    assert type(heard[7][2]) is VaedensityError and str(heard[7][2]) == "Local: there"


@needs_fork
def test_a_worker_ends_when_its_parent_is_gone(as_it_was: None) -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.send(0)
    workers._serve(lambda n: ours.close(), [0], Ticker(lambda n: None), theirs, [])


def test_one_worker_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> Iterator[Any]:
        raise AssertionError

    monkeypatch.setattr(workers, "in_processes", refuse)
    assert list(side_by_side(lambda n: n, [1, 2], Ticker(lambda n: None), 1)) == [1, 2]


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    for way in (in_threads, in_processes) if can_fork() else (in_threads,):
        list(way(lambda n: n, [0, 1, 2], Ticker(lambda n: None), 2))
        assert torch.get_num_threads() == before


def test_workers_need_no_torch() -> None:
    program = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("no torch here")

sys.meta_path.insert(0, Blocked())
from vaedensity.workers import Ticker, can_fork, in_processes, in_threads
for way in (in_threads, in_processes) if can_fork() else (in_threads,):
    print(list(way(lambda n: n * n, [1, 2, 3], Ticker(lambda count: None), 2)), "torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(result.stdout.splitlines()) == {"[1, 4, 9] False"}
