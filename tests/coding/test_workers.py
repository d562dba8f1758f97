"""Threads keep order, stop together, and take no more than their share."""

import threading

import pytest
import torch

from vaedensity.coding.workers import Cancelled, Ticker, in_threads, usable_cores


def test_results_keep_the_order_of_jobs() -> None:
    ticker = Ticker(lambda n: None)
    assert list(in_threads(lambda n: n * n, range(50), ticker, threads=4)) == [n * n for n in range(50)]


def test_a_failure_stops_the_others() -> None:
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
        list(in_threads(work, range(2), ticker, threads=2))
    assert stopped == [1]


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    list(in_threads(lambda n: n, range(3), Ticker(lambda n: None), threads=2))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("wish", "most"), [("1", 1), ("1,4", 1), ("", 10**6), ("abc", 10**6), ("0", 10**6)])
def test_usable_cores(wish: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert 1 <= usable_cores() <= most
