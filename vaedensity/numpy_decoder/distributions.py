"""Integer tables c(b) of how likely each symbol of a latent or pixel is (docs/format.md, "Distributions").

A distribution is of N elements, each a variable over 0..n-1: symbols below b have c(b) of 2^24. Quotients are taken in
float64: of numbers below 2^48, their floor is exact.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.tables import TOTAL, Ints, gaussian, logistic, weights_and_log_odds

Wide = NDArray[np.float64]


def quotient(a: Ints | Wide, b: Ints | Wide) -> Ints:
    """a div b of whole numbers 0 <= a < 2^48, 1 <= b."""
    return (np.asarray(a, np.float64) / b).astype(np.int64)


class Distribution(Protocol):
    """Of N elements with ``n`` symbols each."""

    @property
    def n(self) -> int: ...

    def cumulative(self, b: Ints) -> Ints:
        """c (N,k) of boundaries ``b``, (N,k) or (1,k), in 0..n."""

    def take(self, rows: NDArray[np.intp]) -> "Distribution":
        """The distribution of some of the elements."""


@dataclass(frozen=True)
class Gaussian:
    """Fine table of latents; ``mean`` and ``log2_scale`` (N,) as the network gives them."""

    mean: Ints
    log2_scale: Ints
    n: int = 256

    def cumulative(self, b: Ints) -> Ints:
        mean = np.clip(self.mean, -512, 508)[:, None]
        row = 2049 * np.clip(self.log2_scale + 16, 0, 40)[:, None] + 1024
        c = gaussian().ravel().take(row + np.clip(4 * (b - 128) - 2 - mean, -1024, 1024))
        return np.where(b <= 0, 0, np.where(b >= 256, TOTAL, c))

    def nearest(self) -> Ints:
        """(N,) symbol nearest to the mean."""
        return (np.clip(self.mean, -512, 508) + 2) // 4 + 128

    def take(self, rows: NDArray[np.intp]) -> "Gaussian":
        return Gaussian(self.mean[rows], self.log2_scale[rows])


@dataclass(frozen=True)
class Coarse:
    """Coarse table of latents of direct items, whose mass is on every ``step``-th symbol; ``step`` (N,)."""

    fine: Gaussian
    step: Ints
    n: int = 256

    def cumulative(self, b: Ints) -> Ints:
        o, step = self.fine.nearest()[:, None], self.step[:, None]
        cell = -((o - b) // step)
        snapped = np.clip(o - step // 2 + step * cell, 0, 256)
        return np.where(b <= 0, 0, np.where(b >= 256, TOTAL, self.fine.cumulative(snapped)))

    def take(self, rows: NDArray[np.intp]) -> "Coarse":
        return Coarse(self.fine.take(rows), self.step[rows])


@dataclass(frozen=True)
class Listed:
    """A table written out: ``c`` (N,n+1)."""

    c: Ints

    @property
    def n(self) -> int:
        return int(self.c.shape[1]) - 1

    def cumulative(self, b: Ints) -> Ints:
        return np.take_along_axis(self.c, np.broadcast_to(b, (len(self.c), b.shape[1])), 1)

    def take(self, rows: NDArray[np.intp]) -> "Listed":
        return Listed(self.c[rows])


@dataclass(frozen=True)
class Mixture:
    """Mixture of K logistics over ``n`` levels.

    ``weight`` (N,K): W; ``row`` (N,K): where L[s][0] lies in the flattened L; ``mean`` (N,K): mu, colours included.
    """

    n: int
    weight: Wide
    row: Ints
    mean: Ints

    @classmethod
    def of(cls, n: int, logit: Ints, mean: Ints, log2_scale: Ints) -> "Mixture":
        """From parameters (N,K), colours already in the means."""
        a, _ = weights_and_log_odds()
        weight = a[np.minimum(255, logit.max(1, keepdims=True) - logit)].astype(np.float64)
        row = 6145 * np.clip(log2_scale + 56, 0, 72) + 3072
        return cls(n, weight, row, np.clip(mean, -2040, 2040))

    def cumulative(self, b: Ints) -> Ints:
        size = steps_per_level(self.n)
        place = b * size - (self.n // 2 * size + size // 2)
        table, total = logistic().ravel(), np.zeros((1, 1))
        for k in range(self.weight.shape[1]):
            t = np.clip(place - self.mean[:, k, None], -3072, 3072)
            total = total + self.weight[:, k, None] * table.take(self.row[:, k, None] + t)
        c = quotient(total, self.weight.sum(1, keepdims=True))
        return np.where(b <= 0, 0, np.where(b >= self.n, TOTAL, c))

    def take(self, rows: NDArray[np.intp]) -> "Mixture":
        return Mixture(self.n, self.weight[rows], self.row[rows], self.mean[rows])


def steps_per_level(levels: int) -> int:
    """S: steps of 2^-11 of the range in a level."""
    return 1 << (11 - (levels - 1).bit_length())


def two_levels(logit: Ints) -> Listed:
    """The table of pixels of two levels; ``logit`` (N,)."""
    _, log_odds = weights_and_log_odds()
    middle = log_odds[np.clip(logit, -255, 255) + 255]
    return Listed(np.stack([np.zeros_like(middle), middle, np.full_like(middle, TOTAL)], 1))


def categories(y: Ints) -> Listed:
    """The table of categories with weights ``y`` (N,n), in sixteenths of an octave."""
    a, _ = weights_and_log_odds()
    return proportional(a[np.minimum(255, y.max(1, keepdims=True) - y)])


def proportional(weights: Ints) -> Listed:
    """c(b) = (w_0 + ... + w_{b-1}) * T div (their sum); ``weights`` (N,n), of a sum below 2^39."""
    below = np.concatenate([np.zeros((len(weights), 1), np.int64), np.cumsum(weights, 1)], 1)
    return Listed(below * TOTAL // below[:, -1:])
