"""Blocks of the model's, several in lockstep (section 9; section 16, steps 10 and 11)."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import DamagedArchive
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.images import ImageCoder
from vaedensity.numpy_decoder.layout import FRAMED
from vaedensity.numpy_decoder.lost import disagreement, require_checksum
from vaedensity.numpy_decoder.network import Network
from vaedensity.numpy_decoder.record import COUPLED, Block, Entry
from vaedensity.numpy_decoder.series import SeriesCoder, SeriesNetwork
from vaedensity.numpy_decoder.stacks import Stacks, require_words
from vaedensity.numpy_decoder.varints import get_varint

Progress = Callable[[int], None]
AnyNetwork = Network | SeriesNetwork
Plan = tuple[frozenset[int], frozenset[int]]
"""Items of a chain that are direct, and those of a coupled coder that are bits-back."""
CHAINS, VALUES = 64, 1 << 18  # most chains in lockstep, and values of all their items


class Chain(NamedTuple):
    """A block of the model's, how its items are coded, its coder words, and the CRC-32 that its items must have, if
    known."""

    block: Block
    plan: Plan
    words: bytes
    checksum: int | None


Groups = dict[tuple[int, Plan], list[Chain]]
"""By coder and plan: those of a group can go in lockstep."""
Decoded = tuple[Block, NDArray[np.uint8] | DamagedArchive]
"""A block with the bytes of its items, (items, bytes of one), or with what is wrong with it."""


def get_plan(payload: bytes, block: Block) -> tuple[Plan, bytes]:
    """(how each item of a block is coded, coder words). Raises ValueError."""
    lists: list[frozenset[int]] = []
    at = 0
    for _ in range(2 if block.coder in COUPLED else 1):
        count, at = get_varint(payload, at)
        own: set[int] = set()
        end = 0
        for _ in range(count):
            gap, at = get_varint(payload, at)
            length, at = get_varint(payload, at)
            begin, end = end + gap, end + gap + length
            if not length or end > block.items:
                raise ValueError("a run of items goes beyond its block")
            own |= set(range(begin, end))
        lists.append(frozenset(own))
    direct, bits_back = lists[0], lists[1] if len(lists) > 1 else frozenset()
    if 0 not in direct or direct & bits_back:
        raise ValueError("its first item is not direct, or an item is coded in two ways")
    return (direct, bits_back), payload[at:]


def require_stack(words: bytes, block: Block, network: AnyNetwork) -> None:
    """Raise ValueError unless ``words`` hold a stack, and one no longer than the items of ``block`` can be."""
    values, n = int(np.prod(network.model.item_shape)), network.latents
    bits = 69 * (values + n) + 64 + (48 * n if block.coder in COUPLED else 0)
    if len(words) > block.items * bits // 8 + 64:
        raise ValueError("it is longer than its items can be")
    require_words(words)


def decode_group(
    directory: Directory,
    array: Entry,
    network: AnyNetwork,
    group: list[Chain],
    lockstep: int | None,
    progress: Progress,
) -> Iterator[Decoded]:
    """The items of chains of one coder and plan, ``lockstep`` of them at a time."""
    size = lockstep or max(1, min(CHAINS, VALUES // int(np.prod(network.model.item_shape))) // directory.particles)
    group = sorted(group, key=lambda chain: -chain.block.items)
    for begin in range(0, len(group), size):
        yield from _decode_some(directory, array, network, group[begin : begin + size], progress)


def _decode_some(
    directory: Directory, array: Entry, network: AnyNetwork, some: list[Chain], progress: Progress
) -> list[Decoded]:
    """The items of chains in lockstep; where that fails, of each by itself, so that one does not take the others with it."""
    try:
        return _decode_together(directory, array, network, some, progress)
    except DamagedArchive as error:
        if len(some) == 1:
            return [(some[0].block, error)]
    return [one for chain in some for one in _decode_some(directory, array, network, [chain], progress)]


def _decode_together(
    directory: Directory, array: Entry, network: AnyNetwork, some: list[Chain], progress: Progress
) -> list[Decoded]:
    """The items of chains in lockstep, all of them checked. Raises DamagedArchive, of any of them."""
    model, coder, plan = network.model, some[0].block.coder, some[0].plan
    ways: SeriesCoder | ImageCoder
    if isinstance(network, SeriesNetwork):
        ways = SeriesCoder(network)
    else:
        ways = ImageCoder(network, coder, directory.particles)
    out = [np.empty((chain.block.items, *model.item_shape), np.uint8) for chain in some]
    try:
        stacks = Stacks([chain.words for chain in some])
        _walk(ways, stacks, plan, out, coder in COUPLED, progress)
    except ValueError as error:
        raise _undecodable(directory, some[0].block, str(error)) from error
    for k in stacks.left_over():
        raise _undecodable(directory, some[k].block, "bits are left over after the first item")
    decoded: list[Decoded] = []
    for chain, items in zip(some, out):
        values = items if model.values is None else np.array(model.values, np.uint8)[items]
        if array.layout == "NHWC":
            values = values.transpose(0, 2, 3, 1)
        flat = np.ascontiguousarray(values).reshape(len(values), -1)
        require_checksum(directory, chain.block, flat, chain.checksum)
        decoded.append((chain.block, flat))
    return decoded


def _undecodable(directory: Directory, block: Block, why: str) -> DamagedArchive:
    if directory.version >= FRAMED:
        return disagreement(directory, block, f"do not decode ({why})")
    return DamagedArchive(f"{directory.path}: block {block.index} does not decode ({why})")


def _walk(
    ways: SeriesCoder | ImageCoder,
    stacks: Stacks,
    plan: Plan,
    out: list[NDArray[np.uint8]],
    coupled: bool,
    progress: Progress,
) -> None:
    """Fill ``out``, items (n_i,C,H,W) of chains of one plan, longest first; then the stacks are to be empty. Raises
    ValueError."""
    direct, bits_back = plan
    for t in reversed(range(len(out[0]))):
        active = sum(len(items) > t for items in out)
        if t in direct:
            x = ways.pop_direct(stacks, active)
        elif coupled and t not in bits_back:
            assert isinstance(ways, ImageCoder)
            x = ways.pop_coupled(stacks, active)
        else:
            x = ways.pop_bits_back(stacks, active)
        for items, item in zip(out, x):
            items[t] = item
        progress(active)
