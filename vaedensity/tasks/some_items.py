"""Restore some items of an archive, reading only their blocks."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.coding.decoding import read_rows
from vaedensity.coding.lowering import CodingModel
from vaedensity.coding.reader import Archive as ArchiveFile
from vaedensity.coding.stored_array import StoredArray
from vaedensity.data import restore
from vaedensity.data.tree_note import check_tree
from vaedensity.data.tree_select import POOL, TreeIndex
from vaedensity.errors import DamagedArchive, UsageError
from vaedensity.staging import move_into_place, staging
from vaedensity.tasks.models import model_for
from vaedensity.tasks.random_access import Archive
from vaedensity.tasks.unpacking import checked_notes


def decompress_items(
    path: Path,
    folder: Path,
    wanted: Sequence[str],
    ranges: Sequence[str] = (),
    model_name: str | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Restore some items of an archive of one array or one folder of images: ``wanted``, indices or file names, then those of
    ``ranges`` "a:b". Nothing appears before all of them are decoded. Returns the record of ``decompress --item --json``."""
    started = time.monotonic()
    with ArchiveFile(path) as archive:
        notes = checked_notes(archive)
        if len(notes) != 1 or notes[0]["kind"] not in ("npy", "folder", "tree") or not archive.contents[0].shape:
            held = ", ".join(f"{note['kind']} {note['name']}" for note in notes)
            raise UsageError(f"{path}: single items are of one array or folder; it holds {held or 'nothing'}")
        note, arrays, count = (_of_tree if notes[0]["kind"] == "tree" else _of_array)(
            archive, notes[0], model_name, wanted, ranges
        )
        goals = restore.targets([note], folder, overwrite)
        with staging(folder) as stage:
            staged = restore.write_collection(note, arrays, stage)
            move_into_place(staged, goals[0], overwrite)
    return {
        "archive": str(path),
        "items": count,
        "bytes_in": path.stat().st_size,
        "bytes_out": sum(array.nbytes for array in arrays.values()),
        "restored": [str(goals[0])],
        "seconds": time.monotonic() - started,
    }


Selection = tuple[dict[str, Any], dict[str, NDArray[Any]], int]
"""A note, the arrays that it needs, and how many items they are."""


def _of_array(
    archive: ArchiveFile, note: dict[str, Any], model_name: str | None, wanted: Sequence[str], ranges: Sequence[str]
) -> Selection:
    names, rows = note.get("files", []), archive.contents[0].rows
    if note["kind"] == "folder" and len(names) != rows:
        raise DamagedArchive(f"{archive.path}: {len(names)} file names for {rows} images")
    chosen = choose(archive.path, rows, names, wanted, ranges)
    with Archive(archive.path, archive.contents[0].name, model=model_name) as items:
        part = items.take(chosen)
    note = note | ({"files": [names[i] for i in chosen]} if "files" in note else {})
    return note, {next(iter(note["arrays"])): part}, len(chosen)


def _of_tree(
    archive: ArchiveFile, note: dict[str, Any], model_name: str | None, wanted: Sequence[str], ranges: Sequence[str]
) -> Selection:
    check_tree(note, {array.name: array for array in archive.contents})
    whole = TreeIndex(note)
    names = [whole.entries[k] for k in whole.files]
    part = whole.select(
        [whole.files[i] for i in choose(archive.path, len(names), names, wanted, ranges)], note["arrays"]
    )
    model = model_for(archive, model_name)
    arrays: dict[str, NDArray[Any]] = {}
    for name, own in part.items.items():
        with Archive(archive.path, name, model=model_name) as items:
            arrays[name] = items.take(own)
    if part.ranges:
        pool = [archive.array(name) for name in note["bytes"]]
        arrays[POOL] = np.concatenate([_pool_bytes(archive, pool, first, end, model) for first, end in part.ranges])
    return part.note, arrays, len(part.note["sizes"]) + len(part.note["groups"])


def _pool_bytes(
    archive: ArchiveFile, pool: list[StoredArray], first: int, end: int, model: CodingModel | None
) -> NDArray[np.uint8]:
    """Bytes ``first`` .. ``end`` - 1 of the arrays of a ``pool``, one after the other."""
    parts, begin = [], 0
    for array in pool:
        low, high = max(first - begin, 0), min(end - begin, array.nbytes)
        if low < high:
            rows = low // array.row_bytes, -(-high // array.row_bytes)
            data = read_rows(archive, array.name, *rows, model).reshape(-1).view(np.uint8)
            parts.append(data[low - rows[0] * array.row_bytes :][: high - low])
        begin += array.nbytes
    return np.concatenate(parts)


def choose(path: Path, count: int, names: list[str], wanted: Sequence[str], ranges: Sequence[str]) -> list[int]:
    """Indices, each once and in the order asked for. Raises UsageError."""
    place, found = {name: i for i, name in enumerate(names)}, []
    for item in wanted:
        index = place.get(item, int(item) if item.isascii() and item.isdigit() else -1)
        if not 0 <= index < count:
            raise UsageError(
                f"--item {item}: {path} holds items 0 to {count - 1}" + (" and their names" if names else "")
            )
        found.append(index)
    for text in ranges:
        ends = text.split(":")
        if len(ends) != 2 or any(end and not (end.isascii() and end.isdigit()) for end in ends):
            raise UsageError(f"--range {text}: expected FIRST:END, items FIRST to END - 1")
        low, high = int(ends[0] or 0), int(ends[1] or count)
        if not low < high <= count:
            raise UsageError(f"--range {text}: expected a range within 0:{count}")
        found += range(low, high)
    return list(dict.fromkeys(found))
