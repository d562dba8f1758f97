"""From an open archive to its arrays: checked before, while and after they are decoded."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.archive import fallback
from vaedensity.archive.block import COUPLED_CODERS, MODEL_CODERS
from vaedensity.archive.digest import feed
from vaedensity.archive.reader import Archive
from vaedensity.archive.stored_array import StoredArray
from vaedensity.coding import chains
from vaedensity.coding.ans import require_words
from vaedensity.coding.model_blocks import chains_per_group, evenly
from vaedensity.coding.order import order_of, prepare_tables
from vaedensity.coding.quantise import CodingModel
from vaedensity.errors import DamagedArchive, ModelError, UsageError, VaedensityError, refuse_if_out_of_memory
from vaedensity.machine import choose_threads
from vaedensity.workers import Ticker, side_by_side

Progress = Callable[[int], None]
Allocate = Callable[[str, np.dtype[Any], tuple[int, ...]], Any]
"""Something with the slices of an array (n,...), to be written and read; and ``shared``, where forked processes may write them."""


@dataclass(frozen=True)
class Lost:
    """Items ``first`` .. ``end`` - 1 of an array that could not be decoded, and why."""

    array: str
    first: int
    end: int
    reason: str


_Words = tuple[bytes, int | None]
"""Coder words of a block, CRC-32 of its items."""
KEPT_BYTES = 1 << 24  # of blocks, from when their plans are read; others are read again: memory does not grow


@dataclass(frozen=True)
class _Chain:
    """A block by its place in the archive, its first item's place in the target, its items and their plan; its words, if kept."""

    index: int
    at: int
    items: int
    plan: chains.Plan
    words: _Words | None


