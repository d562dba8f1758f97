"""What an archive restores, as rows of a listing: names, items, shapes, types and sizes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vaedensity.data.tree_meta import FOLDER, LINK, Described, check_tree, members

Row = dict[str, Any]


def rows_of(meta: dict[str, Any], arrays: Mapping[str, Described]) -> Iterator[Row]:
    """A row for what a checked ``meta`` restores, and one for each of its members. ``arrays``: by stored name.

    A row has ``name``; ``of``, what it is a member of; ``items``; ``shape`` and ``dtype`` of an item; and ``bytes``,
    decoded (of an image its pixels). What does not apply is None. Raises DamagedArchive.
    """
    kind, name, own = meta["kind"], str(meta["name"]), [arrays[stored] for stored in meta["arrays"]]
    if kind == "npy":
        yield _row(name, None, own[0])
        return
    total = sum(_nbytes(array) for array in own)
    if kind == "npz":
        yield _bare(name, None, sum(array.shape[0] if array.shape else 1 for array in own), total)
        for original, array in zip(meta["arrays"].values(), own):
            yield _row(str(original), name, array)
    elif kind == "file":
        yield _bare(name, None, 1, total)
    else:
        yield from _tree_rows(meta, arrays)


def _tree_rows(meta: dict[str, Any], arrays: Mapping[str, Described]) -> Iterator[Row]:
    check_tree(meta, arrays)
    name, links = str(meta["name"]), iter(meta["links"])
    groups, files = [arrays[group["array"]] for group in meta["images"]], {one.place: one for one in members(meta)}
    yield _bare(f"{name}/", None, len(files), sum(_nbytes(array) for array in groups) + sum(meta["sizes"]))
    for place, (entry, kind) in enumerate(zip(meta["entries"], meta["types"])):
        if kind == FOLDER:
            yield _bare(f"{entry}/", name, None, None)
        elif kind == LINK:
            yield _bare(f"{entry} -> {next(links)}", name, None, None)
        elif (group := files[place].group) is not None:
            yield _item(entry, name, groups[group])
        else:
            yield _bare(entry, name, None, files[place].size)


def _row(name: str, of: str | None, array: Described) -> Row:
    """A whole array."""
    rows = array.shape[0] if array.shape else 1
    return _bare(name, of, rows, _nbytes(array)) | {"shape": list(array.shape[1:]), "dtype": str(array.dtype)}


def _item(name: str, of: str, array: Described) -> Row:
    """One item of an array of images."""
    size = _nbytes(array) // max(1, sum(array.shape[:1]))
    return _bare(name, of, None, size) | {"shape": list(array.shape[1:]), "dtype": str(array.dtype)}


def _bare(name: str, of: str | None, items: int | None, size: int | None) -> Row:
    return {"name": name, "of": of, "items": items, "shape": None, "dtype": None, "bytes": size}


def _nbytes(array: Described) -> int:
    return math.prod(array.shape) * int(array.dtype.itemsize)
