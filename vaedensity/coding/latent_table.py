"""Probability tables of latents: Gaussians on the lattice k / 4, k = -128..127."""

import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from vaedensity.coding.compiled import TableRows
from vaedensity.coding.tables import COUNT, GAUSSIAN_REACH, GAUSSIAN_SCALES, TOTAL, flat, gaussian_table, windows

HALF = 128
STEPS = 4  # steps of the table per lattice point
LOWEST_SCALE = -16  # the network counts log2 sigma in eighths of an octave, from 2^-2
MEAN_LIMIT = STEPS * HALF - 1


class LatticeGaussian:
    """P(k) = Phi((4k + 2 - m) / s) - Phi((4k - 2 - m) / s) over symbols k + 128.

    ``mean`` m in sixteenths and ``scale`` (log2 sigma in eighths of an octave): whole numbers (B,n).
    """

    size = 2 * HALF

    def __init__(self, mean: Tensor, scale: Tensor):
        self.mean = mean.long().clamp(-MEAN_LIMIT - 1, MEAN_LIMIT - STEPS + 1)
        self.count = mean.shape[1]
        row = (scale.long() - LOWEST_SCALE).clamp(0, GAUSSIAN_SCALES - 1)
        self.base = row * (2 * GAUSSIAN_REACH + 1) + GAUSSIAN_REACH
        self.table = flat("gaussian")

    def rows(self) -> TableRows:
        """The same table for compiled loops."""
        ones = np.ones((*self.mean.shape, 1), np.int64)
        bases = self.base - self.mean - HALF * STEPS - STEPS // 2
        return TableRows(ones, bases.numpy()[..., None], ones[..., 0], STEPS, gaussian_table().ravel(), self.size)

    def select(self, places: Tensor) -> "LatticeGaussian":
        """The rows at flat ``places`` (m,) as a (1,m) table."""
        part = copy.copy(self)
        part.count = len(places)
        part.mean, part.base = self.mean.flatten()[places][None], self.base.flatten()[places][None]
        return part

    def nearest(self) -> Tensor:
        """Symbol (B,n) nearest to the mean."""
        return torch.div(self.mean + STEPS // 2, STEPS, rounding_mode="floor") + HALF

    def cumulative(self, boundary: Tensor) -> Tensor:
        steps = (boundary - HALF) * STEPS - STEPS // 2 - self.mean[..., None]
        mass = self.table.take(self.base[..., None] + steps.clamp(-GAUSSIAN_REACH, GAUSSIAN_REACH)).double()
        mass = torch.where(boundary <= 0, 0.0, mass)
        return torch.where(boundary >= self.size, float(TOTAL), mass)

    def grid(self, first: Tensor, stride: int) -> Tensor:
        places = self.base + (first - HALF) * STEPS - STEPS // 2 - self.mean
        mass = embedding(places, windows("gaussian", stride * STEPS))
        boundary = first[..., None] + stride * torch.arange(COUNT)
        mass = torch.where(boundary <= 0, 0.0, mass)
        return torch.where(boundary >= self.size, float(TOTAL), mass)


class CoarseGaussian:
    """A :class:`LatticeGaussian` whose mass sits on every ``step``-th symbol, counted from its mean.

    Symbol r = nearest + step * j stands for the cell [r - step/2, r + step/2). ``step`` int64,
    broadcastable to (B,n).
    """

    size = LatticeGaussian.size

    def __init__(self, fine: LatticeGaussian, step: Tensor):
        self.fine, self.step, self.origin, self.count = fine, step, fine.nearest(), fine.count

    def nearest(self, symbol: Tensor) -> Tensor:
        """The representative (B,n) whose cell holds ``symbol``, moved inside the alphabet."""
        half = self.step // 2
        cell = torch.div(symbol - self.origin + half, self.step, rounding_mode="floor")
        representative = self.origin + self.step * cell
        representative = torch.where(representative >= self.size, representative - self.step, representative)
        return torch.where(representative < 0, representative + self.step, representative)

    def cumulative(self, boundary: Tensor) -> Tensor:
        step, origin = self.step[..., None], self.origin[..., None]
        cell = -torch.div(origin - boundary, step, rounding_mode="floor")  # ceil((boundary - origin) / step)
        snapped = origin - step // 2 + step * cell
        snapped = torch.where(boundary <= 0, 0, torch.where(boundary >= self.size, self.size, snapped))
        return self.fine.cumulative(snapped.clamp(0, self.size))

    def rows(self) -> None:
        """Direct items are few: they need no compiled loops."""

    def grid(self, first: Tensor, stride: int) -> Tensor:
        return self.cumulative(first[..., None] + stride * torch.arange(COUNT))
