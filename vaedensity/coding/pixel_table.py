"""Probability tables of pixels: the integer twins of ``model/likelihood.py``."""

import copy
from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from vaedensity.coding.codec import Table
from vaedensity.coding.compiled import TableRows
from vaedensity.coding.tables import (
    LOGISTIC_REACH,
    LOGISTIC_SCALES,
    TOTAL,
    WEIGHT_STEPS,
    log_odds_table,
    logistic_table,
    weight_table,
)
from vaedensity.coding.windows import COUNT, windows

MEAN_LIMIT = 2040  # steps; keeps every lookup inside the table, but for boundary 0 of few levels, where it is not used
START_SCALE = 56  # the network's zero, seven octaves above the table's first row
COLOR_LIMIT = 4096
COLOR_SHIFT = 6


@lru_cache(maxsize=8)
def _constant(table: Callable[[], NDArray[np.int32]]) -> Tensor:
    return torch.from_numpy(table().ravel().copy())


def steps_per_level(levels: int) -> int:
    """How many steps of 2^-11 of the range make one level."""
    return 1 << 11 - (levels - 1).bit_length()


class MixtureTable:
    """Mixtures of logistics over 0..levels-1, open at both ends: sum_k w_k s((x - 1/2 - mu_k) / s_k).

    ``parameters`` (B,P,n) whole numbers for one channel: logits in sixteenths of an octave, means in
    steps of 2^-11 of the range, log2 scales in eighths of an octave. ``mean_offset`` (B,K,n) is added
    to the means. The weighted sum divided by the sum of weights is exact: numerators stay below 2^46,
    and a quotient is whole or at least 2^-19 away from a whole number.
    """

    def __init__(self, parameters: Tensor, levels: int, components: int, mean_offset: Tensor | None = None):
        self.size, self.count = levels, parameters.shape[2]
        self.steps = steps_per_level(levels)
        self.origin = LOGISTIC_REACH - (levels // 2) * self.steps - self.steps // 2
        self.parameters, self.mean_offset = torch.split(parameters, components, 1)[:3], mean_offset

    def rows(self) -> TableRows:
        """The same table for compiled loops."""
        from vaedensity.coding.mixture_rows import mixture_rows

        offset = np.empty((0, 0, 0), np.int64) if self.mean_offset is None else self.mean_offset.contiguous().numpy()
        logits, means, scales = (p.float().contiguous().numpy() for p in self.parameters)
        weights, bases, totals = mixture_rows(
            logits,
            means,
            scales,
            offset,
            weight_table().ravel(),
            START_SCALE,
            LOGISTIC_SCALES - 1,
            2 * LOGISTIC_REACH + 1,
            self.origin,
            MEAN_LIMIT,
        )
        return TableRows(weights, bases, totals, self.steps, logistic_table().ravel(), self.size)

    @cached_property
    def weights(self) -> Tensor:
        """(B,n,K) float64."""
        logits = self.parameters[0].transpose(1, 2).long()
        rank = (logits.amax(2, keepdim=True) - logits).clamp(max=WEIGHT_STEPS - 1)
        return _constant(weight_table).take(rank).double()

    @cached_property
    def total(self) -> Tensor:
        """Sum of the weights (B,n,1)."""
        return self.weights.sum(2, keepdim=True)

    @cached_property
    def bases(self) -> Tensor:
        """Where boundary 0 of each component lies in the flattened table, (B,n,K) int64."""
        means, scales = (p.transpose(1, 2).long() for p in self.parameters[1:])
        if self.mean_offset is not None:
            means = means + self.mean_offset.transpose(1, 2)
        row = (scales + START_SCALE).clamp(0, LOGISTIC_SCALES - 1)
        return row * (2 * LOGISTIC_REACH + 1) + self.origin - means.clamp(-MEAN_LIMIT, MEAN_LIMIT)

    def select(self, places: Tensor) -> "MixtureTable":
        """The rows at flat ``places`` (m,) as a (1,m) table."""
        part = copy.copy(self)
        part.count = len(places)
        part.weights, part.total, part.bases = (
            t.flatten(0, 1).index_select(0, places)[None] for t in (self.weights, self.total, self.bases)
        )
        return part

    def cumulative(self, boundary: Tensor) -> Tensor:
        places, table = boundary * self.steps, _constant(logistic_table)
        mass: Tensor | float = 0.0
        for weight, base in zip(self.weights.unbind(2), self.bases.unbind(2)):
            mass = mass + weight[..., None] * table.take((base[..., None] + places).clamp(min=0))
        assert isinstance(mass, Tensor)
        return self._normalized(mass, boundary)

    def grid(self, first: Tensor, stride: int, count: int = COUNT) -> Tensor:
        rows = windows("logistic", stride * self.steps, count)
        places = (self.bases + first[..., None] * self.steps).clamp(min=0).flatten(0, 1)
        mass = embedding_bag(places, rows, per_sample_weights=self.weights.flatten(0, 1), mode="sum")
        boundary = first[..., None] + stride * torch.arange(count)
        return self._normalized(mass.view(*self.bases.shape[:2], count), boundary)

    def _normalized(self, mass: Tensor, boundary: Tensor) -> Tensor:
        mass = mass.div_(self.total).floor_().masked_fill_(boundary <= 0, 0.0)
        return mass.masked_fill_(boundary >= self.size, float(TOTAL))


class BernoulliTable:
    """Two values; ``parameters`` (B,1,n): log2 odds of the second in sixteenths of an octave."""

    size = 2

    def rows(self) -> None:
        """One boundary a symbol: compiled loops gain nothing."""

    def __init__(self, parameters: Tensor):
        self.count = parameters.shape[2]
        rank = parameters[:, 0].long().clamp(1 - WEIGHT_STEPS, WEIGHT_STEPS - 1) + WEIGHT_STEPS - 1
        self.first = _constant(log_odds_table).take(rank).double()

    def cumulative(self, boundary: Tensor) -> Tensor:
        mass = torch.where(boundary <= 0, 0.0, self.first[..., None])
        return torch.where(boundary >= 2, float(TOTAL), mass)

    def grid(self, first: Tensor, stride: int) -> Tensor:
        return self.cumulative(first[..., None] + stride * torch.arange(COUNT))


class CategoricalTable:
    """A weight for each of ``levels``: ``parameters`` (B,levels,n), log2 weights in sixteenths of an octave. The
    quotient of two whole numbers, the first below 2^48, is exact: see :class:`MixtureTable`."""

    def __init__(self, parameters: Tensor):
        self.size, self.count = parameters.shape[1:]
        logits = parameters.transpose(1, 2).long()
        rank = (logits.amax(2, keepdim=True) - logits).clamp(max=WEIGHT_STEPS - 1)
        below = pad(_constant(weight_table).take(rank).double().cumsum(2), (1, 0))
        self.below = torch.div(below * TOTAL, below[..., -1:], rounding_mode="floor")  # (B,n,levels+1)

    def rows(self) -> None:
        """Not a form that compiled loops know."""

    def cumulative(self, boundary: Tensor) -> Tensor:
        boundary = boundary.clamp(0, self.size)
        return self.below[..., boundary] if boundary.ndim == 1 else self.below.gather(2, boundary)

    def grid(self, first: Tensor, stride: int) -> Tensor:
        return self.cumulative(first[..., None] + stride * torch.arange(COUNT))


def pixel_table(
    parameters: Tensor, channel: int, known: list[Tensor], levels: int, likelihood: str = "mixture"
) -> Table:
    """Table (B,n) of one channel from a sub_image's ``parameters`` (B,P,C,r,c); ``known``: earlier channels (B,n)."""
    here = parameters[:, :, channel].flatten(2)
    if levels == 2:
        return BernoulliTable(here)
    if likelihood == "categorical":
        return CategoricalTable(here)
    components, offset = here.shape[1] // (5 if parameters.shape[2] == 3 else 3), None
    if parameters.shape[2] == 3 and channel > 0:
        coefficients = torch.split(here.long(), components, 1)[3:]
        steps = steps_per_level(levels)
        for coefficient, values in zip(coefficients, known):
            moved = coefficient.clamp(-COLOR_LIMIT, COLOR_LIMIT) * ((values - levels // 2) * steps)[:, None]
            term = torch.div(moved + (1 << COLOR_SHIFT - 1), 1 << COLOR_SHIFT, rounding_mode="floor")
            offset = term if offset is None else offset + term
    return MixtureTable(here, levels, components, offset)
