"""The record (section 4): arrays, model, and which blocks hold which items of which array."""

import math
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from vaedensity.numpy_decoder.layout import FRAMED, Layout
from vaedensity.numpy_decoder.streams import PLANES

LOST, FIRST_MODEL_CODER, SERIES = 15, 16, 22
COUPLED = (17, 19, 21)
SINCE = {0: 1, 1: 1, 2: 1, PLANES: 5, LOST: 5, 16: 1, 17: 2, 18: 3, 19: 3, 20: 3, 21: 3, SERIES: 4}
"""Coder -> version that brought it."""
LARGEST, MOST_DIMENSIONS, LONGEST_CHAIN = 1 << 48, 8, 4096
PROBE = re.compile("[0-9a-f]{16}")
PLAIN = re.compile(r"[<>|](?:[biufcSUV]\d{1,12}|[mM]8(?:\[\d{0,10}[a-zA-Z]{1,2}\])?)", re.ASCII)
"""A dtype as a record writes it (section 4): so much is known before numpy reads it."""
WRONG = (KeyError, TypeError, ValueError, AttributeError, SyntaxError, IndexError, RecursionError, struct.error)


@dataclass(frozen=True)
class Block:
    """Where a block lies in the file, with its frame if it has one, what it holds, and how it is coded. ``array``: its
    array's number; ``first``: items of that array before it; ``checksum``: CRC-32 of its bytes, None where its frame
    has it."""

    index: int
    array: int
    coder: int
    first: int
    items: int
    begin: int
    length: int
    checksum: int | None


class Entry:
    """One array of the record. ``item_shape``: (C,H,W) where it has a ``layout``; ``blocks``: its own; ``count``: how
    many those are, None where the index says it. Raises WRONG."""

    def __init__(self, record: Any, version: int):
        if not isinstance(record, dict):
            raise ValueError("an array is not described by an object")
        name, shape, self.layout = record.get("name"), record.get("shape"), record.get("layout")
        self.count = record.get("blocks") if version < FRAMED else None
        self.blocks: list[Block] = []
        counts = [] if version >= FRAMED else [self.count]
        if not isinstance(name, str) or not isinstance(shape, list) or not _are_counts([*shape[:9], *counts]):
            raise ValueError("an array is described by other than a name and whole numbers")
        self.name = name
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"array {self.name}: {len(shape)} axes, expected at most {MOST_DIMENSIONS}")
        self.shape, self.dtype = tuple(shape), self._plain(record.get("dtype"))
        # What takes no bytes counts as if it took one: numpy refuses such shapes too, or loops over them.
        extent = max(1, self.dtype.itemsize) * math.prod(max(1, n) for n in self.shape)
        if extent > LARGEST:
            raise ValueError(f"array {self.name}: shape {list(self.shape)} is beyond the limit of {LARGEST} bytes")
        self.nbytes = extent if all(self.shape) and self.dtype.itemsize else 0
        self.rows = self.shape[0] if self.shape else 1
        self.row_bytes = self.nbytes // self.rows if self.rows else 0
        self.item_shape: tuple[int, ...] | None = None
        if self.layout is not None:
            rest = self.shape[1:]
            rule, item_shape = None, None
            if len(rest) == 1 and version >= SINCE[SERIES]:
                rule, item_shape = "NT", (1, 1, *rest)
            elif len(rest) == 2:
                rule, item_shape = "NHW", (1, *rest)
            elif len(rest) == 3 and rest[2] in (1, 3):
                rule, item_shape = "NHWC", (rest[2], *rest[:2])
            elif len(rest) == 3 and rest[0] in (1, 3):
                rule, item_shape = "NCHW", rest
            if rule is None or self.layout != rule or self.dtype.str not in ("|u1", "|b1") or not all(rest):
                raise ValueError(f"array {self.name}: layout {self.layout} does not fit")
            self.item_shape = item_shape

    def _plain(self, text: Any) -> np.dtype[Any]:
        """The type that a record names ``text``. Raises ValueError unless that is the one way to name it."""
        found = None
        if isinstance(text, str) and PLAIN.fullmatch(text):
            with suppress(TypeError, ValueError, OverflowError):
                found = np.dtype(text)
        if found is None or found.str != text or found.names is not None:
            said = text[:40] if isinstance(text, str) else f"of type {type(text).__name__}"
            raise ValueError(f"array {self.name}: dtype {said} is not plain")
        return found


def _are_counts(values: list[Any]) -> bool:
    return all(type(n) is int and n >= 0 for n in values)


