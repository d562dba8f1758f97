"""Restore some items of an archive, reading only their blocks."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.some_items import restore_items
from vaedensity.numpy_decoder.archive import checked_metadata, find_model, network_of, opened
from vaedensity.numpy_decoder.blocks import decode_rows
from vaedensity.numpy_decoder.chains import AnyNetwork
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.probe import require_same
from vaedensity.numpy_decoder.record import Entry

ApproveArray = Callable[[Directory, Entry], None]


def decompress_items(
    path: Path,
    folder: Path,
    wanted: Sequence[str],
    ranges: Sequence[str] = (),
    model_name: str | None = None,
    *,
    overwrite: bool = False,
    approve: ApproveArray = lambda directory, array: None,
) -> dict[str, Any]:
    """Restore some items of an archive of one array or one folder, as :func:`~vaedensity.data.some_items.restore_items`.
    ``approve``: raises where a block of an array would take too much memory."""
    with opened(path) as file:
        directory = Directory(file, path)
        items = _Items(directory, model_name, approve)
        return restore_items(items, checked_metadata(directory), folder, wanted, ranges, overwrite=overwrite)


class _Items:
    def __init__(self, directory: Directory, model_name: str | None, approve: ApproveArray):
        self.directory, self.path, self.model_name, self.approve = directory, directory.path, model_name, approve

    @cached_property
    def arrays(self) -> Mapping[str, Entry]:
        return {array.name: array for array in self.directory.restored}

    @cached_property
    def network(self) -> AnyNetwork | None:
        network = network_of(find_model(self.directory, self.model_name))
        require_same(self.directory, network)
        return network

    def take(self, name: str, places: Sequence[int]) -> NDArray[Any]:
        array = self.arrays[name]
        out = np.ndarray((len(places), *array.shape[1:]), array.dtype)

        def block_of(k: int) -> int:
            return bisect_right(array.blocks, places[k], key=lambda block: block.first) - 1

        for number, own in groupby(sorted(range(len(places)), key=lambda k: places[k]), block_of):
            if number >= 0:  # else there are no blocks, as items have no values
                block = array.blocks[number]
                items = self.rows(name, block.first, block.first + block.items)
                for k in own:
                    out[k] = items[places[k] - block.first]
        return out

    def rows(self, name: str, first: int, end: int) -> NDArray[Any]:
        self.approve(self.directory, self.arrays[name])
        return decode_rows(self.directory, self.arrays[name], first, end, self.network)
