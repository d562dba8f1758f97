"""Probability tables of which noisy number is the largest: the integer twins of ``model/argmax.py``.

With g_i = max mu - mu_i and y counted from the largest mu,

    p_i = integral f(y + g_i) prod_{j != i} F(y + g_j) dy,

whose nodes y_t serve every i. mu moves in sixteenths of an octave (ln 2 / 16), so that a rule needs -log2 F and
-log2 f at each node and each whole g alone: two tables, derived in integers, never stored.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from math import isqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from vaedensity.coding.codec import Table
from vaedensity.coding.integer_math import (
    BITS,
    LOG_BITS,
    ONE,
    Ints,
    exp_negative,
    fixed_log2,
    fixed_power,
    power_of_two,
)
from vaedensity.coding.pixel_table import CategoricalTable
from vaedensity.coding.tables import ONE_DIGIT, PRECISION
from vaedensity.errors import UsageError

GAPS = 512  # sixteenths of an octave; larger g count as the last, whose p lies below 2^-30 for every noise
NEVER = 64 << LOG_BITS  # -log2 of nothing: fixed_power makes it 0
EXPONENTIAL_NODES = 16  # exact for the polynomials of up to 32 symbols
UNIFORM_NODES = 2  # in each sixteenth of an octave
NORMAL_STEP, NORMAL_NODES = 12, 12  # 25 nodes 0.52 apart to 6.2 on either side
NORMAL_CELLS, NORMAL_REACH = 8, 256  # of each sixteenth; sixteenths, where the density is 2^-89


class Rule(NamedTuple):
    """A noise's quadrature: int64 (nodes,GAPS) each, in units of 2^-20 bit, at node t for g = 0..GAPS-1."""

    below: Ints  # -log2 F(y_t + g)
    density: Ints  # -log2 of f(y_t + g) times the node's weight; 2^-density adds up to less than 8 over t


