"""Arrays to a .vdz file (``decoding.py`` is the way back).

An archive holds named arrays. Each array is cut into blocks of whole items along its first axis. Each block is coded by
the model or, where that is smaller, by a fallback codec. Fallback codecs make longer blocks: where these take fewer
bytes for the whole array than the model does, they code all of it.
"""

import hashlib
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity import __version__
from vaedensity.archive import chains, fallback
from vaedensity.archive.block import Codec
from vaedensity.archive.block_header import SHORTEST
from vaedensity.archive.container import Mark, Writer
from vaedensity.archive.engine import Encoder
from vaedensity.archive.model_blocks import BlockCoder, CodedBlock, fits, layout_of, worth_asking
from vaedensity.archive.tally import Tally
from vaedensity.errors import SourceChanged, UsageError, changed
from vaedensity.workers import Ticker, side_by_side

FALLBACK_BLOCK_BYTES = 4 << 20
Progress = Callable[[int], None]


@dataclass(frozen=True)
class WritePlan:
    """How arrays will be coded: by the model, those of which ``coders`` has a coder, or by a fallback codec.
    ``left_over``: bytes too few for an item of the model of series."""

    layouts: dict[str, str | None]
    coders: dict[str, BlockCoder]
    left_over: set[str]


def plan_arrays(
    arrays: dict[str, NDArray[np.generic]],
    model: Encoder | None,
    *,
    verify: bool = True,
    particles: int = 1,
    codec: Codec | None = None,
) -> WritePlan:
    """Which of ``arrays`` the model codes. Raises UsageError for an array that cannot be stored."""
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise UsageError(
                f"array {name}: dtype {array.dtype} holds Python objects, which are never stored; convert it"
            )
    layouts = {name: layout_of(model, array) for name, array in arrays.items()}
    coders = {}
    for name, array in arrays.items():
        if model is not None and fits(model, array):
            layout = layouts[name]
            assert layout is not None
            coders[name] = BlockCoder(model, layout, array, verify, particles, codec)
    if coders:
        assert model is not None
        model.prepare()
    series = model is not None and model.is_series
    return WritePlan(layouts, coders, {n for n, a in arrays.items() if series and a.ndim == 1 and a.dtype == np.uint8})


