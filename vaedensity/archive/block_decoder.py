"""Blocks to items: each checked before and after it is decoded, those of a model in lockstep."""

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.archive import chains, fallback
from vaedensity.archive.block import Block, Codec
from vaedensity.archive.engine import Decoder
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.record import StoredArray
from vaedensity.coding.plan import Plan, Tick, silent
from vaedensity.errors import DamagedArchive, refuse_if_out_of_memory
from vaedensity.machine import choose_threads
from vaedensity.workers import Ticker, side_by_side

KEPT_BYTES = 1 << 24  # of blocks, from when their plans are read; others are read again: memory does not grow
PIECE_BYTES = 1 << 22


@dataclass(frozen=True)
class Lost:
    """Items ``first`` .. ``end`` - 1 of an array that could not be decoded, and why."""

    array: str
    first: int
    end: int
    reason: str


@dataclass(frozen=True)
class _Chain:
    """A block by its place in the archive, its first item's place in the target, its items and their plan; its words
    and its items' CRC-32, if kept."""

    place: int
    at: int
    items: int
    plan: Plan
    words: tuple[bytes, int] | None


def feed(digest: Any, array: Any) -> None:
    """Add the bytes of ``array``, numpy's or one with its slices, in C order to a hashlib object, a few megabytes at a
    time."""
    if array.ndim == 0:
        digest.update(array.tobytes())
    elif array.nbytes:
        rows = max(1, PIECE_BYTES * len(array) // array.nbytes)
        for begin in range(0, len(array), rows):
            digest.update(array[begin : begin + rows].tobytes())


class BlockDecoder:
    """Decodes blocks of ``archive`` into their places, several side by side; ``threads``, ``lockstep``, ``lost`` and
    ``progress`` as of :func:`~vaedensity.archive.decoding.read_arrays`."""

    def __init__(
        self,
        archive: ArchiveFile,
        model: Decoder | None,
        threads: int | None = None,
        lockstep: int | None = None,
        lost: list[Lost] | None = None,
        progress: Tick = silent,
    ):
        self.archive, self.model, self.threads, self.lockstep = archive, model, choose_threads(threads), lockstep
        self.lost, self.progress = lost, progress

    def decode(self, array: StoredArray, places: Sequence[int], target: Any) -> None:
        """Decode the blocks at ``places``, neighbours in ``array``, into ``target``, as long as just their
        items."""
        waiting: dict[Codec, list[_Chain]] = defaultdict(list)
        left = KEPT_BYTES
        origin = self.archive.blocks[places[0]].first
        rows = target if array.shape else target.reshape(1)
        for place in places:
            block = self.archive.blocks[place]
            at = block.first - origin
            try:
                if block.codec.by_model:
                    plan, words = self._words(place)
                    left -= block.size
                    waiting[block.codec].append(_Chain(place, at, block.items, plan, words if left >= 0 else None))
                    continue
                raw = self._fallback(place, array)
                rows[at : at + block.items] = np.frombuffer(raw, array.dtype).reshape(block.items, *array.shape[1:])
            except DamagedArchive as error:
                self._lose_block(array, block, at, rows, error)
            self.progress(block.items)
        for codec, own in waiting.items():
            self._decode_chains(array, codec, own, rows)

    def require_digest(self, number: int, target: Any) -> None:
        """The decoded array ``number`` has the SHA-256 of the original, where the archive gives one; else all of it is
        lost."""
        array, expected, digest = self.archive.arrays[number], self.archive.digests[number], hashlib.sha256()
        feed(digest, target)
        if expected not in (None, digest.digest()):
            error = DamagedArchive(
                f"{self.archive.path}: array {array.name} does not have the SHA-256 of the original; "
                "keep going to restore the others"
            )
            self._lose(array, (0, array.rows), 0, target if array.shape else target.reshape(1), error)

    def _lose_block(self, array: StoredArray, block: Block, at: int, rows: Any, error: DamagedArchive) -> None:
        self._lose(array, (block.first, block.first + block.items), at, rows, error)

    def _lose(self, array: StoredArray, lost: tuple[int, int], at: int, rows: Any, error: DamagedArchive) -> None:
        """Say that items (first, end) are lost and leave zeros in their place, ``at`` in ``rows``, or raise
        ``error``."""
        if self.lost is None:
            raise error
        end = at + lost[1] - lost[0]
        for begin in range(at, end, step := max(1, PIECE_BYTES // max(1, array.row_bytes))):
            count = min(step, end - begin)
            rows[begin : begin + count] = np.zeros((count, *rows.shape[1:]), array.dtype)
        reason = str(error).removeprefix(f"{self.archive.path}: ")
        self.lost.append(Lost(array.name, *lost, reason))

    def _fallback(self, place: int, array: StoredArray) -> bytes:
        block = self.archive.blocks[place]
        payload, checksum = self.archive.payload(place)
        try:
            raw = fallback.decode(block.codec, payload, array.row_bytes * block.items, array.dtype.itemsize)
            if zlib.crc32(raw) != checksum:
                raise ValueError("its items' checksum does not match")
        except ValueError as error:
            raise DamagedArchive(f"{self.archive.path}: block {place} does not decode ({error})") from error
        return raw

    def _words(self, place: int) -> tuple[Plan, tuple[bytes, int]]:
        """(plan, (coder words, CRC-32 of the items)) of a model's block. Raises DamagedArchive."""
        payload, checksum = self.archive.payload(place)
        block, model = self.archive.blocks[place], self.model
        assert model is not None
        way = block.codec.way(self.archive.particles)
        try:
            plan, words = chains.parse(payload, block.items, way)
            if len(words) > chains.most_bytes(block.items, model.item_shape, model.latents, way):
                raise ValueError("it is longer than its items can be")
        except ValueError as error:
            raise DamagedArchive(f"{self.archive.path}: block {place} makes no sense ({error})") from error
        return plan, (words, checksum)

    def _decode_chains(self, array: StoredArray, codec: Codec, waiting: list[_Chain], rows: Any) -> None:
        model = self.model
        assert model is not None
        if array.item_shape != model.item_shape or (array.layout == "NT") != model.is_series:
            raise DamagedArchive(f"{self.archive.path}: array {array.name} has another item shape than its model")
        model.prepare()
        lockstep = self.lockstep or model.chains_at_once(codec.way(self.archive.particles))
        jobs: list[Sequence[_Chain]] = []
        for alike in chains.in_lockstep([chain.plan for chain in waiting], [chain.items for chain in waiting]):
            jobs += chains.evenly([waiting[i] for i in alike], lockstep, self.threads)
        ticker, shared = Ticker(self.progress), getattr(rows, "shared", False)

        def decode(job: Sequence[_Chain]) -> list[NDArray[Any] | DamagedArchive | None]:
            """Each chain's items, or None where they are in their place already; with ``lost``, what is wrong with
            it."""
            try:
                parts = self._decode_job(array, codec, job, ticker)
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
                    self._lose_block(array, self.archive.blocks[chain.place], chain.at, rows, part)
                elif part is not None:
                    rows[chain.at : chain.at + len(part)] = part

    def _decode_job(
        self, array: StoredArray, codec: Codec, job: Sequence[_Chain], ticker: Ticker
    ) -> list[NDArray[Any]]:
        """Parts of the array, as stored, of chains that go together. Raises DamagedArchive."""
        assert self.model is not None and array.layout is not None
        read = [chain.words or self._words(chain.place)[1] for chain in job]
        words, lengths = [words for words, _ in read], [chain.items for chain in job]
        way = codec.way(self.archive.particles)
        try:
            decoded = self.model.decode(words, lengths, job[0].plan, way, ticker.tick)
            parts = [items.from_items(items.undo_map(x, self.model.values), array.layout) for x in decoded]
            for part, (_, checksum) in zip(parts, read):
                if zlib.crc32(np.ascontiguousarray(part).data) != checksum:
                    raise ValueError("its items' checksum does not match")
        except (ValueError, RuntimeError, IndexError) as error:
            refuse_if_out_of_memory(error)
            raise DamagedArchive(
                f"{self.archive.path}: block {job[0].place}: this machine disagrees: the block's bytes are as written "
                f"but decode to other items ({error}); the archive was altered with care, or this machine does not "
                "compute exactly: try another"
            ) from error
        return [part.view(array.dtype) if array.dtype == np.bool_ else part for part in parts]
