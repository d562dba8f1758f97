"""Integer tables (docs/format.md, "Tables"), each checked against the SHA-256 that the document gives of it.

Python integers with 96 fractional bits; every product of two is followed by ``>> 96``.
"""

import hashlib
from functools import cache
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
TOTAL = 1 << 24
ONE = 1 << 96
SHA256 = {
    "gaussian": "7f3a1a93296a25a6ecdfc1c404a91f0202774070c5b49f9c55ca60ac27564617",
    "logistic": "abff3fcd8466605505a8eef5b44ef1d6a61141dbe851c13dad9c0113c5a05dfe",
    "weights": "41373be69cd9221692bdb6a8869b48238477da1e658ec99ab0594813a3672dc5",
    "log_odds": "8ea25119ca6402fd55b8e2c20844d7d059f67baafda7bfe7d85d79696501f712",
    "log2": "7ba74dab377d0bfb0cb5be041b6b313e3fb2cb82d4004dfc4a6aa8eb650fdf57",
    "power": "76f5430975c72c4b2c04336f197fa7ee6f11e40279e44aec095584699de5f2c0",
}


def pow2(e: int) -> int:
    """2^(e/8) in units of 2^-96."""
    r, v = 2 * ONE, ONE
    for _ in range(3):
        r = isqrt(r * ONE)
    for _ in range(e % 8):
        v = v * r >> 96
    o = e // 8
    return v << o if o >= 0 else v >> -o


def expneg(y: int) -> int:
    """e^-y, both in units of 2^-96, y >= 0."""
    k = max(0, y.bit_length() - 88)
    y >>= k
    total = term = ONE
    for n in range(1, 24):
        term = term * y // (n * ONE)
        total += -term if n % 2 else term
    for _ in range(k):
        total = total * total >> 96
    return total


def _checked(name: str, rows: Any) -> Ints:
    table = np.array(rows, "<i4")
    if hashlib.sha256(table.tobytes()).hexdigest() != SHA256[name]:
        raise RuntimeError(f"the table {name} is not the format's: this machine's arithmetic is not exact")
    return table.astype(np.int64)


