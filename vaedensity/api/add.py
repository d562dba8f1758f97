"""Add to an archive what is not in it, without coding again what is."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity import __version__
from vaedensity.api.choose import choose_model, groups_of, open_model
from vaedensity.api.decompress import checked_metadata
from vaedensity.api.models import model_for
from vaedensity.api.packing import Coded, Say, Written, coded, cut_bytes, gather, require_readable
from vaedensity.api.settle import settle, smaller
from vaedensity.archive.container import Writer
from vaedensity.archive.decoding import check_model, feed, read_rows
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.writer import Tally, describe, name_model, plan_arrays, write_arrays
from vaedensity.coding.engine import CodingModel
from vaedensity.coding.plan import Tick, silent
from vaedensity.data.atomic import atomic_file
from vaedensity.data.collection import Collection
from vaedensity.data.tree import Tree
from vaedensity.errors import DamagedArchive, UsageError

PIECE_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Added(Coded):
    """What was added to an archive, and how much longer it is now."""

    archive: str
    bytes_added: int


class _LargerAsPixels(Exception):
    """Images of folders take more room as pixels than as files: carries the collections to be added instead."""

    def __init__(self, better: list[Collection]):
        self.better = better


def add(
    path: Path,
    sources: Sequence[Collection | Tree],
    model_name: str | None = None,
    *,
    to: str | None = None,
    verify: bool = True,
    threads: int | None = None,
    progress: Tick = silent,
    say: Say = lambda line: None,
) -> Added:
    """Put more into an archive, without coding again what it holds.

    The archive is replaced when all is written: whatever happens, it holds what it held, or that and ``sources``.

    Parameters
    ----------
    path : Path
        The archive.
    sources : sequence of Collection or Tree
        What is added, beside what the archive holds.
    model_name : str, optional
        A model file, released name, or folder to find the archive's model in.
    to : str, optional
        An array of the archive; the items of ``sources`` go behind its own.
    verify, threads, progress, say
        As of :func:`~vaedensity.api.compress.pack`.

    Returns
    -------
    Added
        Of what was added, but for ``bytes_out``, which are the archive's.

    Raises
    ------
    DamagedArchive, ModelError, UsageError, VaedensityError
    """
    options: dict[str, Any] = {"to": to, "verify": verify, "threads": threads}
    while True:
        try:
            return _add(path, sources, model_name, progress=progress, say=say, **options)
        except _LargerAsPixels as found:
            sources, progress, say = found.better, silent, lambda line: None


def _add(
    path: Path,
    sources: Sequence[Collection | Tree],
    model_name: str | None,
    *,
    to: str | None,
    verify: bool,
    threads: int | None,
    progress: Tick,
    say: Say,
) -> Added:
    started = time.monotonic()
    with _locked(path), ArchiveFile(path) as archive:
        metas, size_before = checked_metadata(archive), os.stat(path).st_size
        model = _model_of(archive, sources, model_name, say)
        chosen = settle(sources, model)
        collections = [cut_bytes(collection, model) for collection in chosen]
        record = {**archive.record, "arrays": [dict(entry) for entry in archive.record["arrays"]], "by": __version__}
        if to is None:
            arrays, own_metas = gather(collections, {array.name for array in archive.arrays}, metas)
            first = 0
        else:
            arrays, own_metas, first = {to: _more(archive, to, collections)}, [], archive.array(to).rows
        particles = archive.particles
        plan = plan_arrays(arrays, model, verify=verify, particles=particles)
        if plan.coders:
            assert model is not None
            named = name_model(model)
            check_model(archive, model)
            record["model"] = record.get("model") or named
        number, digests = len(archive.arrays), list(archive.digests)
        if to is None:
            record["arrays"] += describe(arrays, plan)
            record["restore"] = metas + own_metas
        else:
            number = archive.arrays.index(archive.array(to))
            record["arrays"][number]["shape"][0] += len(arrays[to])
            if to in plan.coders:
                record["arrays"][number]["layout"] = plan.layouts[to]
        tally = Tally()
        with atomic_file(path, True) as f:
            writer = Writer(f, record)
            for number_of_block, block in enumerate(archive.blocks):
                try:
                    writer.copy(block, archive.file, archive.archive_id)
                except ValueError as error:
                    raise DamagedArchive(
                        f"{path}: block {number_of_block} is damaged ({error}); see 'vaedensity repair --help'"
                    ) from error
            fresh = write_arrays(
                writer, arrays, plan, number, tally, first=first, verify=verify, threads=threads, progress=progress
            )
            if to is None:
                digests += fresh
            else:
                digests[number] = _digest(archive, number, model, arrays[to])
            tally.overhead |= writer.finish(digests)
            tally.payload_bytes = writer.payload_bytes
            for collection in collections:
                collection.require_unchanged()
            size = f.tell()
            if better := smaller(chosen, own_metas, tally.stored):
                raise _LargerAsPixels(better)
            require_readable(f)
    written = Written(model, particles, size, tally, chosen, tally.fitting_items, 0)
    fields = coded(written, time.monotonic() - started) | {"model_inside": archive.model_array is not None}
    return Added(**fields, archive=str(path), bytes_added=size - size_before)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """No other process adds to ``path`` meanwhile. Raises UsageError where one does."""
    try:
        f = open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    with f:
        try:
            import fcntl

            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # a system without such locks
        except BlockingIOError as error:
            raise UsageError(f"{path}: another process is adding to it; try again when it is done") from error
        except OSError:
            pass  # a file system without them
        if not os.path.samestat(os.fstat(f.fileno()), os.stat(path)):
            raise UsageError(f"{path}: another process has just added to it; try again")
        yield


def _model_of(
    archive: ArchiveFile, sources: Sequence[Collection | Tree], name: str | None, say: Say
) -> CodingModel | None:
    """The archive's model, since it has one at most; else the one named or the one that fits best."""
    if archive.model is not None:
        model = model_for(archive, name)
        assert isinstance(model, CodingModel)
        return model
    if "model" in archive.record:  # was tried, and nothing coded by it
        return None
    model = open_model(name) if name is not None else choose_model(groups_of(sources))
    if model is not None and name is None:
        say(f"using the released model {model.name}")
    return model


