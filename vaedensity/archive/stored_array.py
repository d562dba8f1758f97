"""One array as the record of an archive describes it."""

import math
import re
from typing import Any

import numpy as np

from vaedensity import items

MAX_BYTES = 1 << 48
KINDS = "biufcSUmMV"
PLAIN = re.compile(r"[<>|][biufcSUmMV][0-9]{1,12}(\[[0-9]{0,10}[A-Za-z]{1,2}\])?")


class StoredArray:
    """What the record says of one array, every field checked. Raises ValueError. ``blocks``: the places of its own in the archive."""

    def __init__(self, entry: Any):
        if not isinstance(entry, dict):
            raise ValueError("an array is described by other than a name and whole numbers")
        name, shape, dtype = entry.get("name"), entry.get("shape"), entry.get("dtype")
        if (
            not isinstance(name, str)
            or not isinstance(shape, list)
            or len(shape) > items.MOST_AXES
            or any(type(n) is not int or n < 0 for n in shape)
        ):
            raise ValueError("an array is described by other than a name and whole numbers")
        self.name, self.layout = name, entry.get("layout")
        self.dtype, self.shape = self._plain(dtype), tuple(shape)
        self.blocks: list[int] = []
        extent = max(1, self.dtype.itemsize) * math.prod(max(1, n) for n in self.shape)
        if extent > MAX_BYTES:
            raise ValueError(f"array {self.name}: shape {list(self.shape)} is beyond the limit of {MAX_BYTES} bytes")
        self.nbytes = extent if all(self.shape) and self.dtype.itemsize else 0
        self.rows = self.shape[0] if self.shape else 1
        self.row_bytes = self.nbytes // self.rows if self.rows else 0
        self.item_shape: tuple[int, ...] = ()
        if self.layout is not None:
            probe = np.broadcast_to(np.uint8(0), (1, *self.shape[1:]) if self.dtype.itemsize == 1 else (0,))
            found = items.series_layout(probe) if self.layout == "NT" else items.layout_of(probe)
            if self.layout not in items.LAYOUTS or found != self.layout or self.dtype.kind not in "bu":
                raise ValueError(f"array {self.name}: layout {self.layout} does not fit")
            self.item_shape = items.to_items(probe, self.layout).shape[1:]

    def _plain(self, text: Any) -> np.dtype[Any]:
        """The type that ``text`` names: no fields, no objects, no way to write it but one."""
        if isinstance(text, str) and PLAIN.fullmatch(text):
            try:
                dtype = np.dtype(text)
            except TypeError:
                dtype = None
            if dtype is not None and dtype.str == text and dtype.kind in KINDS and dtype.names is None:
                return dtype
        said = text[:40] if isinstance(text, str) else f"a {type(text).__name__}"
        raise ValueError(f"array {self.name}: dtype {said} is not plain")
