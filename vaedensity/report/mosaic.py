"""Many small pictures in one PNG."""

import math
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GAP = 96  # between tiles: neither black nor white
MOST_PIXELS = 1 << 28


def columns_for(n: int, height: int, width: int) -> int:
    """Tiles in a row, so that ``n`` tiles of ``height`` x ``width`` pixels come nearly as high as wide."""
    return min(n, math.ceil(math.sqrt(n * (height + 1) / (width + 1))))


def mosaic_size(n: int, height: int, width: int) -> tuple[int, int]:
    """(width, height) in pixels of ``n`` tiles with gaps of one pixel."""
    columns = columns_for(n, height, width)
    return columns * (width + 1) - 1, -(-n // columns) * (height + 1) - 1


def write_mosaic(f: BinaryIO, tiles: Iterable[NDArray[np.uint8]], n: int, shape: tuple[int, ...]) -> None:
    """Write ``n`` tiles of ``shape`` (H,W) grey or (H,W,3) RGB, uint8, row by row with a gap of one pixel."""
    height, width = shape[:2]
    across, down = mosaic_size(n, height, width)
    columns = columns_for(n, height, width)
    canvas = np.full((down, across, *shape[2:]), GAP, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = tile
    Image.fromarray(canvas).save(f, format="PNG")
