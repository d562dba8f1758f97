"""Codecs: things that can be pushed on a stack and popped again.

Two laws hold for each, to the bit (tests/coding/test_laws.py): pop undoes push, and push undoes pop.
Combinators take codecs and return codecs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from vaedensity.coding.ans import Stacks
from vaedensity.coding.compiled import CompiledStacks, TableRows
from vaedensity.coding.integer_math import Ints
from vaedensity.coding.tables import FLOOR, ONE_DIGIT, RADIX, TOTAL

NO_RUN = np.empty((0, 0), np.int64)


Pushed = TypeVar("Pushed", contravariant=True)  # what a codec pushes on
Popped = TypeVar("Popped", contravariant=True)  # what it pops from


class CodecOn(ABC, Generic[Pushed, Popped]):
    """What codes a batch of symbols, one row per stack or per what takes a stack's place.

    ``push`` undoes ``pop`` and ``pop`` undoes ``push``, to the bit.
    """

    @abstractmethod
    def push(self, stacks: Pushed, symbol: Any) -> None: ...

    @abstractmethod
    def pop(self, stacks: Popped) -> Any: ...


class Pushable(Protocol):
    """B stacks as far as pushing intervals goes; see :class:`~vaedensity.coding.ans.Stacks`."""

    def push_intervals(self, lower: Ints, upper: Ints, owners: Ints | None = None) -> None: ...


Codec = CodecOn[Stacks, Stacks]
IntervalCodec = CodecOn[Pushable, Stacks]
"""A codec that only ever pushes intervals, and so on whatever takes them."""


class Table(Protocol):
    """A batch (B,n) of probability tables over 0..size-1; ``count`` is n."""

    size: int
    count: int

    def rows(self) -> TableRows | None:
        """The same table for compiled loops, where it has that form."""
        ...

    def cumulative(self, boundary: Tensor) -> Tensor:
        """Mass below integer ``boundary``, (k,) shared or (B,n,k) int64 in 0..size: float64 whole
        numbers (B,n,k), not decreasing, 0 at 0 and 2^24 at size."""

    def grid(self, first: Tensor, stride: int) -> Tensor:
        """``cumulative`` at first + stride * j, j = 0..16, for ``first`` int64 (B,n): (B,n,17)."""


class TableCodec(IntervalCodec):
    """Symbols 0..size-1, (B,n) int64, under a probability table.

    Alphabets above 32 are coded as two digits of base 16, so that a decoder evaluates 2 * 17 boundaries instead of
    ``size``. All arithmetic is exact in float64.

    Parameters
    ----------
    table : Table
        Of these B x n symbols.

    Examples
    --------
    >>> from vaedensity.coding.pixel_table import CategoricalTable
    >>> codec = TableCodec(CategoricalTable(torch.tensor([[[16], [0]]])))  # P(0) = 2/3: one octave above P(1)
    >>> stacks = Stacks(1)
    >>> codec.push(stacks, np.array([[0]]))
    >>> round(float(stacks.information[0]), 3), codec.pop(stacks).tolist()
    (0.585, [[0]])
    """

    def __init__(self, table: Table):
        self.table = table
        self.size = table.size

    def push(self, stacks: Pushable, symbol: Ints) -> None:
        if isinstance(stacks, CompiledStacks) and (rows := self.table.rows()):
            return stacks.push_symbols(rows, symbol, NO_RUN, 0)
        digits = self.intervals(symbol)
        stacks.push_intervals(*(np.concatenate(ends, 1) for ends in zip(*digits)))

    def pop(self, stacks: Stacks) -> Ints:
        if isinstance(stacks, CompiledStacks) and (rows := self.table.rows()):
            return stacks.pop_symbols(rows, NO_RUN, 0)
        if self.size <= ONE_DIGIT:
            return stacks.pop_rows(self._boundaries(torch.arange(self.size + 1)).numpy())
        digits, count = torch.arange(RADIX + 1), -(-self.size // RADIX) + 1
        ends = (digits[:count] * RADIX).clamp(max=self.size)
        boundaries = self._floored(
            self.table.grid(torch.zeros(len(stacks), self.table.count, dtype=torch.int64), RADIX)[..., :count], ends
        )
        high = torch.from_numpy(stacks.pop_rows(boundaries.numpy()))
        ends = (high[..., None] * RADIX + digits).clamp(max=self.size)
        c = self._floored(self.table.grid(high * RADIX, 1), ends)
        begin = c[..., :1]
        low = stacks.pop_rows(within(c - begin, c[..., -1:] - begin, digits).numpy())
        symbol = high.numpy() * RADIX + low
        if (symbol >= self.size).any():
            raise ValueError("a symbol lies outside its alphabet")  # no writer makes one
        return symbol

    def intervals(self, symbol: Ints) -> list[tuple[Ints, Ints]]:
        """[lower, upper) of 2^24, each (B,n), of every digit of the symbols, in the order in which they are popped."""
        s = torch.from_numpy(symbol)
        if self.size <= ONE_DIGIT:
            inner = self._boundaries(torch.stack([s, s + 1], -1))
            return [(as_ints(inner[..., 0]), as_ints(inner[..., 1]))]
        high, low = s // RADIX, s % RADIX
        ends = torch.stack([high * RADIX, (high + 1) * RADIX, s, s + 1], -1).clamp(max=self.size)
        c = self._boundaries(ends)
        begin, width = c[..., 0], c[..., 1] - c[..., 0]
        lower, upper = within(c[..., 2] - begin, width, low), within(c[..., 3] - begin, width, low + 1)
        return [(as_ints(begin), as_ints(c[..., 1])), (as_ints(lower), as_ints(upper))]

    def _boundaries(self, boundary: Tensor) -> Tensor:
        return self._floored(self.table.cumulative(boundary), boundary)

    def _floored(self, mass: Tensor, boundary: Tensor) -> Tensor:
        return floored(mass, boundary, self.size)


def floored(mass: Tensor, boundary: Tensor, size: int) -> Tensor:
    """Cumulative counts in which every one of ``size`` symbols has at least FLOOR, from ``mass`` below ``boundary``."""
    return torch.floor(mass * ((TOTAL - FLOOR * size) / TOTAL)) + FLOOR * boundary


def within(offset: Tensor, width: Tensor, digit: Tensor, digits: int = RADIX) -> Tensor:
    """Boundary of one of ``digits``: ``offset`` of the ``width`` of what is known before it, stretched to 2^24.

    offset * share < 2^48 is exact, and the quotient is a whole number or at least 2^-24 away from
    one, further than float64 rounds: floor is the true integer quotient.
    """
    share = float(TOTAL - FLOOR * digits)
    return torch.floor(offset * share / width) + FLOOR * digit


def as_ints(values: Tensor) -> Ints:
    return values.numpy().astype(np.int64)


class Autoregressive(CodecOn[Pushed, Popped]):
    """A list of symbols, each coded given those before it.

    Parameters
    ----------
    length : int
        How many symbols.
    begin : callable
        ``begin()``: the state before the first.
    codec : callable
        ``codec(i, state)``: the codec of symbol i.
    advance : callable
        ``advance(i, state, symbol)``: the state after symbol i.
    """

    def __init__(
        self,
        length: int,
        begin: Callable[[], Any],
        codec: Callable[[int, Any], CodecOn[Pushed, Popped]],
        advance: Callable[[int, Any, Any], Any],
    ):
        self.length, self.begin, self.codec, self.advance = length, begin, codec, advance

    def push(self, stacks: Pushed, symbol: list[Any]) -> None:
        state, codecs = self.begin(), []
        for i in range(self.length):
            codecs.append(self.codec(i, state))
            state = self.advance(i, state, symbol[i])
        for i in reversed(range(self.length)):
            codecs[i].push(stacks, symbol[i])

    def pop(self, stacks: Popped) -> list[Any]:
        state, symbols = self.begin(), []
        for i in range(self.length):
            symbols.append(self.codec(i, state).pop(stacks))
            state = self.advance(i, state, symbols[i])
        return symbols
