"""From a .vdz file to its arrays and files: blocks of chains (section 9), the checks of section 16, restoring."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data import restore
from vaedensity.errors import DamagedArchive, ModelError, UsageError, VaedensityError
from vaedensity.model.released import released, resolve
from vaedensity.plain.container import COUPLED, FIRST_MODEL_CODER, Block, Directory, Entry, decode_classical, get_varint
from vaedensity.plain.images import ImageCoder
from vaedensity.plain.model_file import Model, read_model
from vaedensity.plain.network import Network
from vaedensity.plain.series import SeriesCoder, SeriesNetwork
from vaedensity.plain.stacks import Stacks

Progress = Callable[[int], None]
Plan = tuple[frozenset[int], frozenset[int]]
"""Items of a chain that are direct, and those of a coupled coder that are bits-back."""
CHAINS, VALUES = 64, 1 << 18  # most chains in lockstep, and values of all their items


def decompress(
    path: Path,
    folder: Path,
    model_name: str | None = None,
    *,
    overwrite: bool = False,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """Restore everything in ``folder``; nothing appears there before all of it is checked. Returns the record of
    ``decompress --json``. Raises DamagedArchive, ModelError, UsageError, VaedensityError."""
    started = time.monotonic()
    with _opened(path) as file:
        directory = Directory(file, path)
        notes = directory.note.get("collections")
        notes = notes if isinstance(notes, list) else []
        restore.check_note(notes, [a.name for a in directory.arrays])
        goals = restore.targets(notes, folder, overwrite)
        model = find_model(directory, model_name)
        with restore.staging(folder) as stage:
            arrays = read(directory, model, lockstep=lockstep, progress=progress)
            staged = [restore.write_collection(note, arrays, stage) for note in notes]
            for temporary, goal in zip(staged, goals):
                restore.move_into_place(temporary, goal)
    return {
        "archive": str(path),
        "items": sum(a.rows for a in directory.arrays),
        "bytes_in": path.stat().st_size,
        "bytes_out": sum(a.nbytes for a in directory.arrays),
        "model": directory.model["name"] if directory.model else None,
        "restored": [str(goal) for goal in goals],
        "seconds": time.monotonic() - started,
    }


def read_arrays(path: Path, model_name: str | None = None) -> dict[str, NDArray[Any]]:
    """All arrays of an archive by name, checked against the SHA-256 of the data."""
    with _opened(path) as file:
        directory = Directory(file, path)
        return read(directory, find_model(directory, model_name))


def _opened(path: Path) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def find_model(directory: Directory, name: str | None) -> Model | None:
    """The model that the archive was made with: the one named, or a released one. Raises ModelError."""
    wanted = directory.model
    if wanted is None:
        return None
    said = f"{wanted['name']} (sha256 {wanted['sha256'][:16]}...)"
    if name is not None:
        model = read_model(resolve(name))
        if model.sha256 != wanted["sha256"]:
            raise ModelError(
                f"{directory.path}: made with model {said}, found {model.path.stem} (sha256 {model.sha256[:16]}...)"
            )
        return model
    for _, path in sorted(released().items(), key=lambda pair: pair[0] != wanted["name"]):
        model = read_model(path)
        if model.sha256 == wanted["sha256"]:
            return model
    raise ModelError(
        f"{directory.path}: needs the model {said}, which is not among the released ones; pass its file with -m"
    )


def read(
    directory: Directory, model: Model | None, *, lockstep: int | None = None, progress: Progress = lambda n: None
) -> dict[str, NDArray[Any]]:
    """All arrays by name, none unchecked. Raises DamagedArchive, or ModelError where ``model`` cannot be used."""
    network = None
    try:
        if model is not None:
            network = SeriesNetwork(model) if model.is_series else Network(model)
    except ValueError as error:
        assert model is not None
        raise ModelError(f"{model.path}: its integer network is not usable ({error}); fit again") from error
    digest, out = hashlib.sha256(), {}
    for array in directory.arrays:
        try:
            target = np.empty(array.shape, array.dtype)
        except (MemoryError, ValueError) as error:
            raise VaedensityError(
                f"{directory.path}: array {array.name} needs {array.nbytes} bytes, more than there is"
            ) from error
        if array.nbytes:
            _decode(directory, array, target, network, lockstep, progress)
        digest.update(target.reshape(-1).view(np.uint8).data if array.nbytes else b"")
        out[array.name] = target
    if digest.hexdigest() != directory.sha256:
        raise DamagedArchive(
            f"{directory.path}: the decoded data do not have the SHA-256 of the original; nothing was restored"
        )
    return out


def _decode(
    directory: Directory,
    array: Entry,
    target: NDArray[Any],
    network: Network | SeriesNetwork | None,
    lockstep: int | None,
    progress: Progress,
) -> None:
    """Fill ``target`` from the array's blocks."""
    flat = target.reshape(array.rows, -1).view(np.uint8)
    chains: dict[tuple[int, Plan], list[tuple[int, Block, bytes]]] = {}
    first = 0
    for block in array.blocks:
        payload = directory.payload(block)
        try:
            if block.coder >= FIRST_MODEL_CODER:
                plan, words = _plan(payload, block)
                chains.setdefault((block.coder, plan), []).append((first, block, words))
            else:
                raw = decode_classical(block.coder, payload, block.items * flat.shape[1])
                flat[first : first + block.items] = np.frombuffer(raw, np.uint8).reshape(block.items, -1)
                progress(block.items)
        except ValueError as error:
            raise DamagedArchive(f"{directory.path}: block {block.index} does not decode ({error})") from error
        first += block.items
    if not chains:
        return
    assert network is not None
    model = network.model
    if array.item_shape != model.item_shape or (array.layout == "NT") != model.is_series:
        raise DamagedArchive(f"{directory.path}: array {array.name} has another item shape than its model")
    size = lockstep or max(1, min(CHAINS, VALUES // int(np.prod(model.item_shape))) // directory.particles)
    for (coder, plan), group in chains.items():
        group.sort(key=lambda chain: -chain[1].items)
        for begin in range(0, len(group), size):
            some = group[begin : begin + size]
            try:
                decoded = _decode_chains(network, coder, directory.particles, plan, some, progress)
            except ValueError as error:
                raise DamagedArchive(
                    f"{directory.path}: blocks near {some[0][1].index} do not decode ({error})"
                ) from error
            for (at, block, _), items in zip(some, decoded):
                values = items if model.values is None else np.array(model.values, np.uint8)[items]
                if array.layout == "NHWC":
                    values = values.transpose(0, 2, 3, 1)
                flat[at : at + block.items] = values.reshape(block.items, -1)


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


def _decode_chains(
    network: Network | SeriesNetwork,
    coder: int,
    particles: int,
    plan: Plan,
    chains: list[tuple[int, Block, bytes]],
    progress: Progress,
) -> list[NDArray[np.uint8]]:
    """Items (n_i,C,H,W) of chains of one plan, longest first. Raises ValueError."""
    ways = SeriesCoder(network) if isinstance(network, SeriesNetwork) else ImageCoder(network, coder, particles)
    shape, lengths = network.model.item_shape, [block.items for _, block, _ in chains]
    coupled = coder in COUPLED
    bits = 69 * (int(np.prod(shape)) + network.latents) + 64 + (48 * network.latents if coupled else 0)
    if any(len(words) > n * bits // 8 + 64 for n, (_, _, words) in zip(lengths, chains)):
        raise ValueError("a block is longer than its items can be")
    stacks, out = Stacks([words for _, _, words in chains]), [np.empty((n, *shape), np.uint8) for n in lengths]
    direct, bits_back = plan
    for t in reversed(range(lengths[0])):
        active = sum(n > t for n in lengths)
        if t in direct:
            x = ways.pop_direct(stacks, active)
        elif coupled and t not in bits_back:
            assert isinstance(ways, ImageCoder)
            x = ways.pop_coupled(stacks, active)
        else:
            x = ways.pop_bits_back(stacks, active)
        for i in range(active):
            out[i][t] = x[i]
        progress(active)
    if not stacks.are_empty():
        raise ValueError("bits are left over after the first item")
    return out
