"""Restore archives, or check them."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

from vaedensity.coding.decoding import Lost, read_arrays
from vaedensity.coding.reader import Archive
from vaedensity.data import restore
from vaedensity.data.disk_array import DiskArrays
from vaedensity.errors import naming
from vaedensity.staging import staging
from vaedensity.tasks.limits import Limits
from vaedensity.tasks.models import model_for

Progress = Callable[[int], None]


def decompress(
    path: Path,
    folder: Path,
    model_name: str | None = None,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    lockstep: int | None = None,
    keep_going: bool = False,
    links: str = "inside",
    limits: Limits = Limits(),
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """Restore everything in ``folder``; nothing appears there before all of it is checked.

    Where ``keep_going``, what damaged blocks held is left out (files of a folder) or zeros (items of an array), and the record's
    ``lost`` says which. ``links`` of folders that lead out of them: refused where "inside", made where "any"; no links where "none".
    """
    started = time.monotonic()
    with Archive(path) as archive:
        notes = checked_notes(archive)
        goals = restore.targets(notes, folder, overwrite, links)
        limits.check(archive, folder)
        model = model_for(archive, model_name)
        lost: list[Lost] | None = [] if keep_going else None
        left_out, remarks = list[str](), list[str]()
        with staging(folder) as stage, DiskArrays(stage / token_hex(8)) as disk:
            arrays = read_arrays(
                archive, model, allocate=disk, threads=threads, lockstep=lockstep, lost=lost, progress=progress
            )
            holes = _holes(lost or [])
            with naming(archive.path):
                how: dict[str, Any] = {"links": links, "remarks": remarks}
                staged = [restore.write_collection(note, arrays, stage, holes, left_out, **how) for note in notes]
            restore.place(notes, staged, goals, overwrite)
        record = {
            **summary(archive),
            "restored": [str(goal) for goal in goals],
            "remarks": remarks,
            "seconds": time.monotonic() - started,
        }
        if keep_going:
            record["lost"] = [
                {"array": one.array, "first": one.first, "end": one.end, "reason": one.reason} for one in lost or []
            ]
            record["left_out"] = left_out
            record["items_lost"] = restore.count_lost(notes, holes, left_out)
        return record


def _holes(lost: list[Lost]) -> dict[str, list[tuple[int, int]]]:
    """Ranges of lost items by array."""
    holes: dict[str, list[tuple[int, int]]] = {}
    for one in lost:
        holes.setdefault(one.array, []).append((one.first, one.end))
    return holes


def checked_notes(archive: Archive) -> list[Any]:
    """How the archive's arrays become files. Raises DamagedArchive."""
    notes = archive.note.get("collections")
    if not isinstance(notes, list):
        notes = []
    with naming(archive.path):
        restore.check_note(notes, [array.name for array in archive.contents])
    return notes


def test(
    path: Path,
    model_name: str | None = None,
    *,
    threads: int | None = None,
    lockstep: int | None = None,
    limits: Limits = Limits(),
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """Decode and check everything, write nothing that stays."""
    started = time.monotonic()
    with Archive(path) as archive:
        notes = checked_notes(archive)
        limits.check(archive, Path(tempfile.gettempdir()))
        model = model_for(archive, model_name)
        with staging(Path(tempfile.gettempdir())) as stage, DiskArrays(stage / token_hex(8)) as disk:
            arrays = read_arrays(archive, model, allocate=disk, threads=threads, lockstep=lockstep, progress=progress)
            with naming(archive.path):
                for note in notes:
                    restore.check_collection(note, arrays)
    return {**summary(archive), "ok": True, "seconds": time.monotonic() - started}


def summary(archive: Archive) -> dict[str, Any]:
    """What records of archives begin with."""
    return {
        "archive": str(archive.path),
        "items": restore.count_items(checked_notes(archive), {array.name: array.rows for array in archive.contents}),
        "bytes_in": archive.path.stat().st_size,
        "bytes_out": sum(array.nbytes for array in archive.contents),
        "model": archive.model["name"] if archive.model else None,
    }
