"""A .vdz file back to its arrays: checked before, while and after it is decoded."""

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.coding import chains, classical
from vaedensity.coding.container import COUPLED_CODERS, HEAD, MODEL_CODERS, Block, read_directory
from vaedensity.coding.coupled import MOST_PARTICLES
from vaedensity.coding.digest import feed
from vaedensity.coding.lowering import CodingModel
from vaedensity.coding.model_blocks import chains_per_group, evenly
from vaedensity.coding.order import SEQUENCE_CODER, order_of, prepare_tables
from vaedensity.coding.workers import Ticker, side_by_side, usable_cores
from vaedensity.errors import DamagedArchive, ModelError, UsageError, VaedensityError, refuse_if_out_of_memory

MAX_DIMS = 8
MAX_BYTES = 1 << 48
KINDS = "biufc"
Progress = Callable[[int], None]
_Chain = tuple[int, int, int, chains.Plan, bytes]
"""Block, first item, items, plan, words."""
Allocate = Callable[[str, np.dtype[Any], tuple[int, ...]], NDArray[Any]]


class StoredArray:
    """What the directory says of one array, every field checked. Raises ValueError."""

    def __init__(self, entry: Any):
        self.name, self.layout = entry["name"], entry.get("layout")
        self.dtype, self.shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        self.blocks = entry["blocks"]
        whole = [self.blocks, *self.shape]
        if (
            not isinstance(self.name, str)
            or any(type(n) is not int or n < 0 for n in whole)
            or len(self.shape) > MAX_DIMS
        ):
            raise ValueError("an array is described by other than a name and whole numbers")
        if self.dtype.kind not in KINDS + "SUmMV" or self.dtype.hasobject or not isinstance(entry["dtype"], str):
            raise ValueError(f"array {self.name}: dtype {entry['dtype']} is not plain")
        if self.dtype.str != entry["dtype"] or self.dtype.subdtype is not None or self.dtype.names is not None:
            raise ValueError(f"array {self.name}: dtype {entry['dtype']} is not plain")
        extent = self.dtype.itemsize * math.prod(max(1, n) for n in self.shape)
        if extent > MAX_BYTES:
            raise ValueError(f"array {self.name}: shape {list(self.shape)} is beyond the limit of {MAX_BYTES} bytes")
        self.nbytes = extent if all(self.shape) else 0
        self.rows = self.shape[0] if self.shape else 1
        self.row_bytes = self.nbytes // self.rows if self.rows else 0
        self.item_shape: tuple[int, ...] = ()
        if self.layout is not None:
            probe = np.broadcast_to(np.uint8(0), (1, *self.shape[1:]) if self.dtype.itemsize == 1 else (0,))
            found = items.series_layout(probe) if self.layout == "NT" else items.layout_of(probe)
            if self.layout not in items.LAYOUTS or found != self.layout or self.dtype.kind not in "bu":
                raise ValueError(f"array {self.name}: layout {self.layout} does not fit")
            self.item_shape = items.to_items(probe, self.layout).shape[1:]


