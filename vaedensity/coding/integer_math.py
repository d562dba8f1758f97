"""exp, powers of two and roots in integer arithmetic: the same digits on every machine.

Fixed point with BITS fractional bits on Python integers. Nothing here touches a float.
"""

from math import isqrt

BITS = 96
ONE = 1 << BITS


def exp_negative(y: int) -> int:
    """e^-y for fixed-point y >= 0: Taylor series after halving the argument below 2^-8."""
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
    """2^(eighths/8) in fixed point, for any integer ``eighths``."""
    octaves, rest = divmod(eighths, 8)
    root = ONE << 1
    for _ in range(3):  # square roots: 2^(1/2), 2^(1/4), 2^(1/8)
        root = isqrt(root << BITS)
    value = ONE
    for _ in range(rest):
        value = value * root >> BITS
    return value << octaves if octaves >= 0 else value >> -octaves
