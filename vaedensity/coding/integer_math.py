"""Exponentials, logarithms, powers and roots in integer arithmetic: the same digits on every machine.

Tables are made from fixed-point numbers with BITS fractional bits, which are Python's unlimited integers.
"""

from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
BITS = 96
ONE = 1 << BITS
LOG_BITS = 20  # logarithms count in 2^-20 of a bit
_CELLS = 12  # tables have 2^12 cells an octave


def exp_negative(y: int) -> int:
    """e^-y for fixed-point y >= 0: Taylor series after halving the argument below 2^-8.

    Examples
    --------
    >>> round(exp_negative(ONE) / ONE, 6)
    0.367879
    """
    halvings = max(0, y.bit_length() - BITS + 8)
    y >>= halvings
    total = term = ONE
    for n in range(1, 24):
        term = term * y // (n * ONE)
        total += -term if n % 2 else term
    for _ in range(halvings):
        total = total * total >> BITS
    return total


def power_of_two(eighths: int) -> int:
    """2^(eighths/8) in fixed point, for any integer ``eighths``.

    Examples
    --------
    >>> power_of_two(16) // ONE
    4
    """
    octaves, rest = divmod(eighths, 8)
    root = ONE << 1
    for _ in range(3):  # square roots: 2^(1/2), 2^(1/4), 2^(1/8)
        root = isqrt(root << BITS)
    value = ONE
    for _ in range(rest):
        value = value * root >> BITS
    return value << octaves if octaves >= 0 else value >> -octaves


@lru_cache(maxsize=1)
def _log_table() -> Ints:
    """2^20 log2(1 + i / 4096) for i = 0..4096, rounded down: digits by repeated squaring."""
    out = []
    for i in range(2**_CELLS):
        x, digits = ONE + (i << BITS - _CELLS), 0
        for _ in range(LOG_BITS):
            x = x * x >> BITS
            carry = x >> BITS + 1
            digits = 2 * digits + carry
            x >>= carry
        out.append(digits)
    return np.array([*out, 1 << LOG_BITS], np.int64)


@lru_cache(maxsize=1)
def _power_table() -> Ints:
    """2^30 * 2^(-i / 4096) for i = 0..4095, rounded down."""
    root = ONE << 1
    for _ in range(_CELLS):
        root = isqrt(root << BITS)
    out, value = [], ONE
    for _ in range(2**_CELLS):
        out.append(value >> BITS - 30)
        value = (value << BITS) // root
    return np.array(out, np.int64)


def fixed_log2(values: Ints) -> Ints:
    """log2 of whole numbers 1..2^24 in units of 2^-20: a table and a chord, within 2^-18 of the truth.

    Examples
    --------
    >>> (fixed_log2(np.array([1, 8, 1 << 24])) >> LOG_BITS).tolist()
    [0, 3, 24]
    """
    exponent = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1  # float64 holds them exactly
    mantissa = (values << (24 - exponent)) - (1 << 24)
    cell, rest = mantissa >> 12, mantissa & 4095
    table = _log_table()
    logarithms: Ints = (exponent << LOG_BITS) + table[cell] + ((table[cell + 1] - table[cell]) * rest >> 12)
    return logarithms


def fixed_power(deficits: Ints) -> Ints:
    """2^30 * 2^-d for d >= 0 in units of 2^-20, rounded down to a multiple of 2^-12 of a bit; 0 below 2^-30."""
    octaves = np.minimum(deficits >> LOG_BITS, 40)
    powers: Ints = _power_table()[deficits >> LOG_BITS - _CELLS & 4095] >> octaves
    return powers
