"""Compress collections into an archive, and restore or check archives."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.atomic import atomic_file, refuse_existing
from vaedensity.coding import classical
from vaedensity.coding.archive import Tally, write_archive
from vaedensity.coding.coupled import MOST_PARTICLES
from vaedensity.coding.lowering import CodingModel, coded_bits, coding_model
from vaedensity.coding.reader import Archive
from vaedensity.data import restore
from vaedensity.data.collection import Collection
from vaedensity.errors import DamagedArchive, ModelError, UsageError
from vaedensity.model.checkpoint import load_model
from vaedensity.model.released import released, resolve

Progress = Callable[[int], None]
SAMPLE_ITEMS, LEAST_SAMPLE, SAMPLE_VALUES = 48, 16, 1 << 18
SAMPLE_BYTES = 1 << 20
LEAST_GAIN = 0.0005  # share of the rate that particles must save to be used


def open_model(name: str) -> CodingModel:
    """The coding side of a model file or released model."""
    path = resolve(name)
    return coding_model(load_model(path), path.stem)


def choose_model(arrays: dict[str, NDArray[Any]]) -> CodingModel | None:
    """The released model that codes a sample of the largest array smallest, if smaller than a classical coder does."""
    known = [a for a in arrays.values() if items.layout_of(a) or items.series_layout(a) or _is_bytes(a)]
    if not known:
        return None
    array = max(known, key=lambda a: a.size)
    head = np.ascontiguousarray(array[: max(1, SAMPLE_BYTES // array[:1].nbytes)])
    best, best_rate = None, 8 * len(classical.encode(head.tobytes())[1]) / head.size
    for path in released().values():
        model = coding_model(load_model(path), path.stem)
        seen = items.pieces(array, model.integers.config.dims)[0] if _is_bytes(array) else array
        levels = _sample_levels(model, seen) if model.fits(seen) else None
        if levels is None:
            continue
        rate = coded_bits(model.integers, levels) / levels[0].numel()
        if rate < best_rate:
            best, best_rate = model, rate
    return best


def _is_bytes(array: NDArray[Any]) -> bool:
    return array.ndim == 1 and array.dtype == np.uint8 and array.size > 0


def cut_bytes(collection: Collection, model: CodingModel | None) -> Collection:
    """A file's bytes, or those of files, as pieces of the length that a sequence ``model`` knows and what is left over."""
    if collection.note["kind"] not in restore.KINDS_OF_BYTES or model is None or not model.integers.is_sequence:
        return collection
    (array,) = collection.arrays.values()
    whole, rest = items.pieces(array, model.integers.config.dims)
    parts = {name: part for name, part in (("pieces", whole), ("rest", rest)) if part.size}
    return replace(collection, arrays=parts or {"rest": rest})


