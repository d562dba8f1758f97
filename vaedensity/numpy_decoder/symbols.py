"""From tables to intervals, by which symbols are popped and pushed (docs/format.md, "Symbols" and "Escape codes").

A symbol takes one interval, or two digits, or its place among the likely ones and, if it is none of those, two digits.
All elements take a stage together: first all their high digits, say, then all their low ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.distributions import Distribution, Gaussian, quotient
from vaedensity.numpy_decoder.stacks import Stacks
from vaedensity.numpy_decoder.tables import TOTAL, Ints

Counts = Sequence[int]
DIGIT = np.arange(17)[None]  # edges of the sixteen values of a digit


@dataclass(frozen=True)
class Stage:
    """Intervals of some elements at once: ``rows`` (M,) says of which; ``low`` and ``width`` (M,)."""

    rows: NDArray[np.intp]
    low: Ints
    width: Ints


def floored(distribution: Distribution, b: Ints) -> Ints:
    """C(b) of docs/format.md, "Symbols": every symbol has 2 at least."""
    return (distribution.cumulative(b) * (TOTAL - 2 * distribution.n) >> 24) + 2 * b


def flat_interval(distribution: Distribution, symbols: Ints) -> tuple[Ints, Ints]:
    """(low, width), both (N,), of one symbol of each element in one interval, however many symbols there are."""
    c = floored(distribution, symbols[:, None] + np.arange(2))
    return c[:, 0], c[:, 1] - c[:, 0]


def read(distribution: Distribution, u: Ints) -> Ints:
    """(N,) the symbols whose flat intervals hold ``u`` (N,), by bisection."""
    low, high = np.zeros(len(u), np.int64), np.full(len(u), distribution.n)
    while (high - low > 1).any():
        middle = low + high >> 1
        left = floored(distribution, middle[:, None])[:, 0] <= u
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return low


class Digits:
    """Symbols in one interval (n <= 32) or two digits of base 16."""

    def __init__(self, distribution: Distribution):
        self.distribution, self.one = distribution, distribution.n <= 32

    def _first(self) -> Ints:
        """(N,.) edges of the whole symbols, or of their high digits."""
        n = self.distribution.n
        edges = np.arange(n + 1) if self.one else np.minimum(16 * np.arange(-(-n // 16) + 1), n)
        return floored(self.distribution, edges[None])

    def _low(self, high: Ints) -> Ints:
        return _low_edges(floored(self.distribution, np.minimum(16 * high[:, None] + DIGIT, self.distribution.n)))

    def pop(self, stacks: Stacks, counts: Counts) -> Ints:
        """(N,) a symbol of each element. Raises ValueError where it is beyond the last."""
        symbols = stacks.pop(self._first(), counts)
        if not self.one:
            symbols = 16 * symbols + stacks.pop(self._low(symbols), counts)
            if (symbols >= self.distribution.n).any():
                raise ValueError("a symbol is beyond the last")
        return symbols

    def stages(self, symbols: Ints) -> list[Stage]:
        """The intervals of ``symbols`` (N,), in the order in which they are popped."""
        rows = np.arange(len(symbols))
        if self.one:
            return [Stage(rows, *flat_interval(self.distribution, symbols))]
        high, digit = symbols >> 4, symbols & 15
        return [_stage(rows, self._first(), high), _stage(rows, self._low(high), digit)]


class EscapeCodec:
    """The ``m`` symbols from ``first`` (N,) on, around a circle, take one interval; the others, two digits more."""

    def __init__(self, distribution: Distribution, first: Ints, m: int):
        self.distribution, self.first, self.m = distribution, first, m

    @classmethod
    def ends(cls, distribution: Distribution, count: int) -> "EscapeCodec":
        """Of ``count`` pixels: the highest level and the lowest come first."""
        return cls(distribution, np.full(count, distribution.n - 1), 2)

    @classmethod
    def centre(cls, distribution: Gaussian) -> "EscapeCodec":
        """Of latents: the sixteen symbols around the mean come first."""
        return cls(distribution, np.clip(distribution.nearest() - 8, 0, 240), 16)

    def _first(self) -> Ints:
        """(N,m+2) edges of the first symbols and of all others together."""
        around = _around(self.distribution, self.first, np.arange(self.m + 1)[None])
        return np.concatenate([around, np.full((len(around), 1), TOTAL)], 1)

    def _others(self, rows: NDArray[np.intp]) -> "_Others":
        distribution, n = self.distribution.take(rows), self.distribution.n
        return _Others(distribution, (self.first[rows] + self.m) % n, n - self.m)

    def pop(self, stacks: Stacks, counts: Counts) -> Ints:
        """(N,) a symbol of each element. Raises ValueError where it is beyond the last of the others."""
        place = stacks.pop(self._first(), counts)
        symbols = (self.first + place) % self.distribution.n
        outside = np.flatnonzero(place == self.m)
        if len(outside):
            symbols[outside] = self._others(outside).pop(stacks, _counts_of(outside, counts))
        return symbols

    def stages(self, symbols: Ints) -> list[Stage]:
        """The intervals of ``symbols`` (N,), in the order in which they are popped."""
        place = np.minimum((symbols - self.first) % self.distribution.n, self.m)
        outside = np.flatnonzero(place == self.m)
        stages = [_stage(np.arange(len(symbols)), self._first(), place)]
        return stages + (self._others(outside).stages(symbols[outside], outside) if len(outside) else [])


class _Others:
    """The ``count`` symbols from ``first`` (N,) on around the circle, in two digits."""

    def __init__(self, distribution: Distribution, first: Ints, count: int):
        self.distribution, self.first, self.count = distribution, first, count

    def _within(self, x: Ints) -> Ints:
        """Q(x), x (N,k) or (1,k); what lies beyond the last is the whole, W."""
        return _around(self.distribution, self.first, np.minimum(x, self.count))

    def _high(self) -> Ints:
        digits = -(-self.count // 16)
        d = np.arange(digits + 1)[None]
        q = self._within(16 * d)
        return quotient(q * (TOTAL - 2 * digits), q[:, -1:]) + 2 * d

    def _low(self, high: Ints) -> Ints:
        return _low_edges(self._within(16 * high[:, None] + DIGIT))

    def pop(self, stacks: Stacks, counts: Counts) -> Ints:
        high = stacks.pop(self._high(), counts)
        place = 16 * high + stacks.pop(self._low(high), counts)
        if (place >= self.count).any():
            raise ValueError("a symbol is beyond the last")
        return (self.first + place) % self.distribution.n

    def stages(self, symbols: Ints, rows: NDArray[np.intp]) -> list[Stage]:
        place = (symbols - self.first) % self.distribution.n
        return [_stage(rows, self._high(), place >> 4), _stage(rows, self._low(place >> 4), place & 15)]


Coder = Digits | EscapeCodec


def push(stacks: Stacks, stages: list[Stage], counts: Counts) -> None:
    """Undo the pops of ``stages``, the last first. ``counts``: elements of each chain."""
    for stage in reversed(stages):
        stacks.push(stage.low, stage.width, _counts_of(stage.rows, counts))


def _around(distribution: Distribution, first: Ints, x: Ints) -> Ints:
    """(C((first + x) mod n) - C(first)) mod T: the mass of the x < n symbols from ``first`` on around the circle."""
    b = np.concatenate([first[:, None], (first[:, None] + x) % distribution.n], 1)
    c = floored(distribution, b)
    return (c[:, 1:] - c[:, :1]) % TOTAL


def _low_edges(c: Ints) -> Ints:
    """(N,17) edges of a low digit, from the table ``c`` (N,17) within the interval of its high digit."""
    c = c - c[:, :1]
    return quotient(c * (TOTAL - 32), c[:, -1:]) + 2 * DIGIT


def _stage(rows: NDArray[np.intp], edges: Ints, symbols: Ints) -> Stage:
    each = np.arange(len(symbols))
    low = edges[each, symbols]
    return Stage(rows, low, edges[each, symbols + 1] - low)


def _counts_of(rows: NDArray[np.intp], counts: Counts) -> list[int]:
    """How many of ``rows``, sorted, each chain has."""
    out: list[int] = np.diff(np.searchsorted(rows, np.cumsum(counts)), prepend=0).tolist()
    return out