class Archive:
    """A .vdz file open for reading; a context manager.

    ``arrays`` describes what is inside, ``note`` is what the writer said of it, ``model`` is None or
    the {"sha256", "name"} of the model that decoding needs. Nothing that fails a check is returned.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.file = open(self.path, "rb")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        try:
            directory = read_directory(self.file, str(self.path))
            self.blocks, self.record, self.version = directory.blocks, directory.record, directory.version
            try:
                self._describe()
            except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
                raise DamagedArchive(f"{self.path}: the directory makes no sense ({error})") from error
        except BaseException:
            self.file.close()
            raise

    def _describe(self) -> None:
        record = self.record
        self.arrays = [StoredArray(entry) for entry in record["arrays"]]
        if self.version < 4 and any(array.layout == "NT" for array in self.arrays):
            raise ValueError(f"series in format version {self.version}")
        self.note: dict[str, Any] = record["note"]
        self.sha256: str = record["sha256"]
        self.model: dict[str, str] | None = record.get("model")
        if (
            not isinstance(self.note, dict)
            or not isinstance(self.sha256, str)
            or len({a.name for a in self.arrays}) != len(self.arrays)
        ):
            raise ValueError("note, digest or names are not as they should be")
        if self.model is not None and not all(isinstance(self.model[key], str) for key in ("sha256", "name")):
            raise ValueError("the model is not named")
        self.particles = 1 if self.model is None else record["model"].get("particles", 1)
        if type(self.particles) is not int or not 1 <= self.particles <= MOST_PARTICLES:
            raise ValueError(f"{self.particles} particles, expected 1 to {MOST_PARTICLES}")
        self.first_block, count = {}, 0
        for array in self.arrays:
            self.first_block[array.name] = count
            mine = self.blocks[count : count + array.blocks]
            count += array.blocks
            if len(mine) != array.blocks or sum(b.items for b in mine) != (array.rows if array.nbytes else 0):
                raise ValueError(f"array {array.name}: its blocks do not add up to its items")
            for block in mine:
                if block.coder in MODEL_CODERS and (
                    not array.item_shape
                    or self.model is None
                    or not 0 < block.items <= chains.LONGEST_CHAIN
                    or (block.coder in COUPLED_CODERS) != (self.particles > 1)
                    or (block.coder == SEQUENCE_CODER) != (array.layout == "NT")
                ):
                    raise ValueError(f"array {array.name}: a block says it needs a model that cannot fit")
        if count != len(self.blocks):
            raise ValueError("blocks belong to no array")
        self.offsets, position = [], HEAD.size
        for block in self.blocks:
            self.offsets.append(position)
            position += block.length

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def read(
        self,
        model: CodingModel | None = None,
        *,
        allocate: Allocate | None = None,
        threads: int | None = None,
        lockstep: int | None = None,
        progress: Progress = lambda n: None,
    ) -> dict[str, NDArray[Any]]:
        """All arrays, decoded and checked against the SHA-256 of the original data.

        ``allocate`` provides the memory (a memory map, say); ``lockstep`` chains share a batch.
        Raises DamagedArchive, or ModelError where ``model`` is not the one it was made with.
        """
        self._check_model(model)
        digest, out = hashlib.sha256(), {}
        for array in self.arrays:
            try:
                target = (
                    allocate(array.name, array.dtype, array.shape) if allocate else np.empty(array.shape, array.dtype)
                )
            except (MemoryError, ValueError) as error:
                raise VaedensityError(
                    f"{self.path}: array {array.name} needs {array.nbytes} bytes, more than there is"
                ) from error
            if array.nbytes:
                first = self.first_block[array.name]
                mine = range(first, first + array.blocks)
                self._decode_into(array, mine, target, model, threads, lockstep, progress)
            feed(digest, target)
            out[array.name] = target
        if digest.hexdigest() != self.sha256:
            raise DamagedArchive(
                f"{self.path}: the decoded data do not have the SHA-256 of the original; nothing was restored"
            )
        return out

    def read_rows(
        self, name: str, start: int, stop: int, model: CodingModel | None = None, *, threads: int | None = None
    ) -> NDArray[Any]:
        """Items ``start`` .. ``stop`` - 1 of the array ``name``: of the file, only their blocks are read.

        Each block is checked by itself (CRC-32, and that its stack ends empty); the SHA-256 is that of all data and is not.
        Raises UsageError for items or an array that are not there, else as :meth:`read`.
        """
        array = next((a for a in self.arrays if a.name == name), None)
        if array is None or not array.shape:
            held = ", ".join(a.name for a in self.arrays if a.shape)
            raise UsageError(f"{self.path}: no array {name!r} of items; it holds {held or 'none'}")
        if not 0 <= start <= stop <= array.rows:
            raise UsageError(f"{self.path}: items {start} to {stop} of {name}, expected 0 to {array.rows}")
        if not array.nbytes or start == stop:
            return np.empty((stop - start, *array.shape[1:]), array.dtype)
        first = self.first_block[name]
        ends = np.cumsum([block.items for block in self.blocks[first : first + array.blocks]])
        low, high = int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop - 1, "right")) + 1
        origin = int(ends[low - 1]) if low else 0
        used = range(first + low, first + high)
        if any(self.blocks[index].coder in MODEL_CODERS for index in used):
            self._check_model(model)
        target = np.empty((int(ends[high - 1]) - origin, *array.shape[1:]), array.dtype)
        self._decode_into(array, used, target, model, threads, None, lambda n: None)
        return target[start - origin : stop - origin]

    def _check_model(self, model: CodingModel | None) -> None:
        if self.model is None:
            return
        wanted = f"{self.model['name']} (sha256 {self.model['sha256'][:16]}...)"
        if model is None:
            raise ModelError(f"{self.path}: needs the model {wanted}; pass it with -m")
        if model.sha256 != self.model["sha256"]:
            raise ModelError(
                f"{self.path}: made with model {wanted}, found {model.name} (sha256 {model.sha256[:16]}...)"
            )

    def _payload(self, index: int) -> bytes:
        block = self.blocks[index]
        self.file.seek(self.offsets[index])
        payload = self.file.read(block.length)
        if len(payload) != block.length or zlib.crc32(payload) != block.checksum:
            raise DamagedArchive(
                f"{self.path}: block {index} of {len(self.blocks)} is damaged (its checksum does not match)"
            )
        return payload

    def _decode_into(
        self,
        array: StoredArray,
        blocks: range,
        target: NDArray[Any],
        model: CodingModel | None,
        threads: int | None,
        lockstep: int | None,
        progress: Progress,
    ) -> None:
        """Decode consecutive ``blocks`` of ``array`` into ``target``, which has room for just their items."""
        rows = target.reshape(array.rows, -1) if target.ndim == 0 else target
        start, waiting = 0, []
        for index in blocks:
            block = self.blocks[index]
            if block.coder in MODEL_CODERS:
                waiting.append((index, start))
            else:
                raw = self._classical(index, block, array.row_bytes * block.items)
                part = np.frombuffer(raw, array.dtype).reshape(block.items, *rows.shape[1:])
                rows[start : start + block.items] = part
                progress(block.items)
            start += block.items
        if not waiting:
            return
        assert model is not None and array.layout is not None
        if array.item_shape != model.integers.config.item_shape or (array.layout == "NT") != model.integers.is_sequence:
            raise DamagedArchive(f"{self.path}: array {array.name} has another item shape than its model")
        used, layout = {self.blocks[index].coder for index, _ in waiting}, array.layout
        prepare_tables(model.integers.config.levels)
        codecs = {coder: model.codecs(self.particles, order_of(coder)) for coder in used}
        if lockstep is None:
            lockstep = chains_per_group(model.integers, self.particles)
        jobs, ticker = self._lockstep_jobs(waiting, lockstep, threads or usable_cores()), Ticker(progress)

        def decode(job: Sequence[_Chain]) -> list[tuple[int, NDArray[np.uint8]]]:
            words, lengths = [words for *_, words in job], [n for _, _, n, _, _ in job]
            ways = codecs[self.blocks[job[0][0]].coder]
            try:
                decoded = chains.decode_chains(ways, words, lengths, job[0][3], array.item_shape, ticker.tick)
            except (ValueError, RuntimeError, IndexError) as error:
                refuse_if_out_of_memory(error)
                raise DamagedArchive(f"{self.path}: blocks near {job[0][0]} do not decode ({error})") from error
            return [
                (at, items.from_items(items.undo_map(x, model.values), layout)) for (_, at, *_), x in zip(job, decoded)
            ]

        for results in side_by_side(decode, jobs, ticker, threads):
            for at, part in results:
                target[at : at + len(part)] = part.view(array.dtype) if array.dtype == np.bool_ else part

    def _lockstep_jobs(self, waiting: list[tuple[int, int]], lockstep: int, workers: int) -> list[Sequence[_Chain]]:
        """Chains, grouped as they can be decoded together and by so many ``workers``."""
        by_coder: dict[int, list[_Chain]] = {}
        for index, at in waiting:
            block = self.blocks[index]
            try:
                plan, words = chains.parse_plan(self._payload(index), block.items, 1 + (block.coder in COUPLED_CODERS))
            except ValueError as error:
                raise DamagedArchive(f"{self.path}: block {index} makes no sense ({error})") from error
            by_coder.setdefault(block.coder, []).append((index, at, block.items, plan, words))
        jobs: list[Sequence[_Chain]] = []
        for parsed in by_coder.values():
            for alike in chains.in_lockstep([p[3] for p in parsed], [p[2] for p in parsed]):
                jobs += evenly([parsed[i] for i in alike], lockstep, workers)
        return jobs

    def _classical(self, index: int, block: Block, size: int) -> bytes:
        payload = self._payload(index)
        try:
            return classical.decode(block.coder, payload, size)
        except ValueError as error:
            raise DamagedArchive(f"{self.path}: block {index} does not decode ({error})") from error


def coders_used(archive: Archive) -> Iterator[tuple[int, int]]:
    """(coder, blocks) of an archive."""
    for coder in sorted({block.coder for block in archive.blocks}):
        yield coder, sum(block.coder == coder for block in archive.blocks)
