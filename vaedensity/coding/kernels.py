"""Compiled loops of the coder: the stack, and symbols straight from the tables that networks choose.

The same integers as :mod:`~vaedensity.coding.ans` with :mod:`~vaedensity.coding.codec` and
:mod:`~vaedensity.coding.escape`, one symbol after the other: a boundary is looked up only where a search needs it.
Needs numba. Names that several functions share:

- a stack: a row of ``state`` (B,) uint64, of ``words`` (B,capacity) uint32 with ``counts`` (B,) in use, and of
  ``bits`` (B,) float64, the information pushed;
- a table's place: ``size`` of its alphabet, ``w`` and ``p`` (K,), ``total``, ``steps`` and ``flat``: the mass below
  boundary x is sum_k w_k flat[p_k + x steps] // total.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int = int | np.int64
Ints = NDArray[np.int64]
Words = NDArray[np.uint32]
States = NDArray[np.uint64]
Floats = NDArray[np.float64]
Flat = NDArray[np.int32]
Function = TypeVar("Function", bound=Callable[..., Any])

PRECISION = 24
TOTAL = 1 << PRECISION
FLOOR = 2
RADIX = 16
ONE_DIGIT = 32
_MASK, _WORD, _WORD_END = np.uint64(TOTAL - 1), np.uint64(0xFFFFFFFF), np.uint64(1 << 32)
_24, _32, _40 = np.uint64(24), np.uint64(32), np.uint64(40)


def compiled(function: Function) -> Function:
    """``function`` in machine code."""
    return cast(Function, njit(cache=True, nogil=True, error_model="numpy")(function))


@compiled
def push_one(state: np.uint64, words: Words, count: Int, lower: Int, width: Int) -> tuple[np.uint64, Int]:
    """(state, count) after an interval [lower, lower + width) of 2^24."""
    f = np.uint64(width)
    if state >> _40 >= f:
        words[count] = np.uint32(state & _WORD)
        count += 1
        state = state >> _32
    quotient = state // f
    return (quotient << _24) + np.uint64(lower) + (state - quotient * f), count


@compiled
def pop_one(state: np.uint64, words: Words, count: Int, lower: Int, width: Int) -> tuple[np.uint64, Int]:
    """(state, count) before that interval was pushed; the low 24 bits of ``state`` lie in it."""
    state = (state >> _24) * np.uint64(width) + (state & _MASK) - np.uint64(lower)
    if state < _WORD_END and count > 0:
        count -= 1
        state = (state << _32) | np.uint64(words[count])
    return state, count


@compiled
def measure(product: float, bits: float, width: Int) -> tuple[float, float]:
    """Multiply ``product`` by the share ``width`` of 2^24; its logarithm goes to ``bits`` before it is too small."""
    product *= float(width) * (1.0 / TOTAL)
    if product < 1e-250:
        return 1.0, bits - np.log2(product)
    return product, bits


@compiled
def push_intervals(
    state: States, words: Words, counts: Ints, bits: Floats, lower: Ints, upper: Ints, owners: Ints
) -> None:
    """Intervals (B,n), or, where ``owners`` is not empty, (1,m) on the stacks that it numbers; the last first."""
    for b in range(lower.shape[0]):
        for i in range(lower.shape[1] - 1, -1, -1):
            stack = owners[i] if len(owners) else b
            width = upper[b, i] - lower[b, i]
            state[stack], counts[stack] = push_one(state[stack], words[stack], counts[stack], lower[b, i], width)
            bits[stack] += PRECISION - np.log2(width)


@compiled
def pop_rows(state: States, words: Words, counts: Ints, bits: Floats, rows: Ints, owners: Ints, out: Ints) -> None:
    """Symbols ``out`` (B,n) of rows of boundaries (B,n,k+1), the first first."""
    for b in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            stack = owners[i] if len(owners) else b
            q = np.int64(state[stack] & _MASK)
            low, high = 0, rows.shape[2] - 1
            while high - low > 1:
                middle = (low + high) >> 1
                if rows[b, i, middle] <= q:
                    low = middle
                else:
                    high = middle
            begin, width = rows[b, i, low], rows[b, i, low + 1] - rows[b, i, low]
            state[stack], counts[stack] = pop_one(state[stack], words[stack], counts[stack], begin, width)
            bits[stack] -= PRECISION - np.log2(width)
            out[b, i] = low


@compiled
def around(symbol: Int, size: Int) -> Int:
    """Symbol 0..2 size - 1 on the circle."""
    return symbol - size if symbol >= size else symbol


@compiled
def load(weights: Ints, bases: Ints, b: Int, i: Int, w: Ints, p: Ints) -> None:
    """Copy place [b,i] of weights and bases (B,n,K) to ``w`` and ``p`` (K,)."""
    for k in range(len(w)):
        w[k], p[k] = weights[b, i, k], bases[b, i, k]


@compiled
def below(boundary: Int, size: Int, w: Ints, p: Ints, total: Int, steps: Int, flat: Flat) -> Int:
    """C(boundary) of docs/format.md, "Symbols"."""
    if boundary <= 0:
        return np.int64(0)
    if boundary >= size:
        return np.int64(TOTAL)
    mass = np.int64(0)
    for k in range(len(w)):
        mass += w[k] * flat[p[k] + boundary * steps]
    if total != 1:
        mass = np.int64(np.uint64(mass) // np.uint64(total))
    return ((mass * (TOTAL - FLOOR * size)) >> PRECISION) + FLOOR * boundary


# One argument a line would hide the functions whose formatting is skipped from here on.
@compiled
def before(
    place: Int, origin: Int, count: Int, base: Int, mass: Int, size: Int, w: Ints, p: Ints, total: Int, steps: Int,
    flat: Flat,
) -> Int:  # fmt: skip
    """Mass of the first ``place`` of ``count`` symbols that follow ``origin`` around the circle, all of which have
    ``mass``; base = C(origin)."""
    if place >= count:
        return mass
    boundary = origin + place
    if boundary < size:
        return below(boundary, size, w, p, total, steps, flat) - base
    return below(boundary - size, size, w, p, total, steps, flat) - base + TOTAL


@compiled
def stretch(mass: Int, width: Int, d: Int, digits: Int) -> Int:
    """Boundary before digit d of so many: ``mass`` out of ``width`` stretched to 2^24, or, with 0 ``digits``, as it
    is."""
    if digits == 0:
        return mass
    return np.int64(np.uint64(mass * (TOTAL - FLOOR * digits)) // np.uint64(width)) + FLOOR * d


@compiled
def find(
    q: Int, most: Int, digits: Int, first: Int, stride: Int, begin: Int, width: Int, origin: Int, count: Int,
    base: Int, mass: Int, size: Int, w: Ints, p: Ints, total: Int, steps: Int, flat: Flat,
) -> tuple[Int, Int, Int]:  # fmt: skip
    """(d, lower, upper) of the one of ``most`` digits whose interval holds q: d begins at place first + stride * d,
    mass counts from ``begin``, all of it is ``width``; see :func:`stretch`. The last ends at 2^24."""
    low, high = np.int64(0), np.int64(most)
    lower: Int = np.int64(0)
    upper: Int = np.int64(TOTAL)
    while high - low > 1:
        middle = (low + high) >> 1
        c = before(first + stride * middle, origin, count, base, mass, size, w, p, total, steps, flat)
        c = stretch(c - begin, width, middle, digits)
        if c <= q:
            low, lower = middle, c
        else:
            high, upper = middle, c
    return low, lower, upper


@compiled
def others_of(
    first: Int, length: Int, size: Int, w: Ints, p: Ints, total: Int, steps: Int, flat: Flat
) -> tuple[Int, Int, Int, Int]:
    """(origin, count, base, mass) of the symbols that follow the run of ``length`` from ``first`` on around the
    circle; the whole alphabet where length is 0."""
    if length == 0:
        return np.int64(0), np.int64(size), np.int64(0), np.int64(TOTAL)
    start = below(first, size, w, p, total, steps, flat)
    run = before(np.int64(length), first, size, start, np.int64(TOTAL), size, w, p, total, steps, flat)
    origin = around(first + length, size)
    return origin, np.int64(size - length), below(origin, size, w, p, total, steps, flat), TOTAL - run


@compiled
def pop_symbols(
    state: States, words: Words, counts: Ints, bits: Floats, weights: Ints, bases: Ints, totals: Ints, steps: Int,
    flat: Flat, size: Int, first: Ints, length: Int, out: Ints,
) -> bool:  # fmt: skip
    """Symbols ``out`` (B,n) under tables of weights and bases (B,n,K) and totals (B,n): the mass below boundary x of
    place [b,i] is sum_k weights[b,i,k] flat[bases[b,i,k] + x steps] // totals[b,i]. ``first`` (B,n) and ``length``:
    the run that comes first; without one (length 0), two digits, or one where size is at most 32.

    Returns whether all of them lie in the alphabet."""
    sound, n = True, out.shape[1]
    coarse, begin, width = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    origins, marks = np.zeros(n, np.int64), np.zeros(n, np.int64)
    masses = np.full(n, TOTAL, np.int64)
    w, p = np.empty(weights.shape[2], np.int64), np.empty(weights.shape[2], np.int64)
    zero, full, count = np.int64(0), np.int64(TOTAL), np.int64(size - length)
    digits = -(-count // RADIX)
    stretched = digits if length else zero
    for b in range(out.shape[0]):
        s, c, share, popped = state[b], counts[b], 1.0, 0.0
        row_words = words[b]
        if length or size <= ONE_DIGIT:
            for i in range(n):
                load(weights, bases, b, i, w, p)
                total, q = totals[b, i], np.int64(s & _MASK)
                a = first[b, i] if length else zero
                start = below(a, size, w, p, total, steps, flat)
                most = length + 1 if length else size
                t, lower, upper = find(
                    q, most, zero, zero, 1, zero, full, a, size, start, full, size, w, p, total, steps, flat
                )
                s, c = pop_one(s, row_words, c, lower, upper - lower)
                share, popped = measure(share, popped, upper - lower)
                if length and t == length:
                    origins[i] = around(a + length, size)
                    marks[i] = below(origins[i], size, w, p, total, steps, flat)
                    masses[i] = TOTAL - lower
                    out[b, i] = -1
                else:
                    out[b, i] = around(a + t, size)
        else:
            out[b] = -1
        for i in range(n):
            if out[b, i] < 0:
                load(weights, bases, b, i, w, p)
                total, q, o, base, mass = totals[b, i], np.int64(s & _MASK), origins[i], marks[i], masses[i]
                d, lower, upper = find(
                    q, digits, stretched, zero, RADIX, zero, mass, o, count, base, mass, size, w, p, total, steps, flat
                )
                coarse[i] = d
                begin[i] = before(RADIX * d, o, count, base, mass, size, w, p, total, steps, flat)
                end = before(RADIX * d + RADIX, o, count, base, mass, size, w, p, total, steps, flat)
                width[i] = end - begin[i]
                s, c = pop_one(s, row_words, c, lower, upper - lower)
                share, popped = measure(share, popped, upper - lower)
        for i in range(n):
            if out[b, i] < 0:
                load(weights, bases, b, i, w, p)
                total, q, o, base, mass = totals[b, i], np.int64(s & _MASK), origins[i], marks[i], masses[i]
                at = RADIX * coarse[i]
                e, lower, upper = find(
                    q, RADIX, RADIX, at, 1, begin[i], width[i], o, count, base, mass, size, w, p, total, steps, flat
                )
                s, c = pop_one(s, row_words, c, lower, upper - lower)
                share, popped = measure(share, popped, upper - lower)
                sound = sound and at + e < count
                out[b, i] = around(o + min(at + e, count - 1), size)
        state[b], counts[b], bits[b] = s, c, bits[b] - popped + np.log2(share)
    return sound


@compiled
def push_symbols(
    state: States, words: Words, counts: Ints, bits: Floats, weights: Ints, bases: Ints, totals: Ints, steps: Int,
    flat: Flat, size: Int, first: Ints, length: Int, symbols: Ints,
) -> None:  # fmt: skip
    """Undoes :func:`pop_symbols`."""
    n = symbols.shape[1]
    w, p = np.empty(weights.shape[2], np.int64), np.empty(weights.shape[2], np.int64)
    coarse_low, coarse_width = np.empty(n, np.int64), np.empty(n, np.int64)
    zero, full = np.int64(0), np.int64(TOTAL)
    stretched = -(-(size - length) // RADIX) if length else zero
    for b in range(symbols.shape[0]):
        s, c, share, pushed = state[b], counts[b], 1.0, 0.0
        row_words = words[b]
        if length or size > ONE_DIGIT:
            for i in range(n - 1, -1, -1):
                a = first[b, i] if length else zero
                if length and around(symbols[b, i] - a + size, size) < length:
                    continue
                load(weights, bases, b, i, w, p)
                total = totals[b, i]
                o, count, base, mass = others_of(a, length, size, w, p, total, steps, flat)
                place = around(symbols[b, i] - o + size, size)
                d, e = place // RADIX, place % RADIX
                begin = before(RADIX * d, o, count, base, mass, size, w, p, total, steps, flat)
                end = before(RADIX * d + RADIX, o, count, base, mass, size, w, p, total, steps, flat)
                left = before(place, o, count, base, mass, size, w, p, total, steps, flat)
                right = before(place + 1, o, count, base, mass, size, w, p, total, steps, flat)
                lower = stretch(left - begin, end - begin, e, RADIX)
                # Places of the last digit beyond the alphabet have the floor; none follows the last digit.
                upper = full if e == RADIX - 1 else stretch(right - begin, end - begin, e + 1, RADIX)
                s, c = push_one(s, row_words, c, lower, upper - lower)
                share, pushed = measure(share, pushed, upper - lower)
                coarse_low[i] = stretch(begin, mass, d, stretched)
                coarse_width[i] = stretch(end, mass, d + 1, stretched) - coarse_low[i]
            for i in range(n - 1, -1, -1):
                if length and around(symbols[b, i] - first[b, i] + size, size) < length:
                    continue
                s, c = push_one(s, row_words, c, coarse_low[i], coarse_width[i])
                share, pushed = measure(share, pushed, coarse_width[i])
        if length or size <= ONE_DIGIT:
            for i in range(n - 1, -1, -1):
                load(weights, bases, b, i, w, p)
                total = totals[b, i]
                a = first[b, i] if length else zero
                start = below(a, size, w, p, total, steps, flat)
                t = around(symbols[b, i] - a + size, size)
                other = length > 0 and t >= length
                t = np.int64(length) if other else t
                lower = before(t, a, size, start, full, size, w, p, total, steps, flat)
                upper = full if other else before(t + 1, a, size, start, full, size, w, p, total, steps, flat)
                s, c = push_one(s, row_words, c, lower, upper - lower)
                share, pushed = measure(share, pushed, upper - lower)
        state[b], counts[b], bits[b] = s, c, bits[b] + pushed - np.log2(share)
