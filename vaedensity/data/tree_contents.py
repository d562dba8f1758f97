"""What the files of a tree hold, one after the other, out of its arrays."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaedensity.data import image_metadata
from vaedensity.data.tree_meta import image_extras, members, suffix_of
from vaedensity.errors import DamagedArchive

PIECE = 1 << 22  # bytes

Ranges = Sequence[tuple[int, int]]
Pieces = Iterator[NDArray[np.uint8]]


class Image(NamedTuple):
    """An image file: its pixels are ``array[item]``, its metadata ``extras``."""

    array: Any
    item: int
    mode: str
    extras: bytes

    def pixels(self) -> NDArray[np.uint8]:
        """(H,W) or (H,W,3)."""
        item: NDArray[np.uint8] = np.asarray(self.array[self.item : self.item + 1])[0]
        return item


def contents(
    meta: dict[str, Any], arrays: Mapping[str, Any], lost: Mapping[str, Ranges]
) -> Iterator[tuple[int, str, Pieces | Image | None]]:
    """(place among the entries, name, content) of every file of a tree whose ``meta`` fits its ``arrays``.

    The content is the file's bytes in pieces, or an :class:`Image`, to be used before the next; None where it needs
    items that are ``lost``: by stored name, ranges of them.
    """
    pool = Pool(
        [arrays[name] for name in meta["bytes"]], {k: lost.get(name, ()) for k, name in enumerate(meta["bytes"])}
    )
    groups = [(arrays[group["array"]], group["mode"], lost.get(group["array"], ())) for group in meta["images"]]
    gone = [_marks(len(array), ranges) for array, _, ranges in groups]
    for one in members(meta):
        pieces = pool.take(one.size)
        if one.group is None:
            yield one.place, one.name, pieces
        elif pieces is None or gone[one.group][one.item]:
            yield one.place, one.name, None
        else:
            array, mode, _ = groups[one.group]
            yield one.place, one.name, Image(array, one.item, mode, b"".join(piece.tobytes() for piece in pieces))


def check_metadata(meta: dict[str, Any], arrays: Mapping[str, Any]) -> None:
    """Raise DamagedArchive unless all images' metadata are as their formats have them; ``meta`` fits ``arrays``."""
    if not any(image_extras(meta)):
        return
    for _, name, content in contents(meta, arrays, {}):
        if isinstance(content, Image):
            try:
                image_metadata.check(content.extras, suffix_of(name))
            except ValueError as error:
                raise DamagedArchive(f"the archive's metadata of {name!a} make no sense ({error})") from error


def _marks(count: int, ranges: Ranges) -> bytearray:
    """1 for each of ``count`` items that is in one of ``ranges``."""
    marks = bytearray(count)
    for begin, end in ranges:
        begin, end = max(0, begin), min(end, count)
        marks[begin:end] = b"\1" * max(0, end - begin)
    return marks


class Pool:
    """The bytes of several arrays uint8, one after the other in C order, read in pieces.

    ``arrays`` are numpy's or sliced like those; at most PIECE bytes of them, or one item, are in memory. ``lost`` has,
    by position in ``arrays``, ranges of lost items.
    """

    def __init__(self, arrays: Sequence[Any], lost: Mapping[int, Ranges]):
        self.arrays = [array if array.shape else array.reshape(1) for array in arrays]
        self.row_bytes, self.begins = [math.prod(a.shape[1:]) for a in arrays], [0]
        holes: list[tuple[int, int]] = []
        for number, (array, width) in enumerate(zip(self.arrays, self.row_bytes)):
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
