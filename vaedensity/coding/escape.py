"""Alphabets of which a few neighbouring symbols come first: which of them, or none; then, where none, which other.

Most values of most data lie in a short run: at the two ends of a drawing's scale, which are neighbours once the
alphabet is a circle, or among the sixteen lattice points around a latent's mean. For those, one row of few boundaries
is all that a decoder looks up; the two digits of a :class:`~vaedensity.coding.codec.TableCodec` follow only for the
others. The probabilities are the same."""

from abc import abstractmethod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vaedensity.coding.ans import Ints, Stacks
from vaedensity.coding.codec import ONE_DIGIT, RADIX, IntervalCodec, Pushable, Table, floored, within
from vaedensity.coding.compiled import CompiledStacks, TableRows
from vaedensity.coding.tables import TOTAL


class SelectableTable(Table, Protocol):
    """A table whose rows can be taken one by one."""

    def select(self, places: Tensor) -> "SelectableTable":
        """The rows at flat ``places`` (m,) of this (B,n) table, as a (1,m) table."""
        ...


class WindowedTable(SelectableTable, Protocol):
    """A table that looks up few equally spaced boundaries at once."""

    def grid(self, first: Tensor, stride: int, count: int = 17) -> Tensor:
        """``cumulative`` at first + stride * j, j = 0..count-1, (B,n,count)."""
        ...


class CentredTable(SelectableTable, Protocol):
    """A table whose mass gathers around one symbol."""

    def nearest(self) -> Tensor:
        """That symbol, (B,n) int64."""
        ...


