"""The coder against a few lines of Python that do the same with unbounded integers."""

import numpy as np
import pytest

from vaedensity.coding.ans import Stacks
from vaedensity.coding.tables import TOTAL


class Oracle:
    """Asymmetric numeral systems as docs/format.md has them."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.state = 0

    def push(self, lower: int, width: int) -> None:
        if self.state >> 40 >= width:
            self.words.append(self.state & 0xFFFFFFFF)
            self.state >>= 32
        self.state = (self.state // width) * TOTAL + lower + self.state % width

    def to_bytes(self) -> bytes:
        words, state = list(self.words), self.state
        while state:
            words.append(state & 0xFFFFFFFF)
            state >>= 32
        return np.array(words, "<u4").tobytes()


def random_rows(rng: np.random.Generator, count: int, symbols: int) -> np.ndarray:
    """Cumulative rows (count, symbols + 1) with widths of at least 2, many of them extreme."""
    weights = rng.random((count, symbols)) ** rng.integers(1, 40, (count, 1)) + 1e-12
    below = np.floor(np.cumsum(weights, 1) / weights.sum(1, keepdims=True) * (TOTAL - 2 * symbols)).astype(np.int64)
    below[:, -1] = TOTAL - 2 * symbols
    return np.concatenate([np.zeros((count, 1), np.int64), below + 2 * np.arange(1, symbols + 1)], 1)


@pytest.mark.parametrize("symbols", [2, 3, 16, 32])
def test_same_words_as_the_oracle(symbols: int) -> None:
    rng = np.random.default_rng(symbols)
    rows = random_rows(rng, 3000, symbols)
    picks = rng.integers(0, symbols, 3000)
    lower, upper = (np.take_along_axis(rows, (picks + d)[:, None], 1)[:, 0] for d in (0, 1))
    stacks, oracle = Stacks(1), Oracle()
    stacks.push_intervals(lower[None], upper[None])
    for low, high in zip(lower[::-1].tolist(), upper[::-1].tolist()):
        oracle.push(low, high - low)
    assert stacks.to_bytes()[0] == oracle.to_bytes()
    assert (stacks.pop_rows(rows[None])[0] == picks).all()
    assert stacks.coders[0].is_empty()
    assert abs(stacks.information[0]) < 1e-6


def test_information_is_what_the_stack_grows_by() -> None:
    rng = np.random.default_rng(0)
    rows = random_rows(rng, 5000, 16)
    picks = rng.integers(0, 16, 5000)
    lower, upper = (np.take_along_axis(rows, (picks + d)[:, None], 1)[:, 0] for d in (0, 1))
    stacks = Stacks(1)
    stacks.push_intervals(lower[None], upper[None])
    assert abs(stacks.depth_bits()[0] - stacks.information[0]) < 40


def test_bytes_round_trip_and_refusals() -> None:
    stacks = Stacks.random(3, 7, seed=1)
    parts = stacks.to_bytes()
    assert [len(p) for p in parts] == [28, 28, 28]
    assert Stacks.from_bytes(parts).to_bytes() == parts
    assert Stacks.from_bytes([b""]).to_bytes() == [b""]
    for bad in (b"abc", b"abcd\0\0\0\0"):
        with pytest.raises(ValueError, match="whole words"):
            Stacks.from_bytes([bad])


def test_copies_are_independent() -> None:
    stacks = Stacks.random(1, 50, seed=2)
    before, twin = stacks.to_bytes(), stacks.copy()
    twin.pop_rows(random_rows(np.random.default_rng(3), 20, 16)[None])
    assert stacks.to_bytes() == before != twin.to_bytes()