@cache
def gaussian() -> Ints:
    """G (41,2049): of the standard deviation 4 * 2^(s/8) steps, what lies below step t - 1024."""
    rows = []
    for s in range(41):
        v = pow2(-2 * s) >> 4
        ratio, d, half = expneg(v), expneg(v >> 3), [0]
        q = ratio
        for _ in range(1024):
            half.append(half[-1] + d)
            d, ratio = d * ratio >> 96, ratio * q >> 96
        m = half[-1]
        upper = [(m + h) * TOTAL // (2 * m) for h in half]
        rows.append([TOTAL - g for g in upper[:0:-1]] + upper)
    return _checked("gaussian", rows)


@cache
def logistic() -> Ints:
    """L (73,6145): of the scale 2^(s/8) steps, what lies below step t - 3072."""
    rows = []
    for s in range(73):
        q, p, upper = expneg(pow2(-s)), ONE, []
        for _ in range(3073):
            upper.append(TOTAL * ONE // (ONE + p))
            p = p * q >> 96
        rows.append([TOTAL - g for g in upper[:0:-1]] + upper)
    return _checked("logistic", rows)


@cache
def weights_and_log_odds() -> tuple[Ints, Ints]:
    """A (256,), near 2^16 * 2^(-j/16), and Q (511,), the log-odds j - 255."""
    root, v, a, upper = isqrt(pow2(-1) * ONE), ONE, [], []
    for _ in range(256):
        a.append(max(1, v >> 80))
        upper.append(TOTAL * v // (ONE + v))
        v = v * root >> 96
    return _checked("weights", a), _checked("log_odds", [TOTAL - g for g in upper[:0:-1]] + upper)


@cache
def log2_and_power() -> tuple[Ints, Ints]:
    """A2 (4097,) and B2 (4096,) of lg and p."""
    digits = []
    for i in range(4096):
        x, bits = ONE + (i << 84), 0
        for _ in range(20):
            x = x * x >> 96
            bits *= 2
            if x >= 2 * ONE:
                bits, x = bits + 1, x >> 1
        digits.append(bits)
    root = 2 * ONE
    for _ in range(12):
        root = isqrt(root * ONE)
    v, powers = ONE, []
    for _ in range(4096):
        powers.append(v >> 66)
        v = (v << 96) // root
    return _checked("log2", [*digits, 1 << 20]), _checked("power", powers)


def lg(f: Ints) -> Ints:
    """2^20 * log2 of whole numbers 1..T, as chords."""
    table, _ = log2_and_power()
    e = np.frexp(f.astype(np.float64))[1].astype(np.int64) - 1  # of the binary digits of f, less one
    rest = (f << (24 - e)) - TOTAL
    q, r = rest >> 12, rest & 4095
    out: Ints = (e << 20) + table[q] + ((table[q + 1] - table[q]) * r >> 12)
    return out


def power(d: Ints) -> Ints:
    """p(d) = 2^30 * 2^(-d / 2^20) of whole numbers d >= 0."""
    _, table = log2_and_power()
    out: Ints = table[(d >> 8) & 4095] >> np.minimum(d >> 20, 40)
    return out


# Noises of the posteriors of series.


def _lb(v: int) -> int:
    """-log2 of v in units of 2^-96, 0 < v <= ONE, in units of 2^-20."""
    s = max(0, v.bit_length() - 24)
    return ((96 - s) << 20) - int(lg(np.array([v >> s]))[0])


def _legendre(n: int, x: int) -> tuple[int, int]:
    """(P_n(x), P_{n-1}(x))."""
    p, before = ONE, 0
    for m in range(n):
        p, before = ((2 * m + 1) * (x * p >> 96) - m * before) // (m + 1), p
    return p, before


@cache
def _nodes(n: int) -> list[tuple[int, int]]:
    """Gauss-Legendre nodes and weights of order n on 0..ONE."""
    roots: list[int] = []
    for m in range(1, n + 1):
        ends, found = [-ONE, *roots, ONE], []
        for i in range(m):
            low, high = ends[i], ends[i + 1]
            while high - low > 1:
                middle = (low + high) >> 1
                if (_legendre(m, middle)[0] > 0) == ((m - i) % 2 == 1):
                    high = middle
                else:
                    low = middle
            found.append(low)
        roots = found
    out = []
    for x in roots:
        d = n * _legendre(n, x)[1]
        out.append(((x + ONE) >> 1, (ONE * ONE - x * x) * ONE // (d * d)))
    return out


@cache
def noise(name: str) -> tuple[Ints, Ints]:
    """F and D, both (nodes,512), of the noise ``exponential``, ``normal`` or ``uniform``."""
    ln2 = sum(ONE // (m << m) for m in range(1, 96))
    f: list[list[int]] = []
    d: list[list[int]] = []
    if name == "exponential":
        r, v = isqrt(pow2(-1) * ONE), [ONE]
        for _ in range(511):
            v.append(v[-1] * r >> 96)
        for s, w in _nodes(16):
            f.append([_lb(ONE - (s * v[g] >> 96)) for g in range(512)])
            d.append([_lb(w) + (g << 16) for g in range(512)])
    elif name == "normal":
        h = ln2 // 128
        c = h * h >> 96
        q = ratio = expneg(c)
        density, each = expneg(c >> 3), []
        for _ in range(2048):
            each.append(density)
            density, ratio = density * ratio >> 96, ratio * q >> 96
        tails = [0]
        for one in reversed(each):
            tails.append(tails[-1] + one)
        tails.reverse()

        def tail(j: int) -> int:
            return tails[8 * min(j, 256)] * ONE // (2 * tails[0])

        below = {x: _lb(tail(-x)) if x < 0 else _lb(ONE - tail(x)) for x in range(-144, 12 * 24 - 144 + 512)}
        for t in range(25):
            xs = [12 * t - 144 + g for g in range(512)]
            f.append([below[x] for x in xs])
            d.append([x * x * ln2 >> 85 for x in xs])
    else:
        a = ln2 // 16
        for e in range(-(-ONE // a)):
            size = min(a, ONE - e * a)
            for s, w in _nodes(2):
                r = e * a + (s * size >> 96)
                f.append([_lb(ONE - max(0, r - g * a)) for g in range(512)])
                d.append([_lb(w * size >> 96) if g <= e else 64 << 20 for g in range(512)])
    return np.array(f, np.int64), np.array(d, np.int64)
