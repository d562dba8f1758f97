"""Many small pictures in one PNG, written as they come: memory holds one row of tiles."""

import math
import struct
import zlib
from collections.abc import Iterable
from itertools import islice
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2  # colour types (PNG specification, section 11.2.1)
GAP = 96  # between tiles: neither black nor white


def columns_for(n: int, height: int, width: int) -> int:
    """Tiles in a row, so that ``n`` tiles of ``height`` x ``width`` pixels come nearly as high as wide."""
    return min(n, math.ceil(math.sqrt(n * (height + 1) / (width + 1))))


def write_mosaic(f: BinaryIO, tiles: Iterable[NDArray[np.uint8]], n: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Write ``n`` tiles of ``shape`` (H,W) grey or (H,W,3) RGB, uint8, row by row with a gap of one pixel.

    Returns the picture's (width, height).
    """
    height, width = shape[:2]
    columns = columns_for(n, height, width)
    rows = -(-n // columns)
    across, down = columns * (width + 1) - 1, rows * (height + 1) - 1
    f.write(SIGNATURE)
    _chunk(f, b"IHDR", struct.pack(">IIBBBBB", across, down, 8, RGB if len(shape) == 3 else GREY, 0, 0, 0))
    packer, source = zlib.compressobj(), iter(tiles)
    for row in range(rows):
        strip = np.full((height + (row + 1 < rows), across, *shape[2:]), GAP, np.uint8)
        for column, tile in enumerate(islice(source, columns)):
            left = column * (width + 1)
            strip[:height, left : left + width] = tile
        lines = np.pad(strip.reshape(len(strip), -1), ((0, 0), (1, 0)))  # each line begins with its filter, 0: none
        _chunk(f, b"IDAT", packer.compress(lines.tobytes()))
    _chunk(f, b"IDAT", packer.flush())
    _chunk(f, b"IEND", b"")
    return across, down


def _chunk(f: BinaryIO, kind: bytes, data: bytes) -> None:
    f.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