def compress(
    collections: list[Collection],
    out: Path,
    model: CodingModel | None,
    *,
    overwrite: bool = False,
    verify: bool = True,
    particles: int = 1,
    threads: int | None = None,
    progress: Progress = lambda n: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write ``collections`` to the archive ``out``; returns the record of `compress --json`.

    More than one of ``particles`` (at most 256) costs that many times the time and gains what
    :func:`particle_gain` finds; where that is nothing, ``say`` hears so and one is used.
    """
    refuse_existing(out, overwrite)
    if not 1 <= particles <= MOST_PARTICLES:
        raise UsageError(f"--particles {particles}: expected 1 to {MOST_PARTICLES}")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder; make it first")
    arrays, notes = gather([cut_bytes(collection, model) for collection in collections])
    if model is not None and not any(model.fits(a) for a in arrays.values()):
        shape = model.integers.config.item_shape
        if model.integers.is_sequence:
            found = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
            raise UsageError(
                f"the model {model.name} codes series of {shape[2]} values, or at least so many bytes; found {found}; "
                "leave -m out or fit one"
            )
        found = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
        raise UsageError(
            f"the model {model.name} codes items {list(shape)} (C,H,W); found {found}; leave -m out or fit one"
        )
    started = time.monotonic()
    if particles > 1:
        particles = _worthwhile(particles, model, arrays, say)
    with atomic_file(out, overwrite) as f:
        tally = write_archive(
            f,
            arrays,
            {"collections": notes},
            model,
            verify=verify,
            particles=particles,
            threads=threads,
            progress=progress,
        )
        bytes_out = f.tell()
        _require_readable(f)
    return compress_record(tally, bytes_out, model, time.monotonic() - started) | {"particles": particles}


def _worthwhile(
    particles: int, model: CodingModel | None, arrays: dict[str, NDArray[Any]], say: Callable[[str], None]
) -> int:
    """``particles``, or 1 where they gain nothing."""
    if model is None:
        say(f"--particles {particles} gains nothing without a model: one is used")
        return 1
    if model.integers.is_sequence:
        say(
            f"--particles {particles} needs latents that are numbers, those of {model.name} are categories: one is used"
        )
        return 1
    array = max((a for a in arrays.values() if model.fits(a)), key=len)
    one, many = particle_gain(model, array, particles)
    if not one:
        say(f"--particles {particles} gains nothing: {model.name} does not know all values of a sample; one is used")
        return 1
    if many > one * (1 - LEAST_GAIN):
        say(
            f"--particles {particles} gains nothing with {model.name} ({one:.4f} bits/dim, {many:.4f} with them): one is used"
        )
        return 1
    return particles


def particle_gain(model: CodingModel, array: NDArray[Any], particles: int) -> tuple[float, float]:
    """Bits per dimension that a sample of ``array`` takes with one particle and with so many; both 0 where the
    model does not know the sample's values."""
    levels = _sample_levels(model, array)
    if levels is None:
        return 0.0, 0.0
    one, many = (coded_bits(model.integers, levels, particles=k) / levels[0].numel() for k in (1, particles))
    return one, many


def _sample_levels(model: CodingModel, array: NDArray[Any]) -> torch.Tensor | None:
    """A few items of ``array`` as the model's levels; None where it does not know their values."""
    layout = model.layout_of(array)
    assert layout is not None
    most = max(LEAST_SAMPLE, min(SAMPLE_ITEMS, SAMPLE_VALUES // model.integers.config.dims))
    sample = array[:: max(1, len(array) // most)][:most]
    levels, known = items.apply_map(items.to_items(sample, layout), model.integers.config.levels, model.values)
    return torch.from_numpy(np.ascontiguousarray(levels)) if known.all() else None


def _require_readable(f: BinaryIO) -> None:
    """Read the directory just written as a reader would: what could not be restored is refused now."""
    f.flush()
    try:
        with Archive(f.name) as archive:
            restore.check_note(archive.note["collections"], [a.name for a in archive.arrays])
    except DamagedArchive as error:
        raise UsageError(f"these arrays or names cannot be stored: {str(error).partition(': ')[2] or error}") from error


def compress_record(tally: Tally, bytes_out: int, model: CodingModel | None, seconds: float) -> dict[str, Any]:
    used = model is not None and tally.model_items > 0
    overhead, (count, values) = dict(tally.overhead), tally.items_and_values()
    overhead["initial_bits"] = round((tally.model_bits - tally.model_bits_expected) / 8)
    overhead["coder_ends"] = round(tally.model_payload_bytes - tally.model_bits / 8)
    return {
        "items": count,
        "dims": values // count if count and values % count == 0 else None,
        "bytes_in": tally.bytes_in,
        "bytes_out": bytes_out,
        "bits_per_dim": 8 * bytes_out / values if values else None,
        "model": model.name if used and model else None,
        "model_sha256": model.sha256 if used and model else None,
        "model_bytes": model.file_bytes if used and model else 0,
        "expected_bits_per_dim": float(tally.model_bits_expected) / tally.model_dims if used else None,
        "model_items": tally.model_items,
        "classical_blocks": tally.fallback_blocks,
        "overhead_bytes": overhead,
        "seconds": seconds,
    }


def gather(collections: list[Collection]) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """All arrays under unique names, and a note per collection that says which are its own."""
    arrays: dict[str, NDArray[Any]] = {}
    notes: list[dict[str, Any]] = []
    for number, collection in enumerate(collections):
        if any(note["name"] == collection.note["name"] for note in notes):
            raise UsageError(
                f"two inputs would both be restored as {collection.note['name']}; compress them apart or rename one"
            )
        own = {}
        for name, array in collection.arrays.items():
            if np.dtype(array.dtype.str) != array.dtype:
                raise UsageError(
                    f"{collection.source}: array {name} has dtype {array.dtype}, expected plain numbers, "
                    "texts or times; store its parts as arrays of their own"
                )
            stored = name
            while stored in arrays:
                stored = f"{number}/{stored}"
            arrays[stored], own[stored] = array, name
        for name in (collection.note["name"], *collection.note.get("files", ())):
            if not restore.is_safe(name):
                raise UsageError(
                    f"{collection.source}: the name {name!r} could not be restored everywhere; "
                    "rename it to one without backslash and colon"
                )
        notes.append({**collection.note, "arrays": own})
    return arrays, notes


def model_for(archive: Archive, name: str | None) -> CodingModel | None:
    """The model that ``archive`` needs: the one named, else the released one with its hash, else None."""
    if archive.model is None:
        return None
    if name is not None:
        return open_model(name)
    candidates = sorted(released().items(), key=lambda pair: pair[0] != archive.model["name"])
    for stem, path in candidates:
        model = coding_model(load_model(path), stem)
        if model.sha256 == archive.model["sha256"]:
            return model
    raise ModelError(
        f"{archive.path}: needs the model {archive.model['name']} (sha256 {archive.model['sha256'][:16]}...), "
        "which is not among the released ones; pass its file with -m"
    )


def decompress(
    path: Path,
    folder: Path,
    model_name: str | None = None,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """Restore everything in ``folder``; nothing appears there before all of it is checked."""
    started = time.monotonic()
    with Archive(path) as archive:
        notes = archive.note.get("collections")
        if not isinstance(notes, list):
            notes = []
        restore.check_note(notes, [a.name for a in archive.arrays])
        goals = restore.targets(notes, folder, overwrite)
        model = model_for(archive, model_name)
        with restore.staging(folder) as stage:
            arrays = _read(archive, model, threads, lockstep, progress)
            staged = [restore.write_collection(note, arrays, stage) for note in notes]
            for temporary, goal in zip(staged, goals):
                restore.move_into_place(temporary, goal)
        return {**_summary(archive), "restored": [str(goal) for goal in goals], "seconds": time.monotonic() - started}


def test(
    path: Path,
    model_name: str | None = None,
    *,
    threads: int | None = None,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """Decode and check everything, write nothing."""
    started = time.monotonic()
    with Archive(path) as archive:
        notes = archive.note.get("collections", [])
        restore.check_note(notes, [a.name for a in archive.arrays])
        arrays = _read(archive, model_for(archive, model_name), threads, lockstep, progress)
        for note in notes:
            if note["kind"] == "folder":
                restore.check_folder(note, arrays[next(iter(note["arrays"]))])
            elif note["kind"] in restore.KINDS_OF_BYTES:
                restore.check_files(note, arrays)
        return {**_summary(archive), "ok": True, "seconds": time.monotonic() - started}


def _read(
    archive: Archive, model: CodingModel | None, threads: int | None, lockstep: int | None, progress: Progress
) -> dict[str, NDArray[Any]]:
    return archive.read(model, threads=threads, lockstep=lockstep, progress=progress)


def _summary(archive: Archive) -> dict[str, Any]:
    return {
        "archive": str(archive.path),
        "items": sum(a.rows for a in archive.arrays),
        "bytes_in": archive.path.stat().st_size,
        "bytes_out": sum(a.nbytes for a in archive.arrays),
        "model": archive.model["name"] if archive.model else None,
    }