class EscapeCodec(IntervalCodec):
    """More than 32 symbols 0..size-1, (B,n) int64, seen as a circle: the run of ``length`` symbols from ``first`` on,
    int64 (B,n), comes first, the others follow it around the circle."""

    length: int

    def __init__(self, table: SelectableTable, first: Tensor):
        assert table.size > ONE_DIGIT
        self.table, self.size, self.first = table, table.size, first

    def push(self, stacks: Pushable, symbol: Ints) -> None:
        if isinstance(stacks, CompiledStacks) and (rows := self.table.rows()):
            return stacks.push_symbols(rows, symbol, self._first_of_all(rows), self.length)
        s = torch.from_numpy(symbol)
        other = (s - self.first).remainder(self.size) >= self.length
        begin = torch.where(other, (self.first + self.length).remainder(self.size), s)
        boundary = torch.stack([self.first.expand_as(s), begin, begin + 1], -1)
        c = floored(self.table.cumulative(boundary), boundary, self.size)
        lower = (c[..., 1] - c[..., 0]).remainder(TOTAL)
        upper = torch.where(other, float(TOTAL), lower + c[..., 2] - c[..., 1])
        if other.any():
            self._others(other, TOTAL - lower).push(stacks, s[other])
        stacks.push_intervals(lower.long().numpy(), upper.long().numpy())

    def pop(self, stacks: Stacks) -> Ints:
        if isinstance(stacks, CompiledStacks) and (rows := self.table.rows()):
            return stacks.pop_symbols(rows, self._first_of_all(rows), self.length)
        run = self._run()
        boundaries = torch.nn.functional.pad(run, (0, 1), value=float(TOTAL))
        place = torch.from_numpy(stacks.pop_rows(boundaries.numpy()))
        symbol = (self.first + place).remainder(self.size)
        other = place == self.length
        if other.any():
            symbol[other] = self._others(other, TOTAL - run[..., -1]).pop(stacks)
        return symbol.numpy()

    def _first_of_all(self, rows: TableRows) -> Ints:
        """``first`` with an entry for every symbol."""
        return np.ascontiguousarray(np.broadcast_to(self.first.numpy(), rows.totals.shape))

    @abstractmethod
    def _run(self) -> Tensor:
        """Boundaries of the run's symbols counted from ``first``, (B,n,length+1), the first of them 0."""

    def _others(self, other: Tensor, width: Tensor) -> "_Others":
        places = other.flatten().nonzero()[:, 0]
        origin = (self.first + self.length).remainder(self.size).expand_as(other)[other]
        table, owners = self.table.select(places), (places // other.shape[1]).numpy()
        return _Others(table, owners, origin, self.size - self.length, width[other][:, None])


class EndsFirst(EscapeCodec):
    """The highest symbol and, next to it on the circle, the lowest."""

    length = 2

    def __init__(self, table: WindowedTable):
        super().__init__(table, torch.full((1, 1), table.size - 1))
        self.windowed = table

    def _run(self) -> Tensor:
        boundary = torch.tensor([1, self.size - 1])
        first = torch.ones(1, 1, dtype=torch.int64)
        c = floored(self.windowed.grid(first, self.size - 2, 2), boundary, self.size)
        highest = TOTAL - c[..., 1]
        return torch.stack([torch.zeros_like(highest), highest, highest + c[..., 0]], -1)

    def _others(self, other: Tensor, width: Tensor) -> "_Others":
        return _InOrder(*super()._others(other, width).parts)


class CentreFirst(EscapeCodec):
    """Sixteen symbols around the middle of the table's mass."""

    length = RADIX

    def __init__(self, table: CentredTable):
        super().__init__(table, (table.nearest() - RADIX // 2).clamp(0, table.size - RADIX))

    def _run(self) -> Tensor:
        c = floored(self.table.grid(self.first, 1), self.first[..., None] + torch.arange(RADIX + 1), self.size)
        return c - c[..., :1]


class _Others:
    """Symbols of which each row of a (1,m) table has ``count``, from ``origin`` (m,) on around the circle, on the
    stacks numbered ``owners`` (m,): two digits of base 16, each stretched to the ``width`` (m,1) of what is known
    before it."""

    def __init__(self, table: Table, owners: Ints, origin: Tensor, count: int, width: Tensor):
        self.parts = table, owners, origin, count, width
        self.table, self.owners, self.origin, self.count, self.width = self.parts
        self.digits = -(-count // RADIX)

    def push(self, stacks: Pushable, symbol: Tensor) -> None:
        place = (symbol - self.origin).remainder(self.table.size)
        first, digit = place // RADIX, place % RADIX
        c = self._mass(torch.stack([first * RADIX, (first + 1) * RADIX, place, place + 1], -1))
        pair = torch.arange(2)
        coarse = within(c[:, :2], self.width, first[:, None] + pair, self.digits).long().numpy()
        fine = within(c[:, 2:] - c[:, :1], c[:, 1:2] - c[:, :1], digit[:, None] + pair).long().numpy()
        stacks.push_intervals(fine[:, 0], fine[:, 1], self.owners)
        stacks.push_intervals(coarse[:, 0], coarse[:, 1], self.owners)

    def pop(self, stacks: Stacks) -> Tensor:
        digits = torch.arange(self.digits + 1)
        rows = within(
            self._grid(torch.zeros_like(self.origin), RADIX, self.digits + 1), self.width, digits, self.digits
        )
        first = self._digit(stacks, rows)
        c = self._grid(first * RADIX, 1, RADIX + 1)
        place = first * RADIX + self._digit(stacks, within(c - c[:, :1], c[:, -1:] - c[:, :1], torch.arange(RADIX + 1)))
        if (place >= self.count).any():
            raise ValueError("a symbol lies outside its alphabet")  # no writer makes one
        return (self.origin + place).remainder(self.table.size)

    def _digit(self, stacks: Stacks, rows: Tensor) -> Tensor:
        return torch.from_numpy(stacks.pop_rows(rows.numpy(), self.owners))

    def _grid(self, first: Tensor, stride: int, count: int) -> Tensor:
        return self._mass(first[:, None] + stride * torch.arange(count))

    def _mass(self, place: Tensor) -> Tensor:
        """Mass (m,k) of the symbols before ``place`` (m,k), counted from the origin; all of it from ``count`` on."""
        boundary = torch.cat([self.origin[:, None], (self.origin[:, None] + place).remainder(self.table.size)], 1)
        c = floored(self.table.cumulative(boundary[None])[0], boundary, self.table.size)
        return torch.where(place >= self.count, self.width, (c[:, 1:] - c[:, :1]).remainder(TOTAL))


class _InOrder(_Others):
    """Others that lie side by side in the alphabet, not only on the circle: a row is looked up at once."""

    def _grid(self, first: Tensor, stride: int, count: int) -> Tensor:
        begin, steps = self.origin + first, stride * torch.arange(RADIX + 1)
        c = floored(self.table.grid(begin[None], stride)[0], begin[:, None] + steps, self.table.size)
        below = floored(self.table.cumulative(self.origin[None, :, None])[0], self.origin[:, None], self.table.size)
        return torch.where(first[:, None] + steps >= self.count, self.width, c - below)[:, :count]
