"""From the blocks of an array to its items (sections 6 and 9; section 16, steps 8 to 11)."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import DamagedArchive, UsageError, VaedensityError
from vaedensity.numpy_decoder.chains import AnyNetwork, Chain, Groups, Progress, decode_group, get_plan, require_stack
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.lost import Losses, require_checksum, require_none_lost
from vaedensity.numpy_decoder.record import FIRST_MODEL_CODER, LOST, Block, Entry
from vaedensity.numpy_decoder.streams import decode_fallback


def decode_array(
    directory: Directory,
    array: Entry,
    network: AnyNetwork | None,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
    losses: Losses | None = None,
) -> NDArray[Any]:
    """An array, each of its blocks checked. Raises DamagedArchive, or VaedensityError where memory lacks. ``network``:
    needed where a block is the model's; ``losses``: takes damaged blocks, whose items are zeros then."""
    target = _room(directory, array, array.shape)
    losses = losses or Losses(allowed=False)
    before = len(losses.found)
    if array.nbytes:
        _fill(directory, array, array.blocks, target, network, losses, lockstep, progress)
    losses.found[before:] = sorted(losses.found[before:], key=lambda one: one.first)  # chains come later than others
    return target


def decode_rows(
    directory: Directory, array: Entry, begin: int, end: int, network: AnyNetwork | None = None
) -> NDArray[Any]:
    """Items ``begin`` .. ``end`` - 1 of an array that has an axis; of the file, only their blocks are read. Raises as
    ``decode_array``."""
    if not 0 <= begin <= end <= array.rows:
        raise UsageError(f"{directory.path}: items {begin} to {end} of {array.name}, expected 0 to {array.rows}")
    if begin == end or not array.blocks:
        return _room(directory, array, (end - begin, *array.shape[1:]))
    low, high = (bisect_left(array.blocks, at, key=lambda block: block.first) for at in (begin + 1, end))
    used = array.blocks[low - 1 : high]
    require_none_lost(directory, used)
    first, last = used[0].first, used[-1].first + used[-1].items
    target = _room(directory, array, (last - first, *array.shape[1:]))
    _fill(directory, array, used, target, network, Losses(allowed=False))
    return target[begin - first : end - first]


def _room(directory: Directory, array: Entry, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.ndarray(shape, array.dtype)  # np.empty would change types as |S0 and >M8
    except (MemoryError, ValueError) as error:
        size = array.row_bytes * (shape[0] if shape else 1)
        raise VaedensityError(f"{directory.path}: array {array.name} needs {size} bytes, more than there is") from error


def _fill(
    directory: Directory,
    array: Entry,
    blocks: Sequence[Block],
    target: NDArray[Any],
    network: AnyNetwork | None,
    losses: Losses,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
) -> None:
    """Decode ``blocks``, neighbours in ``array``, into ``target``, which has room for just their items."""
    if any(block.coder >= FIRST_MODEL_CODER for block in blocks):
        assert network is not None  # the record names a model where a block has such a coder
        model = network.model
        if array.item_shape != model.item_shape or (array.layout == "NT") != model.is_series:
            raise DamagedArchive(f"{directory.path}: array {array.name} has another item shape than its model")
    origin = blocks[0].first
    flat = target.reshape(len(target) if array.shape else 1, -1).view(np.uint8)
    groups: Groups = {}
    for block in blocks:
        place = flat[block.first - origin :][: block.items]
        try:
            if chain := _decoded_or_opened(directory, array, block, place, network):
                groups.setdefault((block.coder, chain.plan), []).append(chain)
                continue
        except DamagedArchive as error:
            losses.take(directory, array, block, place, error)
        progress(block.items)
    for group in groups.values():
        assert network is not None
        for block, items in decode_group(directory, array, network, group, lockstep, progress):
            place = flat[block.first - origin :][: block.items]
            if isinstance(items, DamagedArchive):
                losses.take(directory, array, block, place, items)
            else:
                place[:] = items


def _decoded_or_opened(
    directory: Directory, array: Entry, block: Block, place: NDArray[np.uint8], network: AnyNetwork | None
) -> Chain | None:
    """The items of a fallback block into their ``place``, and None; of a block of the model's, the chain to decode."""
    if block.coder == LOST:
        raise DamagedArchive(
            f"{directory.path}: block {block.index} of {len(directory.blocks)} was lost before the archive was repaired; "
            "keep going to restore the others"
        )
    payload, checksum = directory.payload(block)
    try:
        if block.coder >= FIRST_MODEL_CODER:
            assert network is not None
            plan, words = get_plan(payload, block)
            require_stack(words, block, network)
            return Chain(block, plan, words, checksum)
        raw = decode_fallback(block.coder, payload, place.size, array.dtype.itemsize)
    except ValueError as error:
        raise DamagedArchive(f"{directory.path}: block {block.index} does not decode ({error})") from error
    place[:] = np.frombuffer(raw, np.uint8).reshape(place.shape)
    require_checksum(directory, block, place, checksum)
    return None
