"""From the blocks of an array to its items (sections 6 and 9; section 16, steps 8 to 11)."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import DamagedArchive, VaedensityError
from vaedensity.plain.container import Directory
from vaedensity.plain.images import ImageCoder
from vaedensity.plain.layout import FRAMED
from vaedensity.plain.network import Network
from vaedensity.plain.record import COUPLED, FIRST_MODEL_CODER, LOST, Block, Entry
from vaedensity.plain.series import SeriesCoder, SeriesNetwork
from vaedensity.plain.stacks import Stacks, require_words
from vaedensity.plain.streams import decode_classical
from vaedensity.plain.varints import get_varint

Progress = Callable[[int], None]
AnyNetwork = Network | SeriesNetwork
Plan = tuple[frozenset[int], frozenset[int]]
"""Items of a chain that are direct, and those of a coupled coder that are bits-back."""
CHAINS, VALUES = 64, 1 << 18  # most chains in lockstep, and values of all their items


class Chain(NamedTuple):
    """A block of the model's, its coder words, and the CRC-32 that its items must have, if known."""

    block: Block
    words: bytes
    checksum: int | None


def require_none_lost(directory: Directory, arrays: list[Entry]) -> None:
    """Raise DamagedArchive where items of ``arrays`` are lost (section 6.1)."""
    lost = [(array.name, block) for array in arrays for block in array.blocks if block.coder == LOST]
    if lost:
        name, block = lost[0]
        more = f" and {len(lost) - 1} more blocks" if len(lost) > 1 else ""
        raise DamagedArchive(
            f"{directory.path}: block {block.index} is lost, items {block.first} to {block.first + block.items - 1} "
            f"of array {name}{more}; the archive was repaired without them"
        )


def decode_array(
    directory: Directory,
    array: Entry,
    network: AnyNetwork | None,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
) -> NDArray[Any]:
    """An array, each of its blocks checked; none may be lost. Raises DamagedArchive, or VaedensityError where memory
    lacks. ``network``: needed where a block is the model's."""
    try:
        target = np.empty(array.shape, array.dtype)
    except (MemoryError, ValueError) as error:
        raise VaedensityError(
            f"{directory.path}: array {array.name} needs {array.nbytes} bytes, more than there is"
        ) from error
    if not array.nbytes:
        return target
    if any(block.coder >= FIRST_MODEL_CODER for block in array.blocks):
        assert network is not None  # the record names a model where a block has such a coder
        model = network.model
        if array.item_shape != model.item_shape or (array.layout == "NT") != model.is_series:
            raise DamagedArchive(f"{directory.path}: array {array.name} has another item shape than its model")
    flat = target.reshape(array.rows, -1).view(np.uint8)
    chains: dict[tuple[int, Plan], list[Chain]] = {}
    for block in array.blocks:
        payload, checksum = directory.payload(block)
        try:
            if block.coder >= FIRST_MODEL_CODER:
                assert network is not None
                plan, words = _plan(payload, block)
                _require_stack(words, block, network)
                chains.setdefault((block.coder, plan), []).append(Chain(block, words, checksum))
                continue
            raw = decode_classical(block.coder, payload, block.items * flat.shape[1], array.dtype.itemsize)
        except ValueError as error:
            raise DamagedArchive(f"{directory.path}: block {block.index} does not decode ({error})") from error
        _put(directory, flat, block, np.frombuffer(raw, np.uint8), checksum)
        progress(block.items)
    if chains:
        assert network is not None
        _decode_chains(directory, array, flat, network, chains, lockstep, progress)
    return target


def _put(
    directory: Directory, flat: NDArray[np.uint8], block: Block, values: NDArray[np.uint8], checksum: int | None
) -> None:
    """The items of ``block`` into their place, their CRC-32 checked where it is known."""
    place = flat[block.first : block.first + block.items]
    place[:] = values.reshape(place.shape)
    if checksum is not None and zlib.crc32(place.data) != checksum:
        raise _disagreement(directory, block, "decode to other items than were packed")


def _disagreement(directory: Directory, block: Block, what: str) -> DamagedArchive:
    return DamagedArchive(
        f"{directory.path}: block {block.index}: this machine disagrees: its bytes are as written, but {what}; "
        "nothing of it can be trusted here, try another engine or machine"
    )


def _decode_chains(
    directory: Directory,
    array: Entry,
    flat: NDArray[np.uint8],
    network: AnyNetwork,
    chains: dict[tuple[int, Plan], list[Chain]],
    lockstep: int | None,
    progress: Progress,
) -> None:
    """Chains of one coder and plan in lockstep, their items into ``flat``."""
    model, particles = network.model, directory.particles
    size = lockstep or max(1, min(CHAINS, VALUES // int(np.prod(model.item_shape))) // particles)
    for (coder, plan), group in chains.items():
        ways = SeriesCoder(network) if isinstance(network, SeriesNetwork) else ImageCoder(network, coder, particles)
        group.sort(key=lambda chain: -chain.block.items)
        for begin in range(0, len(group), size):
            some = group[begin : begin + size]
            stacks = Stacks([chain.words for chain in some])
            out = [np.empty((chain.block.items, *model.item_shape), np.uint8) for chain in some]
            try:
                _walk(ways, stacks, plan, out, coder in COUPLED, progress)
            except ValueError as error:
                if directory.version >= FRAMED:
                    raise _disagreement(
                        directory, some[0].block, f"it or one near does not decode ({error})"
                    ) from error
                raise DamagedArchive(
                    f"{directory.path}: blocks near {some[0].block.index} do not decode ({error})"
                ) from error
            for k in stacks.left_over():
                left, block = "bits are left over after the first item", some[k].block
                if directory.version >= FRAMED:
                    raise _disagreement(directory, block, f"do not decode ({left})")
                raise DamagedArchive(f"{directory.path}: block {block.index} does not decode ({left})")
            for chain, items in zip(some, out):
                values = items if model.values is None else np.array(model.values, np.uint8)[items]
                if array.layout == "NHWC":
                    values = values.transpose(0, 2, 3, 1)
                _put(directory, flat, chain.block, values, chain.checksum)


def _plan(payload: bytes, block: Block) -> tuple[Plan, bytes]:
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


def _require_stack(words: bytes, block: Block, network: AnyNetwork) -> None:
    """Raise ValueError unless ``words`` hold a stack, and one no longer than the items of ``block`` can be."""
    values, n = int(np.prod(network.model.item_shape)), network.latents
    bits = 69 * (values + n) + 64 + (48 * n if block.coder in COUPLED else 0)
    if len(words) > block.items * bits // 8 + 64:
        raise ValueError("it is longer than its items can be")
    require_words(words)


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
