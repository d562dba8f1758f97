"""Compress collections into an archive."""

import time
from collections.abc import Callable, Sequence
from collections.abc import Collection as Names
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.atomic import atomic_file, refuse_existing
from vaedensity.coding import classical
from vaedensity.coding.archive import Tally, write_archive
from vaedensity.coding.block import MOST_PARTICLES
from vaedensity.coding.lowering import CodingModel
from vaedensity.coding.reader import Archive
from vaedensity.data import restore
from vaedensity.data.collection import Collection
from vaedensity.data.tree import Tree
from vaedensity.data.tree_note import renamed
from vaedensity.errors import DamagedArchive, UsageError
from vaedensity.model.checkpoint import load_model, slim_model
from vaedensity.model.released import resolve
from vaedensity.tasks.models import worthwhile

Progress = Callable[[int], None]
SAMPLE_BYTES = 1 << 20
KINDS_WITH_BYTES = (*restore.KINDS_OF_BYTES, "tree")


def settle(sources: Sequence[Collection | Tree], model: CodingModel | None) -> list[Collection]:
    """Collections to be packed: of folders, images go as pixels where ``model`` fits them or where that is smaller than their
    files."""

    def as_pixels(tree: Tree, key: tuple[str, int, int], images: NDArray[np.uint8]) -> bool:
        if model is not None and model.fits(images):
            return True
        sample = images[: max(1, SAMPLE_BYTES // images[0].size)]
        return len(classical.encode(sample.tobytes())[1]) * len(images) < tree.group_bytes(key) * len(sample)

    return [
        source.collection(lambda key, images, tree=source: as_pixels(tree, key, images))  # type: ignore[misc]
        if isinstance(source, Tree)
        else source
        for source in sources
    ]


def cut_bytes(collection: Collection, model: CodingModel | None) -> Collection:
    """A file's bytes, or those of files, as pieces of the length that a sequence ``model`` knows and what is left over."""
    note, arrays = collection.note, collection.arrays
    name = "bytes"
    if model is None or not model.integers.is_sequence or name not in arrays or note["kind"] not in KINDS_WITH_BYTES:
        return collection
    whole, rest = items.pieces(arrays[name], model.integers.config.dims)
    parts = {part: array for part, array in (("pieces", whole), ("rest", rest)) if array.size} or {"rest": rest}
    others = {key: array for key, array in arrays.items() if key != name}
    return replace(collection, arrays=parts | others, note=note | ({"bytes": [*parts]} if "bytes" in note else {}))


def compress(
    collections: list[Collection],
    out: Path,
    model: CodingModel | None,
    *,
    overwrite: bool = False,
    verify: bool = True,
    particles: int = 1,
    embed: str | Path | None = None,
    threads: int | None = None,
    progress: Progress = lambda n: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write ``collections`` to the archive ``out``; returns the record of `compress --json`.

    ``embed``: file or released name of ``model``, where it is to be stored in the archive. More than one of ``particles`` (at most 256) costs that many times the time and gains what
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
        particles = worthwhile(particles, model, arrays, say)
    with atomic_file(out, overwrite) as f:
        tally = write_archive(
            f,
            arrays,
            {"collections": notes},
            model,
            verify=verify,
            particles=particles,
            inside=None if embed is None else slim_model(load_model(resolve(str(embed)))),
            threads=threads,
            progress=progress,
        )
        for collection in collections:
            collection.require_unchanged()
        bytes_out = f.tell()
        require_readable(f)
    return compress_record(tally, bytes_out, model, time.monotonic() - started) | {"particles": particles}


def require_readable(f: BinaryIO) -> None:
    """Read the directory just written as a reader would: what could not be restored is refused now."""
    f.flush()
    try:
        with Archive(f.name) as archive:
            restore.check_note(archive.note["collections"], [a.name for a in archive.contents])
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


def gather(
    collections: list[Collection], taken: Names[str] = (), before: Sequence[dict[str, Any]] = ()
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """All arrays under unique names, none of which is ``taken``, and a note per collection that says which are its own. ``before``:
    notes of what the archive holds already."""
    arrays: dict[str, NDArray[Any]] = {}
    notes: list[dict[str, Any]] = []
    for number, collection in enumerate(collections, len(before)):
        if any(note["name"] == collection.note["name"] for note in (*before, *notes)):
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
            while stored in arrays or stored in taken:
                stored = f"{number}/{stored}"
            arrays[stored], own[stored] = array, name
        for name in (collection.note["name"], *collection.note.get("files", ())):
            if not restore.is_safe(name, anywhere=collection.note["kind"] != "tree"):
                raise UsageError(
                    f"{collection.source}: the name {name!r} could not be restored everywhere; "
                    "rename it to one without backslash and colon"
                )
        note = {**collection.note, "arrays": own}
        if note["kind"] == "tree":
            note = renamed(note, {name: stored for stored, name in own.items()})
        notes.append(note)
    return arrays, notes
