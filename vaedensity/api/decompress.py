"""Restore archives, or check them."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

from vaedensity.api.models import model_for
from vaedensity.archive.decoding import Lost, read_arrays
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import Archive
from vaedensity.data import restore
from vaedensity.data.disk_array import DiskArrays
from vaedensity.data.staging import staging
from vaedensity.errors import naming

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
        metas = checked_metadata(archive)
        goals = restore.targets(metas, folder, overwrite, links)
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
                staged = [restore.write_collection(meta, arrays, stage, holes, left_out, **how) for meta in metas]
            restore.place(metas, staged, goals, overwrite)
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
            record["items_lost"] = restore.count_lost(metas, holes, left_out)
        return record


def _holes(lost: list[Lost]) -> dict[str, list[tuple[int, int]]]:
    """Ranges of lost items by array."""
    holes: dict[str, list[tuple[int, int]]] = {}
    for one in lost:
        holes.setdefault(one.array, []).append((one.first, one.end))
    return holes


def checked_metadata(archive: Archive) -> list[Any]:
    """How the archive's arrays become files. Raises DamagedArchive."""
    metas = archive.meta.get("collections")
    if not isinstance(metas, list):
        metas = []
    with naming(archive.path):
        restore.check_restore_metadata(metas, [array.name for array in archive.contents])
    return metas


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
        metas = checked_metadata(archive)
        limits.check(archive, Path(tempfile.gettempdir()))
        model = model_for(archive, model_name)
        with staging(Path(tempfile.gettempdir())) as stage, DiskArrays(stage / token_hex(8)) as disk:
            arrays = read_arrays(archive, model, allocate=disk, threads=threads, lockstep=lockstep, progress=progress)
            with naming(archive.path):
                for meta in metas:
                    restore.check_collection(meta, arrays)
    return {**summary(archive), "ok": True, "seconds": time.monotonic() - started}


def summary(archive: Archive) -> dict[str, Any]:
    """What records of archives begin with."""
    return {
        "archive": str(archive.path),
        "items": restore.count_items(checked_metadata(archive), {array.name: array.rows for array in archive.contents}),
        "bytes_in": archive.path.stat().st_size,
        "bytes_out": sum(array.nbytes for array in archive.contents),
        "model": archive.model["name"] if archive.model else None,
    }
