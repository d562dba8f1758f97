"""What compress and add have in common: collections become arrays of an archive, and what is said of them."""

from collections.abc import Callable, Sequence
from collections.abc import Collection as Names
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from numpy.typing import NDArray

from vaedensity import items
from vaedensity.api.choose import is_released
from vaedensity.archive.engine import Encoder
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.tally import Tally
from vaedensity.coding.engine import CodingModel
from vaedensity.data.collection import Collection
from vaedensity.data.restore_metadata import check_restore_metadata, is_safe
from vaedensity.data.tree_meta import FILE, IMAGE, WITH_EXTRAS, renamed, suffix_of
from vaedensity.errors import DamagedArchive, UsageError

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What was coded, and what by.

    ``bytes_in``: of files on disk, or of arrays, as ``bytes_in_from`` says; ``bytes_raw``: of all arrays;
    ``bytes_out``: of the archive; ``files_of_same_pixels``: how many of the ``files`` come back with the same pixels
    and metadata, not the same bytes; ``model``: None where no item is coded by one; ``model_inside``: whether the
    archive holds it; ``model_released``: whether it comes with the package.
    """

    items: int
    bytes_in: int
    bytes_in_from: str
    bytes_raw: int
    bytes_out: int
    files: int
    files_of_same_pixels: int
    model: str | None
    model_sha256: str | None
    model_inside: bool
    model_released: bool | None
    model_items: int
    fallback_blocks: int
    seconds: float


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


def cut_bytes(collection: Collection, model: Encoder | None) -> Collection:
    """The bytes of a file or a tree as pieces of the length that a sequence ``model`` knows, and the rest."""
    meta, arrays = collection.meta, collection.arrays
    name = "bytes"
    if model is None or not model.is_series or name not in arrays or meta["kind"] not in ("file", "tree"):
        return collection
    whole, rest = items.pieces(arrays[name], model.item_shape[2])
    parts = {part: array for part, array in (("pieces", whole), ("rest", rest)) if array.size} or {"rest": rest}
    others = {key: array for key, array in arrays.items() if key != name}
    return replace(collection, arrays=parts | others, meta=meta | ({"bytes": [*parts]} if "bytes" in meta else {}))


def gather(
    collections: list[Collection], taken: Names[str] = (), before: Sequence[dict[str, Any]] = ()
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """All arrays under unique names, none of which is ``taken``, and restore metadata that say whose they are.

    ``before``: restore metadata of what the archive holds already.
    """
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
        if not is_safe(name := collection.meta["name"]):
            raise UsageError(f"{collection.source}: the name {name!a} can name no file in a folder; rename it")
        meta = {**collection.meta, "arrays": own}
        if meta["kind"] == "tree":
            meta = renamed(meta, {name: stored for stored, name in own.items()})
        metas.append(meta)
    return arrays, metas


def coded(written: Written, seconds: float) -> dict[str, Any]:
    """The fields of :class:`Coded`."""
    tally = written.tally
    model = written.model if tally.model_items > 0 else None
    on_disk = [collection.disk_bytes for collection in written.collections]
    raw = [sum(a.nbytes for a in collection.arrays.values()) for collection in written.collections]
    return {
        "items": tally.items_and_values()[0],
        "bytes_in": sum(own if size is None else size for size, own in zip(on_disk, raw)),
        "bytes_in_from": "arrays" if set(on_disk) == {None} else "files" if None not in on_disk else "files and arrays",
        "bytes_raw": tally.bytes_in,
        "bytes_out": written.size,
        **files_of(written.collections),
        "model": model.name if model else None,
        "model_sha256": model.sha256 if model else None,
        "model_inside": "model" in tally.overhead,
        "model_released": is_released(model) if model else None,
        "model_items": tally.model_items,
        "fallback_blocks": tally.fallback_blocks,
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


def require_readable(f: BinaryIO) -> None:
    """Read the header and the index just written as a reader would: what could not be restored is rejected now."""
    f.flush()
    try:
        with ArchiveFile(f.name) as archive:
            check_restore_metadata(archive.restore, [a.name for a in archive.contents])
    except DamagedArchive as error:
        raise UsageError(f"these arrays or names cannot be stored: {str(error).partition(': ')[2] or error}") from error