def describe(arrays: dict[str, NDArray[np.generic]], plan: WritePlan) -> list[dict[str, Any]]:
    """The record's entries of ``arrays``."""
    return [
        {"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}
        | ({"layout": plan.layouts[name]} if name in plan.coders else {})
        for name, array in arrays.items()
    ]


def write_archive(
    f: BinaryIO,
    arrays: dict[str, NDArray[np.generic]],
    restore: list[dict[str, Any]],
    model: Encoder | None,
    *,
    verify: bool = True,
    particles: int = 1,
    codec: Codec | None = None,
    inside: bytes | None = None,
    threads: int | None = None,
    progress: Progress = lambda n: None,
) -> Tally:
    """Write an archive of named arrays.

    Parameters
    ----------
    f : BinaryIO
        A file open for writing, at its beginning.
    arrays : dict of str to numpy.ndarray
        Of any dtype but objects, or anything with an array's slices.
    restore : list of dict
        How the arrays become files again.
    model : Encoder or None
        Codes the arrays whose items have its shape; None: fallback codecs code everything.
    verify : bool
        Whether every block is decoded and compared before it is written.
    particles : int
        More than one are coupled: the model's blocks get smaller, and slower to code.
    codec : Codec, optional
        Of the model's blocks. By default the one that decodes fastest.
    inside : bytes, optional
        The model file, an even number of bytes, to be stored with the arrays that need it.
    threads : int, optional
        Processes that code side by side.
    progress : callable
        Called with the number of items that are done.

    Returns
    -------
    Tally
        What the archive's bytes went to.

    Raises
    ------
    UsageError
        An array cannot be stored.
    SourceChanged
        An array changed while it was read.
    VaedensityError
        A block does not decode to what was coded: this machine does not compute exactly.

    Examples
    --------
    >>> import io
    >>> tally = write_archive(io.BytesIO(), {"x": np.zeros((100, 8), np.uint8)}, [], None, threads=1)
    >>> tally.bytes_in, tally.payload_bytes < 20
    (800, True)
    """
    plan = plan_arrays(arrays, model, verify=verify, particles=particles, codec=codec)
    record: dict[str, Any] = {"arrays": describe(arrays, plan), "restore": restore, "by": __version__}
    if plan.coders:
        assert model is not None
        record["model"] = name_model(model)
        record["model"] |= {"particles": particles} if particles > 1 else {}
    stored = None
    if plan.coders and inside is not None:
        stored = np.frombuffer(inside, "<i2")
        record["model"]["array"] = name = free_name("model", arrays)
        record["arrays"].append({"name": name, "dtype": stored.dtype.str, "shape": list(stored.shape)})
    writer, tally = Writer(f, record), Tally()
    digests = write_arrays(writer, arrays, plan, 0, tally, verify=verify, threads=threads, progress=progress)
    if stored is not None:
        before = writer.payload_bytes
        target = _Target(writer, len(arrays), 0, name, stored)
        _write_fallback(target, Tally(), verify, threads, lambda n: None)
        digests.append(target.digest.digest())
        tally.overhead["model"] = writer.payload_bytes - before
    tally.overhead |= writer.finish(digests)
    tally.payload_bytes = writer.payload_bytes
    return tally


def name_model(model: Encoder) -> dict[str, Any]:
    """What a record says of its model. Raises VaedensityError where this machine does not compute it as it should."""
    return {"sha256": model.sha256, "name": model.name, "probe": model.proven_probe}


def free_name(name: str, taken: Collection[str]) -> str:
    """``name``, or a longer one that is not ``taken``."""
    number = 0
    while name in taken:
        name, number = f"{number}/{name}", number + 1
    return name


def write_arrays(
    writer: Writer,
    arrays: dict[str, NDArray[np.generic]],
    plan: WritePlan,
    number: int,
    tally: Tally,
    *,
    first: int = 0,
    verify: bool = True,
    threads: int | None = None,
    progress: Progress = lambda n: None,
) -> list[bytes | None]:
    """Write the blocks of ``arrays``, the first of which is array ``number`` of the archive; returns their digests.
    ``first``: items of that array that are there already.

    Each part is read twice: to be coded, and here, for the digest. Raises SourceChanged where the two are not the same.
    """
    digests: list[bytes | None] = []
    for own, (name, array) in enumerate(arrays.items(), number):
        target = _Target(writer, own, first, name, array)
        tally.bytes_in += array.nbytes
        before = writer.length
        try:
            if name in plan.coders:
                _write_with_model(target, tally, plan.coders[name], threads, progress)
            else:
                _write_fallback(target, tally, verify, threads, progress)
        except SourceChanged as error:
            error.array = name
            raise
        digests.append(target.digest.digest())
        tally.stored[name] = writer.length - before
        rows = 0 if name in plan.left_over else len(array) if array.ndim else 1
        tally.arrays.append((rows, array.size, plan.layouts[name] is not None or name in plan.left_over))
    return digests


class _Target:
    """Array ``number`` of the archive, which has ``before`` items there already; ``array`` holds those to be
    written."""

    def __init__(self, writer: Writer, number: int, before: int, name: str, array: NDArray[np.generic]):
        self.writer, self.number, self.before, self.name, self.array = writer, number, before, name, array
        self.digest, self.written = hashlib.sha256(), 0

    def add(self, items: int, codec: Codec, payload: bytes, coded: bytes) -> None:
        """Write the block of the next ``items``; ``coded``: SHA-256 of what was coded, which must be what ``array``
        holds now."""
        raw = (self.array[self.written : self.written + items] if self.array.ndim else self.array).tobytes()
        if hashlib.sha256(raw).digest() != coded:
            raise changed(getattr(self.array, "path", f"array {self.name}"))
        self.digest.update(raw)
        self.writer.add(self.number, self.before + self.written, items, codec, payload, zlib.crc32(raw))
        self.written += items

    def restart(self, mark: Mark) -> None:
        """Forget the blocks of the array, which are those since ``mark``."""
        self.writer.rewind(mark)
        self.digest, self.written = hashlib.sha256(), 0


def _write_with_model(
    target: _Target, tally: Tally, coder: BlockCoder, threads: int | None, progress: Progress
) -> None:
    """The blocks of an array by the model or, if that makes it smaller, by a fallback codec."""
    array, ticker, mark, own = target.array, Ticker(progress), target.writer.mark(), Tally()
    groups = chains.evenly(coder.spans(array), coder.model.chains_at_once(coder.way))
    dims = int(np.prod(coder.model.item_shape))

    def code(group: Sequence[tuple[int, int]]) -> list[tuple[CodedBlock, bytes]]:
        parts = [np.array(array[begin:end]) for begin, end in group]  # copies, which nobody changes
        digests = [hashlib.sha256(part.tobytes()).digest() for part in parts]
        return list(zip(coder.code(parts, ticker.tick), digests))

    for coded in side_by_side(code, groups, ticker, threads):
        for block, digest in coded:
            target.add(block.items, block.codec, block.payload, digest)
            own.count(block, dims)
    tally.fitting_items += len(array)
    modelled = target.writer.length - mark[1]
    if worth_asking(modelled, _fallback_estimate(array)):
        rivals = list(_fallback_blocks(array, coder.verify, threads, lambda n: None))
        by_fallback = sum(len(payload) + SHORTEST for _, _, payload, _ in rivals)
        if by_fallback < modelled:
            target.restart(mark)
            for rival in rivals:
                target.add(*rival)
            tally.fallback_blocks += len(rivals)
            tally.declined_bytes += modelled - by_fallback
            return
    tally.include(own)


def _fallback_estimate(array: NDArray[np.generic]) -> float:
    """Bytes that a fallback codec takes for ``array``, or somewhat more, from what is in its middle."""
    rows = max(1, FALLBACK_BLOCK_BYTES * len(array) // max(1, array.nbytes))
    begin = max(0, len(array) - rows) // 2
    middle = array[begin : begin + rows]
    return fallback.estimate(middle.tobytes()) * len(array) / max(1, len(middle))


def _write_fallback(target: _Target, tally: Tally, verify: bool, threads: int | None, progress: Progress) -> None:
    if target.array.nbytes:
        for block in _fallback_blocks(target.array, verify, threads, progress):
            target.add(*block)
            tally.fallback_blocks += 1


def _fallback_blocks(
    array: NDArray[np.generic], verify: bool, threads: int | None, progress: Progress
) -> Iterator[tuple[int, Codec, bytes, bytes]]:
    """(items, codec, payload, SHA-256 of what was coded) of each block."""
    rows, ticker = len(array) if array.ndim else 1, Ticker(progress)
    size, width = max(1, FALLBACK_BLOCK_BYTES * rows // array.nbytes), array.dtype.itemsize

    def code(first: int) -> tuple[int, Codec, bytes, bytes]:
        raw = (array[first : first + size] if array.ndim else array).tobytes()
        codec, payload = fallback.encode_verified(raw, width) if verify else fallback.encode(raw, width)
        count = min(size, rows - first)
        ticker.tick(count)
        return count, codec, payload, hashlib.sha256(raw).digest()

    return side_by_side(code, range(0, rows, size), ticker, threads)