def _ln2() -> int:
    """Sum of 2^-n / n, in fixed point."""
    return sum(ONE // (n << n) for n in range(1, BITS))


def _bits(values: list[int]) -> Ints:
    """-log2 of fixed-point numbers in (0, 1], from their first 24 bits: int64 in units of 2^-20 bit, off by 2^-18."""
    shifts = [max(0, v.bit_length() - 24) for v in values]
    leading = fixed_log2(np.array([v >> s for v, s in zip(values, shifts)], np.int64))
    return (BITS - np.array(shifts, np.int64) << LOG_BITS) - leading


def _legendre(n: int, x: int) -> tuple[int, int]:
    """Legendre polynomials P_n and P_{n-1} at fixed-point x, by Bonnet's recurrence."""
    before, here = 0, ONE
    for m in range(n):
        before, here = here, ((2 * m + 1) * (x * here >> BITS) - m * before) // (m + 1)
    return here, before


def _gauss_legendre(n: int) -> list[tuple[int, int]]:
    """Nodes, rising, and weights on [0, 1] in fixed point, exact for polynomials of degree 2 n - 1.

    Between neighbours among -1, the roots of P_{m-1} and 1 lies one root of P_m; weights by Abramowitz and Stegun
    25.4.29."""
    roots: list[int] = []
    for m in range(1, n + 1):
        ends, roots = [-ONE, *roots, ONE], []
        for index, (low, high) in enumerate(pairwise(ends)):
            rising = (m - index) % 2 == 1  # towards P_m(1) = 1
            while high - low > 1:
                middle = low + high >> 1
                low, high = (low, middle) if (_legendre(m, middle)[0] > 0) == rising else (middle, high)
            roots.append(low)
    slopes = [n * _legendre(n, x)[1] for x in roots]
    return [(x + ONE >> 1, (ONE * ONE - x * x) * ONE // (slope * slope)) for x, slope in zip(roots, slopes)]


def _exponential() -> Rule:
    """With s = e^-y: F(y + g) = 1 - 2^(-g/16) s, and f dy = 2^(-g/16) ds over [0, 1]."""
    root, power, powers = isqrt(power_of_two(-1) << BITS), ONE, []  # 2^(-1/16)
    for _ in range(GAPS):
        powers.append(power)
        power = power * root >> BITS
    nodes = _gauss_legendre(EXPONENTIAL_NODES)
    below = [_bits([ONE - (s * power >> BITS) for power in powers]) for s, _ in nodes]
    gaps = np.arange(GAPS, dtype=np.int64) << LOG_BITS - 4
    return Rule(np.stack(below), _bits([weight for _, weight in nodes])[:, None] + gaps)


def _normal() -> Rule:
    """The trapezoid rule (see the float twin), its nodes whole sixteenths apart: one row of F and one of f, shifted.

    F adds up the density at the middles of cells, from the tail inwards, by :func:`gaussian_table`'s recurrence;
    f is e^(-y^2/2), its constant left out.
    """
    ln2, last = _ln2(), NORMAL_STEP * NORMAL_NODES
    step = ln2 // (16 * NORMAL_CELLS)
    squared = step * step >> BITS
    q = ratio = exp_negative(squared)
    density, densities = exp_negative(squared // 8), []
    for _ in range(NORMAL_CELLS * NORMAL_REACH):
        densities.append(density)
        density = density * ratio >> BITS
        ratio = ratio * q >> BITS
    tail, tails = 0, [0]
    for density in reversed(densities):
        tail += density
        tails.append(tail)
    beyond = [tails[-1 - NORMAL_CELLS * min(j, NORMAL_REACH)] * ONE // (2 * tail) for j in range(last + GAPS)]
    places = [-last + j for j in range(2 * last + GAPS)]  # y + g in sixteenths
    below = _bits([beyond[-x] if x < 0 else ONE - beyond[x] for x in places])
    squares = np.array([x * x * ln2 >> BITS + 9 - LOG_BITS for x in places], np.int64)  # (x ln2/16)^2 / (2 ln 2) bits
    windows = [slice(start, start + GAPS) for start in range(0, 2 * last + 1, NORMAL_STEP)]
    return Rule(np.stack([below[w] for w in windows]), np.stack([squares[w] for w in windows]))


def _uniform() -> Rule:
    """With r = 1/2 - y from 0 to 1: F(y + g) = 1 - max(0, r - g), and f = 1 where r > g, else 0.

    Both bend where r is a whole number of sixteenths: each sixteenth, and what is left below 1, has nodes of its own.
    """
    sixteenth, below, density = _ln2() // 16, [], []
    for cell in range(-(-ONE // sixteenth)):
        start, width = cell * sixteenth, min(sixteenth, ONE - cell * sixteenth)
        for place, weight in _gauss_legendre(UNIFORM_NODES):
            r = start + (place * width >> BITS)
            below.append(_bits([ONE - max(0, r - g * sixteenth) for g in range(GAPS)]))
            density.append(np.where(np.arange(GAPS) <= cell, _bits([weight * width >> BITS]), NEVER))
    return Rule(np.stack(below), np.stack(density))


_RULES: dict[str, Callable[[], Rule]] = {"exponential": _exponential, "normal": _normal, "uniform": _uniform}
NOISES = ("gumbel", *_RULES)  # what argmax_table knows


@lru_cache(maxsize=3)
def rule(noise: str) -> Rule:
    """The quadrature of one of "exponential", "normal", "uniform"; the same digits on every machine."""
    if noise not in _RULES:
        raise UsageError(f"found noise {noise!r}; expected one of {', '.join(_RULES)}")
    found = _RULES[noise]()
    for table in found:
        table.setflags(write=False)
    return found


class ArgmaxTable(CategoricalTable):
    """P[argmax_j (mu_j + eps_j) = i] over i = 0..k-1, k from 2 to 32, for n variables of B stacks.

    ``parameters`` (B,k,n): mu in sixteenths of an octave, whole numbers within 2^20 of 0, of any dtype that holds them.
    KL divergence from the exact p to what is coded: at most 3.7e-6 nats over k up to 32 and normal mu of standard
    deviation 0 to 8 (tests/coding/test_argmax_table.py), nearly all of it the least frequency that every symbol gets.
    Time: nodes (exponential 16, normal 25, uniform 48) * B * n * k; memory: B * n * k.
    """

    def __init__(self, parameters: Tensor, noise: str):
        self.size, self.count = parameters.shape[1:]
        if not 2 <= self.size <= ONE_DIGIT:
            raise UsageError(f"found {self.size} symbols; expected 2 to {ONE_DIGIT}")
        mu = parameters.transpose(1, 2).long()
        gaps = (mu.amax(2, keepdim=True) - mu).clamp(max=GAPS - 1).numpy()  # (B,n,k)
        mass = np.zeros(gaps.shape, np.int64)
        for below_row, density_row in zip(*rule(noise)):
            below = below_row[gaps]
            mass += fixed_power(below.sum(2, keepdims=True) - below + density_row[gaps])
        # Each mass lies below 8 * 2^30 and 32 of them times 2^24 below 2^62: quotients of int64 are exact.
        cumulative = pad(torch.from_numpy(mass.cumsum(2) << PRECISION), (1, 0))
        self.below = torch.div(cumulative, torch.from_numpy(mass.sum(2, keepdims=True)), rounding_mode="floor").double()


def argmax_table(parameters: Tensor, noise: str) -> Table:
    """The table of which noisy number is the largest.

    Parameters
    ----------
    parameters : torch.Tensor
        (B,k,n): mu in sixteenths of an octave, whole numbers.
    noise : str
        One of NOISES. Gumbel noise makes a softmax, and so a :class:`CategoricalTable` of any k.

    Raises
    ------
    UsageError
        Another noise, or k beyond 2 to 32 for noises but Gumbel's.

    Examples
    --------
    >>> table = argmax_table(torch.zeros(1, 4, 1), "normal")
    >>> (table.cumulative(torch.arange(5)) / 2**24).flatten().tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return CategoricalTable(parameters) if noise == "gumbel" else ArgmaxTable(parameters, noise)
