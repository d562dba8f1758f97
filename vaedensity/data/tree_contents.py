"""What the files of a tree hold, one after the other, out of its arrays."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaedensity.data import image_metadata
from vaedensity.data.pool import Pool, Ranges
from vaedensity.data.tree_meta import FILE, IMAGE, image_extras, image_groups, suffix_of
from vaedensity.errors import DamagedArchive


class Image(NamedTuple):
    """``array[item]`` are its pixels, ``extras`` its metadata."""

    array: Any
    item: int
    mode: str
    extras: bytes

    def pixels(self) -> NDArray[np.uint8]:
        """(H,W) or (H,W,3)."""
        item: NDArray[np.uint8] = np.asarray(self.array[self.item : self.item + 1])[0]
        return item


Pieces = Iterator[NDArray[np.uint8]]


def contents(
    meta: dict[str, Any], arrays: Mapping[str, Any], lost: Mapping[str, Ranges]
) -> Iterator[tuple[int, str, Pieces | Image | None]]:
    """(position in ``entries``, name, content) of every file of restore metadata that fits ``arrays``; None is one that needs
    lost items. What is yielded is to be used before the next. ``lost`` as in
    :func:`~vaedensity.data.tree_write.write_tree`."""
    pool = Pool(
        [arrays[name] for name in meta["bytes"]], {k: lost.get(name, ()) for k, name in enumerate(meta["bytes"])}
    )
    groups = [(arrays[group["array"]], group["mode"], lost.get(group["array"], ())) for group in meta["images"]]
    gone = [_marks(len(array), ranges) for array, _, ranges in groups]
    used = [0] * len(groups)
    sizes, extras, owners = iter(meta["sizes"]), iter(image_extras(meta)), iter(image_groups(meta))
    for number, (name, kind) in enumerate(zip(meta["entries"], meta["types"])):
        if kind == FILE:
            yield number, name, pool.take(next(sizes))
        elif kind == IMAGE:
            k, pieces = next(owners), pool.take(next(extras))
            array, mode, _ = groups[k]
            item = used[k]
            used[k] += 1
            if pieces is None or gone[k][item]:
                yield number, name, None
            else:
                yield number, name, Image(array, item, mode, b"".join(piece.tobytes() for piece in pieces))


def check_metadata(meta: dict[str, Any], arrays: Mapping[str, Any], lost: Mapping[str, Ranges] | None = None) -> None:
    """Raise DamagedArchive unless the metadata of all images are what their formats have. ``meta`` fits ``arrays``."""
    if not any(image_extras(meta)):
        return
    for _, name, content in contents(meta, arrays, lost or {}):
        if isinstance(content, Image):
            try:
                image_metadata.check(content.extras, suffix_of(name))
            except ValueError as error:
                raise DamagedArchive(f"the archive's metadata of {name!a} make no sense ({error})") from error


def _marks(count: int, ranges: Ranges) -> bytearray:
    """1 for each of ``count`` items that is in one of ``ranges``."""
    marks = bytearray(count)
    for begin, end in ranges:
        begin, end = max(0, begin), min(end, count)
        marks[begin:end] = b"\1" * max(0, end - begin)
    return marks
