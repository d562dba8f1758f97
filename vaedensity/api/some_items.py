"""Restore some items of an archive as files, reading only their blocks."""

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.api.archive import Archive
from vaedensity.api.decompress import Unpacked, checked_metadata
from vaedensity.api.models import model_for
from vaedensity.archive.decoding import read_rows
from vaedensity.archive.engine import Decoder
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.record import StoredArray
from vaedensity.data import restore
from vaedensity.data.staging import staging
from vaedensity.data.tree_meta import check_tree
from vaedensity.data.tree_select import POOL, TreeIndex
from vaedensity.errors import UsageError, naming

Selection = tuple[dict[str, Any], dict[str, NDArray[Any]], int]
"""Restore metadata, the arrays that they need, and how many items they are."""


def unpack_items(
    path: Path,
    folder: Path,
    wanted: Sequence[str],
    ranges: Sequence[str] = (),
    model: str | Path | None = None,
    *,
    engine: str = "torch",
    overwrite: bool = False,
    limits: Limits = Limits(),
) -> Unpacked:
    """Restore some items of an archive of one array or one folder; nothing appears before all of them are decoded.

    Parameters
    ----------
    path, folder : Path
    wanted : sequence of str
        Indices or file names.
    ranges : sequence of str
        "FIRST:END", for items FIRST to END - 1.
    model, engine, overwrite, limits
        As of :func:`~vaedensity.api.decompress.unpack`.

    Returns
    -------
    Unpacked
        Of these items alone.

    Raises
    ------
    DamagedArchive, ModelError, UsageError, VaedensityError
    """
    started = time.monotonic()
    with ArchiveFile(path) as archive:
        metas, items = checked_metadata(archive), _Items(archive, model, engine, limits)
        meta = metas[0] if len(metas) == 1 else {"kind": "several"}
        if meta["kind"] != "tree" and not (meta["kind"] == "npy" and items.only.shape):
            held = ", ".join(f"{meta['kind']} {meta['name']}" for meta in metas)
            raise UsageError(f"{path}: single items are of one array or folder; it holds {held or 'nothing'}")
        with naming(path):
            meta, arrays, count = (_of_tree if meta["kind"] == "tree" else _of_array)(items, meta, wanted, ranges)
        goals, remarks = restore.targets([meta], folder, overwrite), list[str]()
        with staging(folder) as stage:
            with naming(path):
                staged = restore.write_collection(meta, arrays, stage, remarks=remarks)
            restore.place([meta], [staged], goals, overwrite)
    return Unpacked(
        archive=str(path),
        items=count,
        bytes_in=path.stat().st_size,
        bytes_out=sum(array.nbytes for array in arrays.values()),
        model=archive.model.name if archive.model else None,
        restored=[str(goals[0])],
        remarks=remarks,
        seconds=time.monotonic() - started,
    )


class _Items:
    """The items of an open archive by the stored names of their arrays."""

    def __init__(self, archive: ArchiveFile, given: str | Path | None, engine: str, limits: Limits):
        self.archive, self.path, self.given, self.engine, self.limits = archive, archive.path, given, engine, limits

    @cached_property
    def arrays(self) -> dict[str, StoredArray]:
        return {array.name: array for array in self.archive.contents}

    @property
    def only(self) -> StoredArray:
        return self.archive.contents[0]

    @cached_property
    def model(self) -> Decoder | None:
        return model_for(self.archive, self.given, self.engine)

    def take(self, name: str, places: Sequence[int]) -> NDArray[Any]:
        """The items at ``places``, in that order."""
        self.limits.check_memory(self.archive, [self.arrays[name]])
        with Archive(self.path, name, model=self.given, engine=self.engine) as items:
            return items.take(places)

    def rows(self, name: str, first: int, end: int) -> NDArray[Any]:
        """Items ``first`` .. ``end`` - 1."""
        self.limits.check_memory(self.archive, [self.arrays[name]])
        return read_rows(self.archive, name, first, end, self.model)


def _of_array(items: _Items, meta: dict[str, Any], wanted: Sequence[str], ranges: Sequence[str]) -> Selection:
    chosen = choose(items.path, items.only.shape[0], [], wanted, ranges)
    return meta, {items.only.name: items.take(items.only.name, chosen)}, len(chosen)


def _of_tree(items: _Items, meta: dict[str, Any], wanted: Sequence[str], ranges: Sequence[str]) -> Selection:
    check_tree(meta, items.arrays)
    whole = TreeIndex(meta)
    names = [whole.entries[k] for k in whole.files]
    places = [whole.files[i] for i in choose(items.path, len(names), names, wanted, ranges)]
    part = whole.select(places, meta["arrays"])
    arrays = {name: items.take(name, own) for name, own in part.items.items()}
    if part.ranges:
        arrays[POOL] = np.concatenate([_pool_bytes(items, meta["bytes"], first, end) for first, end in part.ranges])
    return part.meta, arrays, len(part.meta["sizes"]) + len(part.meta["groups"])


def _pool_bytes(items: _Items, names: Sequence[str], first: int, end: int) -> NDArray[np.uint8]:
    """Bytes ``first`` .. ``end`` - 1 of arrays of bytes, one after the other."""
    parts, begin = [], 0
    for name in names:
        rows, width = items.arrays[name].shape[0], int(np.prod(items.arrays[name].shape[1:], dtype=object))
        low, high = max(first - begin, 0), min(end - begin, rows * width)
        if low < high:
            row = low // width
            data = items.rows(name, row, -(-high // width)).reshape(-1)
            parts.append(data[low - row * width :][: high - low])
        begin += rows * width
    return np.concatenate(parts)


def choose(path: Path, count: int, names: list[str], wanted: Sequence[str], ranges: Sequence[str]) -> list[int]:
    """Indices, each once and in the order asked for. Raises UsageError."""
    place, found = {name: i for i, name in enumerate(names)}, []
    held = f"{path} holds items 0 to {count - 1}" + (" and their names" if names else "")
    for item in wanted:
        index = place.get(item, _count(item, -1))
        if not 0 <= index < count:
            raise UsageError(f"item {item}: " + (held if count else f"{path} holds no items"))
        found.append(index)
    for text in ranges:
        ends = text.split(":")
        low, high = (_count(ends[0] or "0", -1), _count(ends[1] or f"{count}", -1)) if len(ends) == 2 else (-1, -1)
        if min(low, high) < 0:
            raise UsageError(f"range {text}: expected FIRST:END, items FIRST to END - 1")
        if not low < high <= count:
            raise UsageError(f"range {text}: expected one within 0:{count}")
        found += range(low, high)
    return list(dict.fromkeys(found))


def _count(text: str, otherwise: int) -> int:
    """The number that ``text`` is in digits, else ``otherwise``; no file has items of so many digits as 20."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else otherwise