class Record:
    """What an archive says it holds. ``arrays``: in order, each with its blocks; ``blocks``: in the order of the file;
    ``meta``: how arrays become files; ``model``: None where no block needs one, else its ``sha256`` and ``name``;
    ``particles``: of items of coupled coders; ``inside``: the array that holds the model, or None. Raises WRONG."""

    def __init__(self, layout: Layout, version: int):
        record = layout.record
        meta, self.model = record.get("meta"), record.get("model")
        if not isinstance(meta, dict):
            raise ValueError("restore metadata is not an object")
        self.meta: dict[str, Any] = meta
        named = isinstance(self.model, dict) and all(isinstance(self.model.get(key), str) for key in ("sha256", "name"))
        if self.model is not None and not named:
            raise ValueError("the model is not named")
        self.particles = 1 if self.model is None else self.model.get("particles", 1)
        if type(self.particles) is not int or not 1 <= self.particles <= 256:
            raise ValueError(f"{self.particles} particles, expected 1 to 256")
        probe = None if self.model is None else self.model.get("probe")
        if self.model is not None and "probe" in self.model and not (isinstance(probe, str) and PROBE.fullmatch(probe)):
            raise ValueError("the probe is not 16 hexadecimal digits")
        self.arrays = [Entry(entry, version) for entry in record["arrays"]]
        if len({a.name for a in self.arrays}) != len(self.arrays):
            raise ValueError("two arrays have one name")
        for coder in layout.columns.coders:
            if SINCE.get(coder, version + 1) > version:
                raise ValueError(f"a block of coder {coder} in format version {version}")
        self.blocks = self._deal(layout)
        for array in self.arrays:
            items = sum(b.items for b in array.blocks)
            if items != (array.rows if array.nbytes else 0) or (array.blocks and not array.nbytes):
                raise ValueError(f"array {array.name}: its blocks do not add up to its items")
            for block in array.blocks:
                if version >= FRAMED and not block.items:
                    raise ValueError(f"array {array.name}: a block of no items")
                self._require_fit(array, block)
        self.inside = None if version < FRAMED else self._inside()
        if all(block.coder < FIRST_MODEL_CODER for block in self.blocks):
            self.model = None  # was tried, and nothing coded by it

    def _deal(self, layout: Layout) -> list[Block]:
        """All blocks, each also given to its array."""
        index, numbers = layout.columns, layout.columns.arrays
        if numbers is None:
            counts = [array.count or 0 for array in self.arrays]
            if sum(counts) != len(index.coders):
                raise ValueError("the arrays do not own all blocks")
            numbers = [number for number, count in enumerate(counts) for _ in range(count)]
        checksums = index.checksums or [None] * len(index.coders)
        begins = accumulate(index.lengths, initial=layout.begin)
        firsts, blocks = [0] * len(self.arrays), []
        for i, facts in enumerate(zip(numbers, index.coders, index.items, begins, index.lengths, checksums)):
            number, coder, items, begin, length, checksum = facts
            if number >= len(self.arrays):
                raise ValueError(f"block {i} is of an array that is not described")
            blocks.append(Block(i, number, coder, firsts[number], items, begin, length, checksum))
            firsts[number] += items
            self.arrays[number].blocks.append(blocks[-1])
        return blocks

    def _require_fit(self, array: Entry, block: Block) -> None:
        """Raise ValueError where ``block`` of ``array`` has a coder that cannot be."""
        if block.coder == PLANES and array.dtype.itemsize < 2:
            raise ValueError(f"array {array.name}: byte planes of elements of one byte")
        if block.coder >= FIRST_MODEL_CODER and (
            array.item_shape is None
            or self.model is None
            or not 1 <= block.items <= LONGEST_CHAIN
            or (block.coder in COUPLED) != (self.particles > 1)
            or (block.coder == SERIES) != (array.layout == "NT")
        ):
            raise ValueError(f"array {array.name}: a block says it needs a model that cannot fit")

    def _inside(self) -> Entry | None:
        """The array that holds the model (section 8.1)."""
        if self.model is None or "array" not in self.model:
            return None
        found = [array for array in self.arrays if array.name == self.model["array"]]
        if not found:
            raise ValueError(f"the model is in array {self.model['array']!r}, which is not described")
        (array,) = found
        if array.dtype.str != "<i2" or len(array.shape) != 1:
            raise ValueError(f"array {array.name}, {array.dtype.str} of shape {list(array.shape)}, can hold no model")
        return array