def read_arrays(
    archive: Archive,
    model: CodingModel | None = None,
    *,
    allocate: Allocate | None = None,
    threads: int | None = None,
    lockstep: int | None = None,
    lost: list[Lost] | None = None,
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """All arrays but the model's, decoded and checked against the SHA-256 of the original data.

    ``allocate`` provides the memory (a file, say); ``lockstep`` chains share a batch. Where ``lost`` is a list, damaged blocks do
    not stop the work: their items are zeros, and ``lost`` says which. Raises DamagedArchive, or ModelError where ``model`` is not the
    one that the archive was made with.
    """
    check_model(archive, model)
    decoder, out = Decoder(archive, model, threads, lockstep, lost, progress), {}
    together = hashlib.sha256()
    for number, array in enumerate(archive.arrays):
        try:
            if allocate is None or array is archive.model_array:
                target = _room(archive, array, array.shape)
            else:
                target = allocate(array.name, array.dtype, array.shape)
        except (MemoryError, ValueError) as error:
            raise _no_room(archive, array, array.nbytes) from error
        before = len(lost or ())
        if array.nbytes:
            decoder.decode(array, array.blocks, target)
        if lost:
            lost[before:] = sorted(lost[before:], key=lambda one: one.first)  # chains come later than others
        if archive.version >= 5 and len(lost or ()) == before:
            decoder.require_digest(number, target)
        elif archive.version < 5:
            feed(together, target)
        if array is not archive.model_array:
            out[array.name] = target
    if archive.version < 5 and not lost and together.digest() != archive.digests[0]:
        raise DamagedArchive(
            f"{archive.path}: the decoded data do not have the SHA-256 of the original; nothing was restored"
        )
    return out


def read_rows(
    archive: Archive, name: str, start: int, stop: int, model: CodingModel | None = None, *, threads: int | None = None
) -> NDArray[Any]:
    """Items ``start`` .. ``stop`` - 1 of the array ``name``: of the file, only their blocks are read.

    Each block is checked by itself (its CRC-32 and its items', and that its stack ends empty); the SHA-256 is that of all data and is
    not. Raises UsageError for items or an array that are not there, else as :func:`read_arrays`.
    """
    array = archive.array(name)
    if not 0 <= start <= stop <= array.rows:
        raise UsageError(f"{archive.path}: items {start} to {stop} of {name}, expected 0 to {array.rows}")
    if not array.nbytes or start == stop:
        return _room(archive, array, (stop - start, *array.shape[1:]))
    firsts = np.array([archive.blocks[k].first for k in array.blocks])
    used = array.blocks[
        int(np.searchsorted(firsts, start, "right")) - 1 : int(np.searchsorted(firsts, stop - 1, "right"))
    ]
    if any(archive.blocks[k].coder in MODEL_CODERS for k in used):
        check_model(archive, model)
    origin, last = archive.blocks[used[0]].first, archive.blocks[used[-1]]
    target = _room(archive, array, (last.first + last.items - origin, *array.shape[1:]))
    Decoder(archive, model, threads).decode(array, used, target)
    return target[start - origin : stop - origin]


def read_whole(archive: Archive, array: StoredArray) -> NDArray[Any]:
    """All of one array whose blocks are fallback, checked."""
    target = _room(archive, array, array.shape)
    if array.nbytes:
        Decoder(archive, None).decode(array, array.blocks, target)
    return target


def _room(archive: Archive, array: StoredArray, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.ndarray(shape, array.dtype)  # np.empty makes another type of some: of |S0 |S1, of >M8 <M8
    except (MemoryError, ValueError) as error:
        raise _no_room(archive, array, array.row_bytes * (shape[0] if shape else 1)) from error


def _no_room(archive: Archive, array: StoredArray, size: int) -> VaedensityError:
    return VaedensityError(f"{archive.path}: array {array.name} needs {size} bytes, more than there is")


def check_model(archive: Archive, model: CodingModel | None) -> None:
    """Raise ModelError unless ``model`` is the one that ``archive`` needs, if any, and VaedensityError where it computes otherwise here."""
    if archive.model is None:
        return
    wanted = f"{archive.model['name']} (sha256 {archive.model['sha256'][:16]}...)"
    if model is None:
        raise ModelError(f"{archive.path}: needs the model {wanted}; name it")
    if model.sha256 != archive.model["sha256"]:
        raise ModelError(
            f"{archive.path}: made with model {wanted}, found {model.name} (sha256 {model.sha256[:16]}...)"
        )
    if archive.model.get("probe", model.probe) != model.probe:
        raise VaedensityError(
            f"{archive.path}: this machine's torch computes the model's integers differently from the one that wrote the archive; "
            "nothing was read or written; try the numpy engine or another machine"
        )


class Decoder:
    """Decodes blocks of ``archive`` into their places, several side by side; ``lost`` as in :func:`read_arrays`."""

    def __init__(
        self,
        archive: Archive,
        model: CodingModel | None,
        threads: int | None = None,
        lockstep: int | None = None,
        lost: list[Lost] | None = None,
        progress: Progress = lambda n: None,
    ):
        self.archive, self.model, self.threads, self.lockstep = archive, model, choose_threads(threads), lockstep
        self.lost, self.progress = lost, progress

    def decode(self, array: StoredArray, blocks: Sequence[int], target: Any) -> None:
        """Decode ``blocks`` of ``array``, neighbours in it, into ``target``, which has room for just their items."""
        waiting: list[_Chain] = []
        room = KEPT_BYTES
        origin = self.archive.blocks[blocks[0]].first
        rows = target.reshape(1) if not array.shape else target
        for index in blocks:
            block = self.archive.blocks[index]
            at = block.first - origin
            try:
                if block.coder in MODEL_CODERS:
                    plan, words = self._words(index)
                    room -= block.size
                    waiting.append(_Chain(index, at, block.items, plan, words if room >= 0 else None))
                    continue
                raw = self._fallback(index, array)
                rows[at : at + block.items] = np.frombuffer(raw, array.dtype).reshape(
                    block.items, *(array.shape[1:] if array.shape else ())
                )
            except DamagedArchive as error:
                self._lose_block(array, index, at, rows, error)
            self.progress(block.items)
        if waiting:
            self._decode_chains(array, waiting, rows)

    def require_digest(self, number: int, target: Any) -> None:
        """The decoded array ``number`` has the SHA-256 of the original, where the archive gives one; else all of it is lost."""
        array, expected, digest = self.archive.arrays[number], self.archive.digests[number], hashlib.sha256()
        feed(digest, target)
        if expected not in (None, digest.digest()):
            error = f"{self.archive.path}: array {array.name} does not have the SHA-256 of the original; keep going to restore the others"
            rows = target if array.shape else target.reshape(1)
            self._lose(array, (0, array.rows), 0, rows, DamagedArchive(error))

    def _lose_block(self, array: StoredArray, index: int, at: int, rows: Any, error: DamagedArchive) -> None:
        block = self.archive.blocks[index]
        self._lose(array, (block.first, block.first + block.items), at, rows, error)

    def _lose(self, array: StoredArray, lost: tuple[int, int], at: int, rows: Any, error: DamagedArchive) -> None:
        """Note that items (first, end) are lost and leave zeros in their place, ``at`` in ``rows``, or raise ``error``."""
        if self.lost is None:
            raise error
        end = at + lost[1] - lost[0]
        for begin in range(at, end, step := max(1, (1 << 22) // max(1, array.row_bytes))):
            count = min(step, end - begin)
            rows[begin : begin + count] = np.zeros((count, *rows.shape[1:]), array.dtype)
        reason = str(error).removeprefix(f"{self.archive.path}: ")
        self.lost.append(Lost(array.name, *lost, reason))

    def _words(self, index: int) -> tuple[chains.Plan, _Words]:
        payload, checksum = self.archive.payload(index)
        block = self.archive.blocks[index]
        try:
            plan, words = chains.parse_plan(payload, block.items, 1 + (block.coder in COUPLED_CODERS))
            require_words(words)
        except ValueError as error:
            raise DamagedArchive(f"{self.archive.path}: block {index} makes no sense ({error})") from error
        return plan, (words, checksum)

    def _fallback(self, index: int, array: StoredArray) -> bytes:
        block = self.archive.blocks[index]
        payload, checksum = self.archive.payload(index)
        try:
            raw = fallback.decode(block.coder, payload, array.row_bytes * block.items, array.dtype.itemsize)
            if checksum is not None and zlib.crc32(raw) != checksum:
                raise ValueError("its items' checksum does not match")
        except ValueError as error:
            raise DamagedArchive(f"{self.archive.path}: block {index} does not decode ({error})") from error
        return raw

    def _decode_chains(self, array: StoredArray, waiting: list[_Chain], rows: Any) -> None:
        model = self.model
        assert model is not None and array.layout is not None
        if array.item_shape != model.integers.config.item_shape or (array.layout == "NT") != model.integers.is_sequence:
            raise DamagedArchive(f"{self.archive.path}: array {array.name} has another item shape than its model")
        used = {self.archive.blocks[chain.index].coder for chain in waiting}
        prepare_tables(model.integers.config.levels)
        codecs = {coder: model.codecs(self.archive.particles, order_of(coder)) for coder in used}
        lockstep = self.lockstep or chains_per_group(model.integers, self.archive.particles)
        jobs = self._lockstep_jobs(waiting, lockstep, self.threads)
        ticker, shared = Ticker(self.progress), getattr(rows, "shared", False)

        def decode(job: Sequence[_Chain]) -> list[NDArray[Any] | DamagedArchive | None]:
            """Each chain's items, or None where they are in their place already; with ``lost``, what is wrong with it."""
            try:
                parts = self._decode_job(array, model, codecs[self.archive.blocks[job[0].index].coder], job, ticker)
            except DamagedArchive as error:
                if len(job) == 1:
                    if self.lost is None:
                        raise
                    return [error]
                return [result for chain in job for result in decode([chain])]  # to learn which
            if not shared:
                return list(parts)
            for chain, part in zip(job, parts):
                rows[chain.at : chain.at + len(part)] = part
            return [None] * len(job)

        for job, results in zip(jobs, side_by_side(decode, jobs, ticker, self.threads)):
            for chain, part in zip(job, results):
                if isinstance(part, DamagedArchive):
                    self._lose_block(array, chain.index, chain.at, rows, part)
                elif part is not None:
                    rows[chain.at : chain.at + len(part)] = part

    def _decode_job(
        self, array: StoredArray, model: CodingModel, codecs: chains.ChainCodecs, job: Sequence[_Chain], ticker: Ticker
    ) -> list[NDArray[Any]]:
        """Parts of the array, as stored, of chains that go together. Raises DamagedArchive."""
        read = [chain.words or self._words(chain.index)[1] for chain in job]
        words, lengths = [words for words, _ in read], [chain.items for chain in job]
        index, path = job[0].index, self.archive.path
        for chain, own in zip(job, words):
            if len(own) > chains.most_bytes(chain.items, array.item_shape, codecs):
                raise DamagedArchive(f"{path}: block {chain.index} makes no sense (it is longer than its items can be)")
        try:
            decoded = chains.decode_chains(codecs, words, lengths, job[0].plan, array.item_shape, ticker.tick)
            assert array.layout is not None
            parts = [items.from_items(items.undo_map(x, model.values), array.layout) for x in decoded]
            for part, (_, checksum) in zip(parts, read):
                if checksum is not None and zlib.crc32(np.ascontiguousarray(part).data) != checksum:
                    raise ValueError("its items' checksum does not match")
        except (ValueError, RuntimeError, IndexError) as error:
            refuse_if_out_of_memory(error)
            if self.archive.version < 5:
                raise DamagedArchive(f"{path}: block {index} does not decode ({error})") from error
            raise DamagedArchive(
                f"{path}: block {index}: this machine disagrees: the block's bytes are as written but decode to other items "
                f"({error}); the archive was altered with care, or this machine does not compute exactly: try another"
            ) from error
        return [part.view(array.dtype) if array.dtype == np.bool_ else part for part in parts]

    def _lockstep_jobs(self, waiting: list[_Chain], lockstep: int, workers: int) -> list[Sequence[_Chain]]:
        """Chains, grouped as they can be decoded together and by so many ``workers``, runs of neighbours where they can be."""
        by_coder: dict[int, list[_Chain]] = {}
        for chain in waiting:
            by_coder.setdefault(self.archive.blocks[chain.index].coder, []).append(chain)
        jobs: list[Sequence[_Chain]] = []
        for own in by_coder.values():
            for alike in chains.in_lockstep([chain.plan for chain in own], [chain.items for chain in own]):
                jobs += evenly([own[i] for i in alike], lockstep, workers)
        return jobs
