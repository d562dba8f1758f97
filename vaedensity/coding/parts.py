"""Alphabets cut in a few parts: first which part, then, where a part holds several symbols, which of them.

Most values of most data lie in a part that is one symbol: at an end of a drawing's scale, or among the sixteen
lattice points around a latent's mean. For those, one row of few boundaries is all that a decoder looks up; the two
digits of a :class:`~vaedensity.coding.codec.TableCodec` follow only for the others. The probabilities are the same.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.coding.ans import Ints, Stacks
from vaedensity.coding.codec import RADIX, Codec, Table, as_ints, floored, within
from vaedensity.coding.tables import TOTAL


class SelectableTable(Table, Protocol):
    """A table whose rows can be taken one by one."""

    def select(self, places: Tensor) -> "SelectableTable":
        """The rows at flat ``places`` (m,) of this (B,n) table, as a (1,m) table."""
        ...


class CentredTable(SelectableTable, Protocol):
    """A table whose mass gathers around one symbol."""

    def nearest(self) -> Tensor:
        """That symbol, (B,n) int64."""
        ...


class PartsCodec(Codec):
    """Symbols 0..size-1, (B,n) int64, cut into parts at ``cuts``, ascending whole numbers in 1..size-1, (P,) shared
    or (B,n,P): before the first, between two, from the last on."""

    def __init__(self, table: SelectableTable, cuts: Tensor):
        self.table, self.size, self.cuts = table, table.size, cuts

    def push(self, stacks: Stacks, symbol: Ints) -> None:
        s = torch.from_numpy(symbol)
        part = (s[..., None] >= self.cuts).sum(-1, keepdim=True)
        ends = self._edges().expand(*s.shape, -1).gather(-1, torch.cat([part, part + 1], -1))
        mass = as_ints(floored(self.table.cumulative(ends), ends, self.size))
        self._push_rest(stacks, symbol, ends.numpy(), mass)
        stacks.push_intervals(mass[..., 0], mass[..., 1])

    def pop(self, stacks: Stacks) -> Ints:
        inner = as_ints(floored(self._mass_at_cuts(), self.cuts, self.size))
        mass = np.pad(inner, ((0, 0), (0, 0), (1, 1)), constant_values=((0, 0), (0, 0), (0, TOTAL)))
        part = torch.from_numpy(stacks.pop_rows(mass))[..., None]
        either = torch.cat([part, part + 1], -1)
        ends = self._edges().expand(*part.shape[:2], -1).gather(-1, either).numpy()
        symbol = ends[..., 0].copy()
        self._pop_rest(stacks, symbol, ends, np.take_along_axis(mass, either.numpy(), -1))
        return symbol

    def _push_rest(self, stacks: Stacks, symbol: Ints, ends: Ints, mass: Ints) -> None:
        several = ends[..., 1] - ends[..., 0] > 1
        if several.any():
            self._rest(several, ends, mass).push(stacks, symbol[several])

    def _pop_rest(self, stacks: Stacks, symbol: Ints, ends: Ints, mass: Ints) -> None:
        several = ends[..., 1] - ends[..., 0] > 1
        if several.any():
            symbol[several] = self._rest(several, ends, mass).pop(stacks)

    def _rest(self, several: NDArray[np.bool_], ends: Ints, mass: Ints) -> "_Range":
        places = np.flatnonzero(several)
        table = self.table.select(torch.from_numpy(places))
        return _Range(table, places // several.shape[1], ends[several], mass[several])

    def _edges(self) -> Tensor:
        """The cuts between 0 and size."""
        return torch.nn.functional.pad(torch.nn.functional.pad(self.cuts, (1, 0)), (0, 1), value=self.size)

    def _mass_at_cuts(self) -> Tensor:
        return self.table.cumulative(self.cuts)


class EndsFirst(PartsCodec):
    """The lowest symbol, the highest, or what lies between."""

    def __init__(self, table: SelectableTable):
        super().__init__(table, torch.tensor([1, table.size - 1]))


class CentreFirst(PartsCodec):
    """One of sixteen symbols around the middle of the table's mass, what lies below, or what lies above."""

    def __init__(self, table: CentredTable):
        self.first = (table.nearest() - RADIX // 2).clamp(1, table.size - 1 - RADIX)
        super().__init__(table, self.first[..., None] + torch.arange(RADIX + 1))

    def _mass_at_cuts(self) -> Tensor:
        return self.table.grid(self.first, 1)


class _Range:
    """A symbol of the range ``ends`` (m,2) for each row of a (1,m) table, on the stacks numbered ``owners`` (m,): two
    digits of base 16, each stretched to the width of what is known before it. ``mass`` (m,2): counts below the ends."""

    def __init__(self, table: Table, owners: Ints, ends: Ints, mass: Ints):
        self.table, self.size, self.owners, self.ends = table, table.size, owners, ends
        self.low, self.high = torch.from_numpy(mass).double().split(1, 1)

    def push(self, stacks: Stacks, symbol: Ints) -> None:
        s = torch.from_numpy(symbol)
        first, digit = s // RADIX, s % RADIX
        boundary = torch.stack([first * RADIX, (first + 1) * RADIX, s, s + 1], -1).clamp(max=self.size)
        c = self._inside(self.table.cumulative(boundary[None])[0], boundary)
        pair = torch.arange(2)
        coarse = as_ints(within(c[:, :2] - self.low, self.high - self.low, first[:, None] + pair))
        fine = as_ints(within(c[:, 2:] - c[:, :1], c[:, 1:2] - c[:, :1], digit[:, None] + pair))
        stacks.push_intervals(fine[:, 0], fine[:, 1], self.owners)
        stacks.push_intervals(coarse[:, 0], coarse[:, 1], self.owners)

    def pop(self, stacks: Stacks) -> Ints:
        first = self._digit(stacks, self._grid(torch.zeros(len(self.owners), dtype=torch.int64), RADIX))
        begin = (first * RADIX).numpy()
        if ((begin >= self.ends[:, 1]) | (begin + RADIX <= self.ends[:, 0])).any():
            raise ValueError("a digit lies outside its part")  # no writer makes one
        symbol = begin + self._digit(stacks, self._grid(first * RADIX, 1)).numpy()
        if ((symbol < self.ends[:, 0]) | (symbol >= self.ends[:, 1])).any():
            raise ValueError("a symbol lies outside its part")
        return symbol

    def _digit(self, stacks: Stacks, c: Tensor) -> Tensor:
        """Pop a digit (m,) from its 17 boundaries."""
        rows = within(c - c[:, :1], c[:, -1:] - c[:, :1], torch.arange(RADIX + 1))
        return torch.from_numpy(stacks.pop_rows(rows.numpy(), self.owners))

    def _grid(self, first: Tensor, stride: int) -> Tensor:
        boundary = first[:, None] + stride * torch.arange(RADIX + 1)
        return self._inside(self.table.grid(first[None], stride)[0], boundary)

    def _inside(self, mass: Tensor, boundary: Tensor) -> Tensor:
        """Counts below ``boundary`` (m,k), where what lies outside the range stands at its ends."""
        return floored(mass, boundary, self.size).clamp(self.low, self.high)