def _more(archive: ArchiveFile, to: str, collections: list[Collection]) -> NDArray[Any]:
    """The items to be put after those of the array ``to``. Raises UsageError."""
    array = archive.array(to)
    owner = next(meta for meta in archive.restore if to in meta["arrays"])
    parts = [part for collection in collections for part in collection.arrays.values()]
    if owner["kind"] not in ("npy", "npz") or any(
        collection.meta["kind"] not in ("npy", "npz") for collection in collections
    ):
        raise UsageError("to: expected .npy or .npz files, to be added to an array that came from one")
    for part in parts:
        if part.dtype.str != array.dtype.str or part.shape[1:] != array.shape[1:] or not part.ndim:
            raise UsageError(
                f"to {to}: found {part.dtype}{list(part.shape)}, expected {array.dtype}{['N', *array.shape[1:]]}"
            )
    out = np.ndarray((sum(map(len, parts)), *array.shape[1:]), array.dtype)  # np.concatenate makes >i4 <i4
    begin = 0
    for part in parts:
        out[begin : begin + len(part)] = part
        begin += len(part)
    return out


def _digest(archive: ArchiveFile, number: int, model: CodingModel | None, more: NDArray[Any]) -> bytes | None:
    """SHA-256 of the items of an array and then ``more``. Raises DamagedArchive.

    The items are decoded for it, and must have the SHA-256 that the archive gives them. None where it gives none: a new
    one would vouch for what nobody has checked.
    """
    digest, array, expected = hashlib.sha256(), archive.arrays[number], archive.digests[number]
    if expected is None:
        return None
    rows = max(1, PIECE_BYTES // max(1, array.row_bytes))
    for begin in range(0, array.rows, rows):
        digest.update(read_rows(archive, array.name, begin, min(begin + rows, array.rows), model).tobytes())
    if digest.digest() != expected:
        raise DamagedArchive(
            f"{archive.path}: array {array.name} does not have the SHA-256 of the original; nothing was added"
        )
    feed(digest, more)
    return digest.digest()
