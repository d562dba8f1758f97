"""Which images of a folder go as pixels and which as the bytes of their files: those that take less room."""

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.archive import fallback
from vaedensity.archive.engine import Encoder
from vaedensity.archive.model_blocks import fits
from vaedensity.data.collection import Collection
from vaedensity.data.tree import Key, Tree

SAMPLE_BYTES, PIECES = 1 << 18, 4
GROUP_BYTES = 150  # what an archive says of one more array, in its record and its index


def settle(sources: Sequence[Collection | Tree], model: Encoder | None) -> list[Collection]:
    """Collections to be packed. Of folders, images go as pixels where ``model`` fits them or that is smaller by
    estimate; when they are coded, :func:`larger_as_pixels` tells where it was not."""
    return [_settled(source, model) if isinstance(source, Tree) else source for source in sources]


def larger_as_pixels(collection: Collection, stored: dict[str, int]) -> set[str]:
    """The arrays of images of ``collection`` that take more room than the files would. ``stored``: bytes of arrays."""
    return {name for name, room in collection.room.items() if stored[name] + GROUP_BYTES > room}


def smaller(
    collections: list[Collection], metas: list[dict[str, Any]], stored: dict[str, int]
) -> list[Collection] | None:
    """``collections`` with those images as files that are larger as pixels, None where there are none.

    ``metas`` are of the archive, ``stored`` the bytes that each of its arrays takes.
    """
    refused = [
        larger_as_pixels(collection, {own: stored[name] for name, own in meta["arrays"].items()})
        for collection, meta in zip(collections, metas)  # arrays put behind others have no metas
    ]
    if not any(refused):
        return None
    return [c.retake(names) if names and c.retake else c for c, names in zip(collections, refused)]


def _settled(tree: Tree, model: Encoder | None) -> Collection:
    room = {key: _files_take(tree, key) - tree.extras_bytes(key) for key in tree.groups}
    chosen = {
        key
        for key, images in tree.groups.items()
        if (model is not None and fits(model, images))
        or images.size * _coded_share(images.reshape(-1)) + GROUP_BYTES < room[key]
    }
    return _taken(tree, chosen, room)


def _taken(tree: Tree, chosen: Set[Key], room: dict[Key, int]) -> Collection:
    collection = tree.collection(lambda key, images: key in chosen)
    keys = {tree.array_name(key): key for key in chosen}
    return replace(
        collection,
        room={name: room[key] for name, key in keys.items()},
        retake=lambda refused: _taken(tree, chosen - {keys[name] for name in refused}, room),
    )


def _files_take(tree: Tree, key: Key) -> int:
    """Bytes of the files of a group as they would be stored: exact where they are few, never more than they have."""
    size, sample = tree.group_bytes(key), tree.some_bytes(key, SAMPLE_BYTES)
    return min(size, round(size * _coded_share(np.frombuffer(sample, np.uint8))))


def _coded_share(values: NDArray[np.uint8]) -> float:
    """Bytes that a fallback codec makes of a byte of ``values``, of which it sees pieces, or all where they are few."""
    piece = SAMPLE_BYTES // PIECES
    if values.size > SAMPLE_BYTES:
        begins = np.linspace(0, values.size - piece, PIECES).astype(int)
        values = np.concatenate([values[begin : begin + piece] for begin in begins])
    return len(fallback.encode(values.tobytes())[1]) / values.size
