"""Bits-back with K coupled particles: the rate follows the K-sample bound, the initial bits do not grow with K.

Coupled importance sampling of Ruan et al. 2021, "Improving Lossless Compression Rates via Monte Carlo Bits-Back
Coding", section 3.3: one uniform number a latent is popped, every particle reads it after a rotation of its own, and
one particle is chosen by its weight. The chosen latents and their place in their intervals give the uniform numbers
back, and with them all particles. Whole numbers throughout: weights decide a coded probability.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.coding.ans import Stacks
from vaedensity.coding.bits_back import SPARE_BITS, TooShallow
from vaedensity.coding.codec import (
    Autoregressive,
    Codec,
    CodecOn,
    IntervalCodec,
    Table,
    TableCodec,
    as_ints,
    floored,
)
from vaedensity.coding.integer_math import LOG_BITS, Ints, fixed_log2, fixed_power
from vaedensity.coding.plan import MOST_PARTICLES
from vaedensity.coding.tables import PRECISION, RADIX, TOTAL

UNIFORM_DIGITS = PRECISION // 4  # base 16, of the number below 2^24 that is popped for a latent


class Weigher:
    """Takes the place of B stacks and adds up what would be pushed: ``log2_mass`` (B,), the logarithm of the product
    of all shares frequency / 2^24, in units of 2^-20 of a bit. Particles may differ in how many intervals they
    push."""

    def __init__(self, count: int):
        self.log2_mass = np.zeros(count, np.int64)

    def push_intervals(self, lower: Ints, upper: Ints, owners: Ints | None = None) -> None:
        mass = fixed_log2(upper - lower) - (PRECISION << LOG_BITS)
        if owners is None:
            self.log2_mass += mass.sum(1)
        else:
            np.add.at(self.log2_mass, owners, mass)


class Quantiles:
    """Takes the place of B stacks: uniform numbers (B,n) below 2^24 that latents are read from in order, or,
    without numbers, just the intervals [lower, lower + width) of 2^24 that given latents occupy."""

    def __init__(self, numbers: Ints | None = None):
        self.numbers, self.taken = numbers, 0
        self.lower: list[Ints] = []
        self.width: list[Ints] = []

    def take(self, n: int) -> Ints:
        assert self.numbers is not None
        self.taken += n
        return self.numbers[:, self.taken - n : self.taken]

    def intervals(self) -> tuple[Ints, Ints]:
        """(lower, width), each (B,n)."""
        return np.concatenate(self.lower, 1), np.concatenate(self.width, 1)


class QuantileCodec(CodecOn[Quantiles, Quantiles]):
    """Reads symbols of ``table`` (alphabet 256) from :class:`Quantiles`. Every symbol has an interval of at least
    FLOOR, so that whatever is popped can be pushed back."""

    def __init__(self, table: Table):
        self.table = table

    def pop(self, stacks: Quantiles) -> Ints:
        number = torch.from_numpy(np.ascontiguousarray(stacks.take(self.table.count)))[..., None]
        high = self._digit(torch.zeros_like(number[..., 0]), RADIX, number)
        symbol = (high * RADIX + self._digit(high * RADIX, 1, number)).numpy()
        lower, width = self._interval(symbol)
        stacks.lower.append(lower)
        stacks.width.append(width)
        return symbol

    def push(self, stacks: Quantiles, symbol: Ints) -> None:
        lower, width = self._interval(symbol)
        stacks.lower.insert(0, lower)
        stacks.width.insert(0, width)

    def _digit(self, first: Tensor, stride: int, number: Tensor) -> Tensor:
        """How many of the inner boundaries first + stride * (1..15) lie at or below ``number``."""
        boundary = first[..., None] + stride * torch.arange(1, RADIX)
        return (floored(self.table.grid(first, stride)[..., 1:RADIX], boundary, self.table.size) <= number).sum(-1)

    def _interval(self, symbol: Ints) -> tuple[Ints, Ints]:
        s = torch.from_numpy(symbol)
        boundary = torch.stack([s, s + 1], -1)
        ends = as_ints(floored(self.table.cumulative(boundary), boundary, self.table.size))
        return ends[..., 0], ends[..., 1] - ends[..., 0]


class EqualCells:
    """Whole numbers below ``limit`` (B,n) equally likely, seen as ``size`` cells of ``cell`` numbers each."""

    def __init__(self, limit: Ints, size: int, cell: int):
        self.limit, self.size, self.cell, self.count = torch.from_numpy(limit)[..., None], size, cell, limit.shape[1]

    def rows(self) -> None:
        """Not a form that compiled loops know."""

    def cumulative(self, boundary: Tensor) -> Tensor:
        below = torch.minimum(self.limit, boundary * self.cell)
        return torch.div(below * TOTAL, self.limit, rounding_mode="floor").double()

    def grid(self, first: Tensor, stride: int) -> Tensor:
        return self.cumulative(first[..., None] + stride * torch.arange(RADIX + 1))


class UniformCodec(Codec):
    """Whole numbers 0..limit-1, (B,n), equally likely; ``limit`` (B,n) between 1 and 2^24. Six digits of base 16:
    exactly 24 bits where ``limit`` is 2^24. A digit that no number has keeps a mass of 2^-23, which only
    stacks that no writer made can hit: popping then raises ValueError."""

    def __init__(self, limit: Ints):
        self.places = [PRECISION - 4 * (i + 1) for i in range(UNIFORM_DIGITS)]
        self.digits = Autoregressive(UNIFORM_DIGITS, lambda: limit, self._digit, self._narrow)

    def _digit(self, index: int, limit: Ints) -> TableCodec:
        return TableCodec(EqualCells(limit, RADIX, 1 << self.places[index]))

    def _narrow(self, index: int, limit: Ints, digit: Ints) -> Ints:
        cell = 1 << self.places[index]
        rest: Ints = np.minimum(cell, limit - digit * cell)
        if (rest <= 0).any():
            raise ValueError("a latent's place lies outside its interval")
        return rest

    def push(self, stacks: Stacks, symbol: Ints) -> None:
        self.digits.push(stacks, [symbol >> place & RADIX - 1 for place in self.places])

    def pop(self, stacks: Stacks) -> Ints:
        numbers: Iterable[Ints] = (digit << place for digit, place in zip(self.digits.pop(stacks), self.places))
        return sum(numbers, np.zeros((), np.int64))


class ByWeight:
    """One of K particles (B,1), by ``log2_weights`` (B,K) in units of 2^-20 of a bit."""

    count = 1

    def __init__(self, log2_weights: Ints):
        self.size = log2_weights.shape[1]
        mass = fixed_power(log2_weights.max(1, keepdims=True) - log2_weights).cumsum(1)
        below = np.pad(mass, ((0, 0), (1, 0))) * TOTAL // mass[:, -1:]  # below 2^38 * 2^24
        self.below = torch.from_numpy(below)[:, None].double()

    def rows(self) -> None:
        """Not a form that compiled loops know."""

    def cumulative(self, boundary: Tensor) -> Tensor:
        if boundary.ndim == 1:
            return self.below[..., boundary]
        return self.below.gather(2, boundary.clamp(0, self.size))

    def grid(self, first: Tensor, stride: int) -> Tensor:
        return self.cumulative((first[..., None] + stride * torch.arange(RADIX + 1)).clamp(max=self.size))


@lru_cache(maxsize=2)
def rotations(particles: int, latents: int) -> NDArray[np.int64]:
    """What particle k adds to the uniform number of latent i, modulo 2^24: (particles, latents), 0 for the first.

    The high 24 bits of the hash splitmix64 (Steele et al. 2014) of k * 2^32 + i.
    """
    k, i = np.arange(particles, dtype=np.uint64)[:, None], np.arange(latents, dtype=np.uint64)
    h = ((k << np.uint64(32)) + i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    turns = ((h ^ (h >> np.uint64(31))) >> np.uint64(64 - PRECISION)).astype(np.int64)
    turns[0] = 0
    turns.setflags(write=False)
    return turns


Parts = tuple[IntervalCodec, Callable[[Any], CodecOn[Quantiles, Quantiles]], Callable[[Any], IntervalCodec]]
"""Prior, posterior given x, likelihood given z, as BitsBack takes them."""


class CoupledBitsBack(Codec):
    """Codes x for -log2 (1/K) sum_k w_k bits, w_k = p(x|z_k) p(z_k) / q(z_k|x), with K coupled particles.

    Parameters
    ----------
    particles : int
        K, from 2 to MOST_PARTICLES.
    latents : int
        How many an item has.
    parts : callable
        ``parts(items, copies)``: prior, posterior and likelihood for so many consecutive copies of every item. The
        posterior takes the items themselves and reads latents from :class:`Quantiles`.
    at_once : int
        Most particles of all items that go through the network together.

    Raises
    ------
    TooShallow
        By ``push``, where a stack holds too few bits for the uniform numbers.
    """

    def __init__(self, particles: int, latents: int, parts: Callable[[int, int], Parts], at_once: int = 1 << 30):
        if not 2 <= particles <= MOST_PARTICLES:
            raise ValueError(f"{particles} particles: expected 2 to {MOST_PARTICLES}")
        self.particles, self.latents, self.parts, self.at_once = particles, latents, parts, at_once
        self.turns = rotations(particles, latents)

    def push(self, stacks: Stacks, symbol: Tensor) -> None:
        if (stacks.depth_bits() < PRECISION * self.latents + 3 * SPARE_BITS).any():
            raise TooShallow
        number = self._numbers(len(stacks)).pop(stacks)
        try:
            chosen = TableCodec(ByWeight(self._weights(symbol, number))).pop(stacks)[:, 0]
        except ValueError as error:  # a code that is no particle's, which K over 32 may leave: once in 10^7 items
            raise TooShallow from error
        prior, posterior, likelihood = self.parts(len(stacks), 1)
        own_number = (number + self.turns[chosen]) % TOTAL
        own = Quantiles(own_number)
        z = posterior(symbol).pop(own)
        own_lower, own_width = own.intervals()
        self._index(len(stacks)).push(stacks, chosen[:, None])
        UniformCodec(own_width).push(stacks, own_number - own_lower)
        likelihood(z).push(stacks, symbol)
        prior.push(stacks, z)

    def pop(self, stacks: Stacks) -> Tensor:
        prior, posterior, likelihood = self.parts(len(stacks), 1)
        z = prior.pop(stacks)
        symbol = likelihood(z).pop(stacks)
        assert isinstance(symbol, Tensor)
        own = Quantiles()
        posterior(symbol).push(own, z)
        own_lower, own_width = own.intervals()
        place = UniformCodec(own_width).pop(stacks)
        chosen = self._index(len(stacks)).pop(stacks)[:, 0]
        number = (own_lower + place - self.turns[chosen]) % TOTAL
        TableCodec(ByWeight(self._weights(symbol, number))).push(stacks, chosen[:, None])
        self._numbers(len(stacks)).push(stacks, number)
        return symbol

    def _weights(self, symbol: Tensor, number: Ints) -> Ints:
        """log2 weights (B,K) of all particles, in units of 2^-20 of a bit."""
        share = max(1, self.at_once // len(number))
        return np.concatenate(
            [self._some_weights(symbol, number, self.turns[k : k + share]) for k in range(0, self.particles, share)], 1
        )

    def _some_weights(self, symbol: Tensor, number: Ints, turns: Ints) -> Ints:
        copies = len(turns)
        count = len(number) * copies
        prior, posterior, likelihood = self.parts(len(number), copies)
        quantiles = Quantiles(((number[:, None] + turns) % TOTAL).reshape(count, -1))
        weigher = Weigher(count)
        z = posterior(symbol).pop(quantiles)
        likelihood(z).push(weigher, symbol.repeat_interleave(copies, 0))
        prior.push(weigher, z)
        _, width = quantiles.intervals()
        weights: Ints = (weigher.log2_mass - fixed_log2(width).sum(1)).reshape(-1, copies)
        return weights

    def _numbers(self, count: int) -> UniformCodec:
        return UniformCodec(np.full((count, self.latents), TOTAL, np.int64))

    def _index(self, count: int) -> TableCodec:
        return TableCodec(EqualCells(np.full((count, 1), self.particles, np.int64), self.particles, 1))
