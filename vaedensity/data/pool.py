"""The bytes of several arrays, one after the other, read in pieces."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 22

Ranges = Sequence[tuple[int, int]]


class Pool:
    """``arrays``: of dtype uint8, numpy's or what is sliced like those; their bytes in C order are the pool.

    At most PIECE bytes of them, or one item, are read at a time and kept. ``lost``: by position in ``arrays``, the
    first and the last + 1 of lost items.
    """

    def __init__(self, arrays: Sequence[Any], lost: Mapping[int, Ranges]):
        self.arrays, self.row_bytes, self.begins = arrays, [math.prod(a.shape[1:]) for a in arrays], [0]
        holes: list[tuple[int, int]] = []
        for number, (array, width) in enumerate(zip(arrays, self.row_bytes)):
            begin = self.begins[-1]
            rows = len(array)
            holes += [(begin + max(0, a) * width, begin + min(b, rows) * width) for a, b in lost.get(number, ())]
            self.begins.append(begin + rows * width)
        # a last one behind the end, so that there is always a next
        self.holes = [*sorted(hole for hole in holes if hole[0] < hole[1]), (self.begins[-1], self.begins[-1])]
        self.at, self.array, self.hole = 0, 0, 0
        self.window, self.window_at = np.empty(0, np.uint8), 0

    def take(self, size: int) -> Iterator[NDArray[np.uint8]] | None:
        """The next ``size`` bytes in pieces, to be read before the next call; None where one of them is lost."""
        begin, end = self.at, self.at + size
        self.at = end
        while self.holes[self.hole][1] <= begin and self.hole < len(self.holes) - 1:
            self.hole += 1
        if size and self.holes[self.hole][0] < end:
            return None
        return self._pieces(begin, end)

    def _pieces(self, begin: int, end: int) -> Iterator[NDArray[np.uint8]]:
        while begin < end:
            skip = begin - self.window_at
            if not 0 <= skip < len(self.window):
                self._read(begin)
                skip = begin - self.window_at
            piece = self.window[skip : skip + end - begin]
            begin += len(piece)
            yield piece

    def _read(self, begin: int) -> None:
        """Make the window one that byte ``begin`` is in: up to the next lost byte, the end of its array, or PIECE."""
        while self.begins[self.array + 1] <= begin:
            self.array += 1
        array, width, first = self.arrays[self.array], self.row_bytes[self.array], self.begins[self.array]
        row = (begin - first) // width
        last = min(row + max(1, PIECE // width), max(row + 1, (self.holes[self.hole][0] - first) // width))
        self.window = np.ascontiguousarray(array[row : min(last, len(array))]).reshape(-1)
        self.window_at = first + row * width
