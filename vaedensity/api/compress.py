"""Compress collections into an archive."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Collection as Names
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from vaedensity import items
from vaedensity.api.models import is_released, worthwhile
from vaedensity.api.settle import larger_as_pixels
from vaedensity.archive.block import MOST_PARTICLES
from vaedensity.archive.reader import Archive
from vaedensity.archive.writer import Tally, write_archive
from vaedensity.coding.quantise import CodingModel
from vaedensity.data import restore
from vaedensity.data.atomic import atomic_file, refuse_existing
from vaedensity.data.collection import Collection
from vaedensity.data.tree_meta import FILE, IMAGE, WITH_EXTRAS, renamed, suffix_of
from vaedensity.errors import DamagedArchive, UsageError
from vaedensity.model.checkpoint import load_model, slim_model
from vaedensity.model.released import resolve

Progress = Callable[[int], None]
KINDS_WITH_BYTES = (*restore.KINDS_OF_BYTES, "tree")
# An archive of a model takes so many bytes at most to say so: of arrays this small it is written without, too.
SMALL_BYTES, SHARE_OF_MODEL = 1 << 20, 32


@dataclass(frozen=True)
class Written:
    """What an archive was made with, and what became of its bytes."""

    model: CodingModel | None
    particles: int
    size: int
    tally: Tally
    collections: list[Collection]
    tried_items: int  # that the model fits
    tried_bytes: int  # of the archive, had the model coded all of them


def cut_bytes(collection: Collection, model: CodingModel | None) -> Collection:
    """A file's bytes, or those of files, as pieces of the length that a sequence ``model`` knows and what is left over."""
    meta, arrays = collection.meta, collection.arrays
    name = "bytes"
    if model is None or not model.integers.is_sequence or name not in arrays or meta["kind"] not in KINDS_WITH_BYTES:
        return collection
    whole, rest = items.pieces(arrays[name], model.integers.config.dims)
    parts = {part: array for part, array in (("pieces", whole), ("rest", rest)) if array.size} or {"rest": rest}
    others = {key: array for key, array in arrays.items() if key != name}
    return replace(collection, arrays=parts | others, meta=meta | ({"bytes": [*parts]} if "bytes" in meta else {}))


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

    The smallest is kept of what is tried: with as many ``particles`` (at most 256, which cost that many times the time)
    and with one; small collections also without the model, whose name and hash take room.

    ``embed``: file or released name of ``model``, where it is to be stored in the archive, unless no block needs it.
    ``say`` hears where particles are not worth trying.
    """
    refuse_existing(out, overwrite)
    if not 1 <= particles <= MOST_PARTICLES:
        raise UsageError(f"{particles} particles: expected 1 to {MOST_PARTICLES}")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder; make it first")
    arrays, _ = gather([cut_bytes(collection, model) for collection in collections])
    if model is not None:
        require_fit(model, arrays)
    started = time.monotonic()
    if particles > 1:
        particles = worthwhile(particles, model, arrays, say)
    inside = None if embed is None else slim_model(load_model(resolve(str(embed))))

    def write(f: BinaryIO, model: CodingModel | None, particles: int, progress: Progress) -> Written:
        def attempt(collections: list[Collection]) -> tuple[Tally, list[dict[str, Any]]]:
            arrays, metas = gather([cut_bytes(collection, model) for collection in collections])
            meta = {"collections": metas}
            how = {"verify": verify, "particles": particles, "threads": threads, "progress": progress}
            return write_archive(f, arrays, meta, model, inside=inside, **how), metas  # type: ignore[arg-type]

        return settled(f, collections, model, particles, attempt)

    with atomic_file(out, overwrite) as f:
        tried = [write(f, model, particles, progress)]
        best = tried[0]
        for how in _others(best, sum(a.nbytes for a in arrays.values()), inside):
            with tempfile.SpooledTemporaryFile(1 << 24, dir=out.parent) as other:
                tried.append(write(other, *how, lambda n: None))  # type: ignore[arg-type]
                wished = embed is not None and best.tally.model_items > 0 and tried[-1].model is None
                if tried[-1].size < best.size and not wished:
                    best = tried[-1]
                    f.seek(0)
                    f.truncate()
                    other.seek(0)
                    shutil.copyfileobj(other, f, 1 << 20)
        if best.model is not None and best.particles < particles:
            say(f"{particles} particles make the archive larger: one is used")
        for collection in collections:
            collection.require_unchanged()
        require_readable(f)
    with_model = [one for one in tried if one.model is not None]
    without = [one.size for one in tried if one.model is None]
    return compress_record(best, time.monotonic() - started) | {
        "particles": best.particles,
        "model_tried": model.name if model is not None else None,
        "model_tried_items": tried[0].tried_items,
        "bytes_with_model": min((one.tried_bytes for one in with_model), default=None),
        "bytes_without_model": min(without, default=None),
    }


def _others(first: Written, raw_bytes: int, inside: bytes | None) -> Iterator[tuple[CodingModel | None, int]]:
    """Models and numbers of particles that may make less than ``first``."""
    if first.model is not None and first.particles > 1:
        yield first.model, 1
    small = raw_bytes <= max(SMALL_BYTES, SHARE_OF_MODEL * len(inside or b""))
    if first.model is not None and (small or not first.tally.model_items):
        yield None, 1


def settled(
    f: BinaryIO,
    collections: list[Collection],
    model: CodingModel | None,
    particles: int,
    attempt: Callable[[list[Collection]], tuple[Tally, list[dict[str, Any]]]],
) -> Written:
    """What ``attempt`` has written to ``f`` of ``collections``, of folders those images as files that are larger as pixels.

    ``attempt`` writes a whole archive and returns restore metadata of each collection."""
    first: tuple[int, int] | None = None
    while True:
        f.seek(0)
        f.truncate()
        tally, metas = attempt(collections)
        first = first or (tally.fitting_items, f.tell() + tally.declined_bytes)
        better = smaller(collections, metas, tally.stored)
        if better is None:
            return Written(model, particles, f.tell(), tally, collections, *first)
        collections = better


def smaller(
    collections: list[Collection], metas: list[dict[str, Any]], stored: dict[str, int]
) -> list[Collection] | None:
    """``collections`` with those images as files that are larger as pixels, None where there are none. ``metas`` are of the
    archive, ``stored`` the bytes that each of its arrays takes."""
    refused = [
        larger_as_pixels(collection, {own: stored[name] for name, own in meta["arrays"].items()})
        for collection, meta in zip(collections, metas)  # arrays put behind others have no metas
    ]
    if not any(refused):
        return None
    return [c.retake(names) if names and c.retake else c for c, names in zip(collections, refused)]


def require_fit(model: CodingModel, arrays: dict[str, NDArray[Any]]) -> None:
    """Raise UsageError where no array holds items of ``model``."""
    if any(model.fits(array) for array in arrays.values()):
        return
    shape = model.integers.config.item_shape
    wanted = f"items {list(shape)} (C,H,W)"
    if model.integers.is_sequence:
        wanted = f"series of {shape[2]} values, or at least so many bytes"
    found = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
    raise UsageError(f"the model {model.name} codes {wanted}; found {found}; use no model, or fit one to them")


def require_readable(f: BinaryIO) -> None:
    """Read the directory just written as a reader would: what could not be restored is refused now."""
    f.flush()
    try:
        with Archive(f.name) as archive:
            restore.check_restore_metadata(archive.meta["collections"], [a.name for a in archive.contents])
    except DamagedArchive as error:
        raise UsageError(f"these arrays or names cannot be stored: {str(error).partition(': ')[2] or error}") from error


def compress_record(written: Written, seconds: float) -> dict[str, Any]:
    """What `compress --json` and `add --json` have in common."""
    tally = written.tally
    model = written.model if tally.model_items > 0 else None
    overhead, (count, values) = dict(tally.overhead), tally.items_and_values()
    overhead["initial_bits"] = round((tally.model_bits - tally.model_bits_expected) / 8)
    overhead["coder_ends"] = round(tally.model_payload_bytes - tally.model_bits / 8)
    mostly_other = any(image for _, _, image in tally.arrays) and values < tally.bytes_in / 2  # of a byte each
    on_disk = [collection.disk_bytes for collection in written.collections]
    raw = [sum(a.nbytes for a in collection.arrays.values()) for collection in written.collections]
    return {
        "items": count,
        "dims": values // count if count and values % count == 0 else None,
        "bytes_in": sum(own if size is None else size for size, own in zip(on_disk, raw)),
        "bytes_in_from": "arrays" if set(on_disk) == {None} else "files" if None not in on_disk else "files and arrays",
        "bytes_raw": tally.bytes_in,
        "bytes_out": written.size,
        "bits_per_dim": 8 * written.size / values if values and not mostly_other else None,
        **files_of(written.collections),
        "model": model.name if model else None,
        "model_sha256": model.sha256 if model else None,
        "model_bytes": model.file_bytes if model else 0,
        "model_inside": "model" in overhead,
        "model_released": is_released(model) if model else None,
        "expected_bits_per_dim": float(tally.model_bits_expected) / tally.model_dims if model else None,
        "model_items": tally.model_items,
        "fallback_blocks": tally.fallback_blocks,
        "overhead_bytes": overhead,
        "seconds": seconds,
    }


def files_of(collections: list[Collection]) -> dict[str, int]:
    """How many files the folders hold, and of how many not the bytes but the pixels and the metadata come back."""
    files = pixels = 0
    for meta in (collection.meta for collection in collections if collection.meta["kind"] == "tree"):
        files += meta["types"].count(FILE) + meta["types"].count(IMAGE)
        pixels += sum(
            kind == IMAGE and suffix_of(name) in WITH_EXTRAS for name, kind in zip(meta["entries"], meta["types"])
        )
    return {"files": files, "files_of_same_pixels": pixels}


def gather(
    collections: list[Collection], taken: Names[str] = (), before: Sequence[dict[str, Any]] = ()
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """All arrays under unique names, none of which is ``taken``, and restore metadata per collection that says which are its own. ``before``:
    metas of what the archive holds already."""
    arrays: dict[str, NDArray[Any]] = {}
    metas: list[dict[str, Any]] = []
    for number, collection in enumerate(collections, len(before)):
        if any(meta["name"] == collection.meta["name"] for meta in (*before, *metas)):
            raise UsageError(
                f"two inputs would both be restored as {collection.meta['name']}; compress them apart or rename one"
            )
        own = {}
        for name, array in collection.arrays.items():
            if reason := items.why_not_stored(array):
                raise UsageError(f"{collection.source}: cannot store the array {name}: {reason}")
            stored = name
            while stored in arrays or stored in taken:
                stored = f"{number}/{stored}"
            arrays[stored], own[stored] = array, name
        for name in (collection.meta["name"], *collection.meta.get("files", ())):
            if not restore.is_safe(name):
                raise UsageError(f"{collection.source}: the name {name!a} can name no file in a folder; rename it")
        meta = {**collection.meta, "arrays": own}
        if meta["kind"] == "tree":
            meta = renamed(meta, {name: stored for stored, name in own.items()})
        metas.append(meta)
    return arrays, metas
