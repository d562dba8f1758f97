"""Restore some items of an archive, reading only their blocks."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vaedensity.api.archive import Archive
from vaedensity.api.decompress import checked_metadata
from vaedensity.api.models import model_for
from vaedensity.archive.decoding import read_rows
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import Archive as ArchiveFile
from vaedensity.archive.stored_array import StoredArray
from vaedensity.coding.quantise import CodingModel
from vaedensity.data.some_items import restore_items


def decompress_items(
    path: Path,
    folder: Path,
    wanted: Sequence[str],
    ranges: Sequence[str] = (),
    model_name: str | None = None,
    *,
    overwrite: bool = False,
    limits: Limits = Limits(),
) -> dict[str, Any]:
    """Restore some items of an archive of one array or one folder, as :func:`~vaedensity.data.some_items.restore_items`."""
    with ArchiveFile(path) as archive:
        metas = checked_metadata(archive)
        return restore_items(_Items(archive, model_name, limits), metas, folder, wanted, ranges, overwrite=overwrite)


class _Items:
    def __init__(self, archive: ArchiveFile, model_name: str | None, limits: Limits):
        self.archive, self.path, self.model_name, self.limits = archive, archive.path, model_name, limits

    @cached_property
    def arrays(self) -> Mapping[str, StoredArray]:
        return {array.name: array for array in self.archive.contents}

    @cached_property
    def model(self) -> CodingModel | None:
        return model_for(self.archive, self.model_name)

    def take(self, name: str, places: Sequence[int]) -> NDArray[Any]:
        self.limits.check_memory(self.archive, [self.arrays[name]])
        with Archive(self.path, name, model=self.model_name) as items:
            return items.take(places)

    def rows(self, name: str, first: int, end: int) -> NDArray[Any]:
        self.limits.check_memory(self.archive, [self.arrays[name]])
        return read_rows(self.archive, name, first, end, self.model)
