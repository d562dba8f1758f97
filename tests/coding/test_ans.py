"""Stacks against a few lines of Python that do the same with unbounded integers."""

import numpy as np
import pytest

from vaedensity.coding.ans import Stacks
from vaedensity.coding.compiled import fastest_stacks
from vaedensity.coding.tables import TOTAL

ENGINES = list(dict.fromkeys([Stacks, fastest_stacks()]))
each_engine = pytest.mark.parametrize("engine", ENGINES)


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


@each_engine
@pytest.mark.parametrize("symbols", [2, 3, 16, 32])
def test_same_words_as_the_oracle(symbols: int, engine: type[Stacks]) -> None:
    rng = np.random.default_rng(symbols)
    rows = random_rows(rng, 3000, symbols)
    picks = rng.integers(0, symbols, 3000)
    lower, upper = (np.take_along_axis(rows, (picks + d)[:, None], 1)[:, 0] for d in (0, 1))
    stacks, oracle = engine(1), Oracle()
    stacks.push_intervals(lower[None], upper[None])
    for low, high in zip(lower[::-1].tolist(), upper[::-1].tolist()):
        oracle.push(low, high - low)
    assert stacks.to_bytes()[0] == oracle.to_bytes()
    assert (stacks.pop_rows(rows[None])[0] == picks).all()
    assert stacks.is_empty().all()
    assert abs(stacks.information[0]) < 1e-6


@each_engine
def test_information_is_what_the_stack_grows_by(engine: type[Stacks]) -> None:
    rng = np.random.default_rng(0)
    rows = random_rows(rng, 5000, 16)
    picks = rng.integers(0, 16, 5000)
    lower, upper = (np.take_along_axis(rows, (picks + d)[:, None], 1)[:, 0] for d in (0, 1))
    stacks = engine(1)
    stacks.push_intervals(lower[None], upper[None])
    assert abs(stacks.depth_bits()[0] - stacks.information[0]) < 40


@each_engine
def test_bytes_round_trip_and_rejections(engine: type[Stacks]) -> None:
    stacks = engine.random(3, 7, seed=1)
    parts = stacks.to_bytes()
    assert [len(p) for p in parts] == [28, 28, 28]
    assert engine.from_bytes(parts).to_bytes() == parts
    assert engine.from_bytes([b""]).to_bytes() == [b""]
    for bad in (b"abc", b"abcd\0\0\0\0"):
        with pytest.raises(ValueError, match="whole words"):
            engine.from_bytes([bad])


@each_engine
def test_copies_are_independent(engine: type[Stacks]) -> None:
    stacks = engine.random(1, 50, seed=2)
    before, twin = stacks.to_bytes(), stacks.copy()
    twin.pop_rows(random_rows(np.random.default_rng(3), 20, 16)[None])
    assert stacks.to_bytes() == before != twin.to_bytes()


def test_engines_agree_on_depth_and_on_everything_else() -> None:
    rng = np.random.default_rng(4)
    for count, words in ((1, 0), (2, 1), (3, 2), (4, 3), (2, 50)):
        both = [engine.random(count, words, seed=words) if words else engine(count) for engine in ENGINES]
        for _ in range(60):
            rows = random_rows(rng, count * 3, 16).reshape(count, 3, 17)
            owners = np.sort(rng.integers(0, count, 5))
            few = random_rows(rng, 5, 3)
            seen = []
            for stacks in both:
                popped = stacks.pop_rows(rows)
                more = stacks.pop_rows(few, owners)
                stacks.push_intervals(few[:, 1], few[:, 2], owners)
                seen.append((popped.tolist(), more.tolist(), stacks.depth_bits().tolist(), stacks.to_bytes()))
                assert stacks.is_empty().tolist() == [not part for part in stacks.to_bytes()]
            assert all(record == seen[0] for record in seen)
        for stacks in both:
            part = stacks.take(slice(1, count))
            part.join(stacks.take(slice(0, 1)))
            assert part.to_bytes() == stacks.to_bytes()[1:] + stacks.to_bytes()[:1]
