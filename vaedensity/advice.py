"""How numbers of other types can become uint8, with what is lost: for messages that reject them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def advice(array: NDArray[Any]) -> str:
    """How to make numbers that are not uint8 so, and what is lost that way. ``array`` has at least one value.

    >>> advice(np.array([0, 7, 200]))
    'x.astype(np.uint8) keeps every value'
    """
    kept = "compress keeps the array as it is"
    if array.dtype.kind not in "iuf":
        return kept
    low, high, whole, nan, infinite = _survey(array)
    if nan or infinite:
        return f"{nan} values are NaN and {infinite} infinite, which no pixel can be: decide what they shall be; {kept}"
    held = f"8 bits hold 256 values, found {low}..{high}"
    most = 1 << (53 if array.dtype.kind == "f" else 64)  # beyond it numbers are not told apart
    if whole and -most <= low and high < most and high - low < (most if array.dtype.kind == "u" else most >> 1):
        low, high = int(low), int(high)
        if low >= 0 and high <= 255:
            return "x.astype(np.uint8) keeps every value"
        if not low:
            moved = "x"
        elif array.dtype.itemsize == 8 and array.dtype.kind != "f":
            moved = "(x - x.min())"  # which no wider type has to hold
        else:
            moved = f"(x.astype(np.int64) {'-' if low > 0 else '+'} {abs(low)})"
        if high - low <= 255:
            return f"{held}; {moved}.astype(np.uint8) keeps the differences"
        step = -(-(high - low + 1) // 256)
        return f"{held}; ({moved} // {step}).astype(np.uint8) makes {step} values one; {kept}"
    if high == low:
        return f"all values are {low}; {kept}"
    if low >= 0 and 0.5 < high <= 1:
        return f"np.rint(x * 255).astype(np.uint8) rounds values in 0..1 to 256 levels; {kept}"
    scaled = f"np.rint((x.astype(np.float64) - {low!r}) / {high - low!r} * 255).astype(np.uint8)"
    return f"{held}; {scaled} rounds to 256 levels; {kept}"


def _survey(array: NDArray[Any]) -> tuple[float, float, bool, int, int]:
    """(lowest, highest, whether all are whole, count of NaN, count of infinite) of numbers, read part by part."""
    rows = array if array.ndim else np.reshape(array, 1)
    low, high, whole, nan, infinite = np.inf, -np.inf, True, 0, 0
    at_once = max(1, (1 << 22) * len(rows) // array.size)
    for begin in range(0, len(rows), at_once):
        part = np.asarray(rows[begin : begin + at_once])
        if part.dtype.kind == "f":
            nan += int(np.isnan(part).sum())
            infinite += int(np.isinf(part).sum())
            whole = whole and bool((np.rint(part) == part).all())
        low, high = min(low, part.min().item()), max(high, part.max().item())
    return low, high, whole, nan, infinite
