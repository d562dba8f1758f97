"""Cumulative tables of the distributions that networks choose from, derived in integers alone.

A table is int32 and counts in units of 2^-24, the precision of the entropy coder. Row s is one scale; scales climb in
eighths of an octave. Tables are never stored: they follow from this file and from ``integer_math``, and a test pins
their digests.
"""

from functools import lru_cache
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.coding.integer_math import BITS, ONE, exp_negative, power_of_two

PRECISION = 24  # bits of the coder's probabilities
TOTAL = 1 << PRECISION
FLOOR = 2  # least frequency of any symbol
RADIX = 16  # of the digits in which large alphabets are coded
ONE_DIGIT = 32  # alphabets up to this size are coded in one step
COUNT = RADIX + 1  # boundaries of a row of RADIX symbols

GAUSSIAN_SCALES = 41  # sigma = 4 * 2^(s/8) steps, a step being a quarter of the latents' lattice
GAUSSIAN_REACH = 1024  # steps on either side of the mean
LOGISTIC_SCALES = 73  # scale = 2^(s/8) steps, a step being 2^-11 of the pixels' range
LOGISTIC_REACH = 3072
WEIGHT_STEPS = 256  # mixture weights 2^(-j/16)


def _as_table(rows: list[list[int]]) -> NDArray[np.int32]:
    table = np.array(rows, dtype=np.int32)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=1)
def gaussian_table() -> NDArray[np.int32]:
    """Normal cumulative distribution, (GAUSSIAN_SCALES, 2 * GAUSSIAN_REACH + 1).

    Entry [s, t + GAUSSIAN_REACH] is P(u < t) for u ~ N(0, sigma_s), t in steps: sums of the density
    at the middles of unit cells (error below 0.3 % of one cell at the smallest sigma), found by the
    recurrence g(u+1) = g(u) r(u), r(u+1) = r(u) q with q = exp(-1/sigma^2).
    """
    rows = []
    for s in range(GAUSSIAN_SCALES):
        variance_inverse = power_of_two(-2 * s) // 16
        q = exp_negative(variance_inverse)
        ratio = exp_negative(variance_inverse)  # g(3/2) / g(1/2) = exp(-1/sigma^2)
        density = exp_negative(variance_inverse // 8)  # g(1/2) = exp(-1/(8 sigma^2))
        half = [0]
        for _ in range(GAUSSIAN_REACH):
            half.append(half[-1] + density)
            density = density * ratio >> BITS
            ratio = ratio * q >> BITS
        mass = 2 * half[-1]
        above = [(half[-1] + h) * TOTAL // mass for h in half]
        rows.append([TOTAL - a for a in reversed(above[1:])] + above)
    return _as_table(rows)


@lru_cache(maxsize=1)
def logistic_table() -> NDArray[np.int32]:
    """Logistic cumulative distribution 1 / (1 + exp(-t / scale)), (LOGISTIC_SCALES, 2 * LOGISTIC_REACH + 1)."""
    rows = []
    for s in range(LOGISTIC_SCALES):
        q = exp_negative(power_of_two(-s))
        power, above = ONE, []
        for _ in range(LOGISTIC_REACH + 1):
            above.append((TOTAL * ONE) // (ONE + power))
            power = power * q >> BITS
        rows.append([TOTAL - a for a in reversed(above[1:])] + above)
    return _as_table(rows)


@lru_cache(maxsize=1)
def weight_table() -> NDArray[np.int32]:
    """2^16 * 2^(-j/16) for j = 0..WEIGHT_STEPS-1, at least 1."""
    root = isqrt(power_of_two(-1) << BITS)  # 2^(-1/16)
    value, row = ONE, []
    for _ in range(WEIGHT_STEPS):
        row.append(max(1, value >> (BITS - 16)))
        value = value * root >> BITS
    return _as_table([row])


@lru_cache(maxsize=1)
def log_odds_table() -> NDArray[np.int32]:
    """1 / (1 + 2^(j/16)) in 2^-24 for j = -(WEIGHT_STEPS-1)..WEIGHT_STEPS-1: P(0) given log2 odds j/16 of 1."""
    weights = [ONE]
    root = isqrt(power_of_two(-1) << BITS)
    for _ in range(WEIGHT_STEPS - 1):
        weights.append(weights[-1] * root >> BITS)
    below = [TOTAL * w // (ONE + w) for w in weights]  # j >= 0
    return _as_table([[TOTAL - b for b in reversed(below[1:])] + below])


_SHAPES = {"gaussian": gaussian_table, "logistic": logistic_table, "weight": weight_table, "log odds": log_odds_table}


@lru_cache(maxsize=len(_SHAPES))
def flat(kind: str) -> Tensor:
    """A table's entries one row after the other, int32."""
    return torch.from_numpy(_SHAPES[kind]().ravel().copy())


@lru_cache(maxsize=8)
def windows(kind: str, stride: int, count: int = COUNT) -> Tensor:
    """Equally spaced entries of a flat table in one lookup: (entries, count) float64, which holds them exactly.

    Row i has the entries i, i + stride, ..., i + (count - 1) stride; places past the end repeat the last entry. A
    decoder needs a symbol's whole row of boundaries: here it is one contiguous read, and a mixture's a weighted sum.
    """
    entries = flat(kind).double()
    padded = torch.cat([entries, entries[-1:].expand(stride * (count - 1))])
    return torch.stack([padded[j * stride : j * stride + len(entries)] for j in range(count)], 1)
