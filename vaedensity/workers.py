"""Jobs done side by side, in forked processes or in threads.

Processes are used where the system can fork them safely and the caller has no other threads: a forked process begins
with everything that its parent holds, at no cost, and has an interpreter of its own. Results depend neither on the way
nor on the number. Torch need not be installed; where it is loaded, each worker uses one thread of it.
"""

import gc
import multiprocessing
import pickle
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

from vaedensity.errors import VaedensityError
from vaedensity.machine import choose_threads

Job = TypeVar("Job")
Result = TypeVar("Result")


class Cancelled(Exception):
    """Raised inside a thread whose siblings failed or were interrupted."""


class Ticker:
    """Reports progress from workers: ``tick(count)`` passes items done on to ``progress``.

    It raises Cancelled once the work was stopped.
    """

    def __init__(self, progress: Callable[[int], None]):
        self.progress, self.stopped = progress, threading.Event()

    def tick(self, count: int) -> None:
        if self.stopped.is_set():
            raise Cancelled
        self.progress(count)


def side_by_side(
    work: Callable[[Job], Result], jobs: Iterable[Job], ticker: Ticker, threads: int | None = None
) -> Iterator[Result]:
    """Results of ``work(job)`` for all ``jobs``, in their order, several computed at a time.

    Parameters
    ----------
    work
        Does one job. It should call ``ticker.tick`` often: that reports progress and stops a thread that is not needed
        any more.
    jobs
        What to do.
    ticker
        Takes the progress of all workers.
    threads
        How many to do at a time; None: see :func:`~vaedensity.machine.choose_threads`.

    Raises
    ------
    VaedensityError
        If a worker process cannot be started or ends early. What ``work`` raises is raised here.

    Examples
    --------
    >>> list(side_by_side(lambda n: n * n, [1, 2, 3], Ticker(lambda count: None), threads=1))
    [1, 4, 9]
    """
    jobs = list(jobs)
    count = max(1, min(choose_threads(threads), len(jobs)))
    run = in_processes if count > 1 and can_fork() and not others_at_work() else in_threads
    return run(work, jobs, ticker, count)


def can_fork() -> bool:
    """Whether forking is safe here: only on Linux, elsewhere system libraries may hold threads and locks."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def others_at_work() -> bool:
    """Whether this process has other threads: a lock that one holds would stay locked in a forked process.

    What draws a progress bar does not count, as no worker draws.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    return any(not type(thread).__module__.startswith("rich.") for thread in others)


def in_threads(work: Callable[[Job], Result], jobs: list[Job], ticker: Ticker, count: int) -> Iterator[Result]:
    """:func:`side_by_side` in ``count`` threads, with at most two jobs a thread in memory."""
    before = _set_torch_threads(1)
    try:  # each thread has a setting of its own
        pool = ThreadPoolExecutor(count, initializer=_set_torch_threads, initargs=(1,))
        yield from _in_pool(pool, work, jobs, ticker, count)
    finally:
        _set_torch_threads(before)


def _set_torch_threads(count: int | None) -> int | None:
    """Let torch's operations in this thread use ``count`` threads, and return how many it was; None without torch.

    One is best beside other workers: the operations are small, and threads would wait for each other at every one.
    """
    torch = sys.modules.get("torch")
    if torch is None or count is None:
        return None
    before: int = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    return before


def _in_pool(
    pool: ThreadPoolExecutor, work: Callable[[Job], Result], jobs: list[Job], ticker: Ticker, count: int
) -> Iterator[Result]:
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


def in_processes(work: Callable[[Job], Result], jobs: list[Job], ticker: Ticker, count: int) -> Iterator[Result]:
    """:func:`side_by_side` in ``count`` forked processes, with at most two jobs a process not yet handed over."""
    crew: dict[Connection, BaseProcess] = {}
    next_job, handed_over = 0, 0
    done: dict[int, Result] = {}
    frozen = gc.get_freeze_count() > 0  # by the caller, who knows why
    if not frozen:
        gc.freeze()  # a collection writes to every object it looks at: pages that processes share would be copied
    try:
        for _ in range(count):
            _hire(crew, work, jobs, ticker)
        idle = list(crew)
        while handed_over < len(jobs):
            while idle and next_job < min(len(jobs), handed_over + 2 * count):
                line = idle.pop()
                try:
                    line.send(next_job)
                except OSError as error:
                    raise _lost(crew[line]) from error
                next_job += 1
            for ready in wait([c for c in crew if c not in idle]):
                line = cast(Connection, ready)
                kind, number, value = _receive(line, crew[line])
                if kind == "tick":
                    ticker.progress(number)
                elif kind == "failed":
                    raise value
                else:
                    done[number] = value
                    idle.append(line)
            while handed_over in done:
                yield done.pop(handed_over)
                handed_over += 1
    finally:
        ticker.stopped.set()
        for line, process in crew.items():
            line.close()
            process.kill()
        for process in crew.values():
            process.join()
        if not frozen:
            gc.unfreeze()


def _hire(crew: dict[Connection, BaseProcess], work: Callable[[Job], Result], jobs: list[Job], ticker: Ticker) -> None:
    """Fork a worker and add it to the ``crew``; Ctrl-C waits meanwhile."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(work, jobs, ticker, theirs, [*crew, ours]), daemon=True
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with warnings.catch_warnings():
            # of threads within libraries, which see to forks themselves
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        crew[ours] = process
    except OSError as error:
        raise VaedensityError(f"cannot start a worker process ({error.strerror}); try fewer threads") from error
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lost(process: BaseProcess) -> VaedensityError:
    process.join()
    return VaedensityError(
        f"a worker process ended with status {process.exitcode} (out of memory?); try again with fewer threads"
    )


def _receive(line: Connection, process: BaseProcess) -> tuple[str, int, Any]:
    try:
        message: tuple[str, int, Any] = line.recv()
        return message
    except (EOFError, OSError) as error:
        raise _lost(process) from error


def _serve(
    work: Callable[[Job], Result], jobs: list[Job], ticker: Ticker, line: Connection, others: list[Connection]
) -> None:
    """What a worker process does: jobs by number until the line closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for other in others:  # else this process keeps its siblings' lines open
        other.close()
    _set_torch_threads(1)
    ticker.progress = lambda count: line.send(("tick", count, None))
    while True:
        try:
            number = line.recv()
        except (EOFError, OSError):
            return
        answer: tuple[str, int, Result | Exception]
        try:
            answer = ("done", number, work(jobs[number]))
        except Exception as error:
            answer = ("failed", number, _portable(error))
        try:
            line.send(answer)
        except OSError:
            return  # the parent is gone
        except Exception as error:  # the result cannot be pickled
            line.send(("failed", number, _portable(error)))


def _portable(error: Exception) -> Exception:
    """``error``, or its text where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return VaedensityError(f"{type(error).__name__}: {error}")
