"""Random arrays of every kind that an archive holds, drawn small and by a seed: what fails shrinks, and prints as one
line."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from vaedensity.archive.block import Block
from vaedensity.archive.block_decoder import Lost
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.tally import Tally
from vaedensity.archive.writer import write_archive
from vaedensity.coding.engine import CodingModel
from vaedensity.data.disk_array import DiskArrays

DTYPES = (
    *("|u1", "|b1", "|i1", "<u2", ">u2", "<i2", ">i4", "<u8", ">i8", "<f2", ">f4", "<f8", ">f8", "<c8", ">c16"),
    *("|S1", "|S5", "<U1", ">U3", "<M8[D]", ">M8[25s]", "<m8[ns]", ">m8", "|V1", "|V7", "|V40", "|S0", "<U0", "|V0"),
)
LONG_DOUBLE = np.dtype(np.longdouble).str
ALL_DTYPES = (*["|u1"] * 10, *["|b1"] * 3, *DTYPES, LONG_DOUBLE)
NAMES = ("x", "", "\u00fc \n\x00/..", "0/x")


def constant(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.full(count, rng.integers(256))


def noise(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, count)


def extremes(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.choice([0, 255], count)


def gradient(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.arange(count) * int(rng.integers(1, 9)) // 4 + rng.integers(256)


def two_valued(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.choice(rng.integers(0, 256, 2), count)


def sparse(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.where(rng.random(count) < 0.03, rng.integers(0, 256, count), 0)


CONTENTS = {f.__name__: f for f in (constant, gradient, two_valued, sparse, extremes, noise)}


def filled(contents: str, seed: int, count: int) -> np.ndarray:
    """So many bytes of that kind."""
    return np.asarray(CONTENTS[contents](np.random.default_rng(seed), count)).astype(np.uint8)


@dataclass(frozen=True)
class Spec:
    """An array: how its bytes come about, and how they lie in memory."""

    dtype: str
    shape: tuple[int, ...]
    contents: str = "constant"
    seed: int = 0
    memory: str = "C"

    def make(self) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        raw = filled(self.contents, self.seed, math.prod(self.shape) * dtype.itemsize)
        if dtype.kind == "b":
            raw &= 1
        if dtype.kind == "U":
            raw = (raw.view(np.uint32) % 0x110000).astype(dtype.byteorder + "u4")
        array = np.ndarray(self.shape, dtype, raw.tobytes())
        if self.memory == "C" or not self.shape or not dtype.itemsize:
            return array
        if self.memory == "F":
            return np.asfortranarray(array)
        return array[::-1].copy()[::-1] if self.memory == "reversed" else np.repeat(array, 2, 0)[::2]


def scaled(most: int) -> st.SearchStrategy[int]:
    """0 .. ``most``, half of them below an eighth of it."""
    return st.integers(0, 1000).map(lambda u: round(most * (u / 1000) ** 3))


HOW = st.sampled_from([(contents, memory) for memory in ("C", "F", "reversed", "strided") for contents in CONTENTS])
ARRAY_BYTES = st.sampled_from([1 << 10, 1 << 11, 1 << 12] * 20 + [300_000])
SIDES, COUNTS, CHANNELS, SEEDS = scaled(299), scaled(1000), st.integers(1, 4), st.integers(0, 1000)
ODD = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@st.composite
def shapes(draw: st.DrawFn, width: int, forms: tuple[str, ...]) -> tuple[int, ...]:
    """Shapes of ``forms`` for elements of so many bytes: of few bytes mostly, now and then of hundreds of thousands."""
    size = draw(ARRAY_BYTES) // max(1, width)
    form = draw(st.sampled_from(forms))
    if form == "scalar":
        return ()
    if form == "any":
        sides = draw(ODD)
    elif form == "line":
        sides = [draw(COUNTS)]
    else:
        high, wide = (min(1 + draw(SIDES), max(1, int(size**0.5))) for _ in range(2))
        channels = draw(CHANNELS) if form != "grey" else 1
        inner = {"grey": [high, wide], "last": [high, wide, channels], "first": [channels, high, wide]}
        sides = [draw(COUNTS), *inner[form]]
    while math.prod(sides) > size:
        at = 0 if sides[0] > 1 else int(np.argmax(sides))
        sides[at] = max(1, min(sides[at] - 1, size // max(1, math.prod(sides) // sides[at])))
    return tuple(sides)


@st.composite
def specs(
    draw: st.DrawFn,
    dtypes: tuple[str, ...] = ALL_DTYPES,
    forms: tuple[str, ...] = ("line", "scalar", "grey", "last", "first", "any"),
) -> Spec:
    width = np.dtype(dtype := draw(st.sampled_from(dtypes))).itemsize
    contents, memory = draw(HOW)
    return Spec(dtype, draw(shapes(width, forms)), contents, draw(SEEDS), memory)


@st.composite
def several(draw: st.DrawFn, most: int = 4) -> dict[str, Spec]:
    """Arrays by name."""
    drawn = draw(st.lists(specs(), min_size=1, max_size=most))
    return dict(zip(NAMES, drawn))


BLOCK_BYTES = st.sampled_from([4 << 20, 4096, 600, 100, 7])
"""Of fallback blocks: all of an array in one, or as many as there are in large ones."""


@contextmanager
def patched(**values: Any) -> Iterator[None]:
    """Constants of the package, each named ``package__module__NAME``, that are others meanwhile."""
    with pytest.MonkeyPatch.context() as context:
        for name, value in values.items():
            context.setattr(f"vaedensity.{name.replace('__', '.')}", value)
        yield


def pack(
    path: Path,
    arrays: dict[str, np.ndarray],
    model: CodingModel | None = None,
    block_bytes: int = 4 << 20,
    **options: Any,
) -> Tally:
    """Write an archive; many fallback blocks where ``block_bytes`` are few, but no more than some hundreds."""
    least = max((array.nbytes for array in arrays.values()), default=0) // 100
    with patched(archive__writer__FALLBACK_BLOCK_BYTES=max(block_bytes, least)), open(path, "wb") as f:
        return write_archive(f, arrays, [], model, threads=1, **options)


def unpack(path: Path, model: CodingModel | None = None, **options: Any) -> dict[str, Any]:
    with ArchiveFile(path) as archive:
        return read_arrays(archive, model, threads=1, **options)


@contextmanager
def maybe_on_disk(folder: Path, on_disk: bool) -> Iterator[DiskArrays | None]:
    """What makes arrays, even small ones, in files of ``folder``; None unless ``on_disk``."""
    if not on_disk:
        yield None
        return
    with patched(data__disk_array__IN_MEMORY=0), DiskArrays(folder) as disk:
        yield disk
    shutil.rmtree(folder)


def blocks_of(path: Path) -> tuple[list[Block], list[str], int]:
    """(blocks, names of the arrays, where blocks begin)."""
    with ArchiveFile(path) as archive:
        return archive.blocks, [array.name for array in archive.arrays], archive.blocks_begin


def same(a: Any, b: np.ndarray) -> bool:
    """Whether two arrays, the first maybe on disk, are alike to the bit."""
    data = a.tobytes() if a.ndim == 0 else a[0 : len(a)].tobytes()
    return a.dtype.str == b.dtype.str and a.shape == b.shape and data == b.tobytes()


def with_holes(arrays: dict[str, np.ndarray], lost: list[Lost]) -> dict[str, np.ndarray]:
    """``arrays`` with zeros for what is lost."""
    out = {name: array.copy("C") if array.dtype.itemsize else array for name, array in arrays.items()}
    for one in lost:
        rows = out[one.array].reshape(1) if not out[one.array].ndim else out[one.array]
        rows[one.first : one.end] = np.zeros((), rows.dtype)
    return out
