"""Groups of chains side by side: threads, since network kernels release the interpreter's lock."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


class Cancelled(Exception):
    """Raised inside a thread whose siblings have failed or were interrupted."""


class Ticker:
    """Counts items done; ``tick`` raises Cancelled once somebody has stopped the work."""

    def __init__(self, progress: Callable[[int], None]):
        self.progress, self.stopped = progress, threading.Event()

    def tick(self, count: int) -> None:
        if self.stopped.is_set():
            raise Cancelled
        self.progress(count)


def usable_cores() -> int:
    """Cores this process may use, at most the first number of OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cores, int(wish)) if wish.isdecimal() and int(wish) > 0 else cores


def in_threads(
    work: Callable[[Job], Result], jobs: Iterable[Job], ticker: Ticker, threads: int | None = None
) -> Iterator[Result]:
    """Results of ``work`` in the order of ``jobs``, at most two jobs a thread in memory.

    ``work`` should call ``ticker.tick`` often: that is how it learns that it should stop.

    Each thread gets its share of the processor's cores; the results do not depend on how many.
    """
    jobs, cores = list(jobs), usable_cores()
    count = max(1, min(threads or cores, len(jobs)))
    before = torch.get_num_threads()

    def start() -> None:
        torch.set_num_threads(max(1, cores // count))

    pool = ThreadPoolExecutor(count, initializer=start)
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        ticker.stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)
