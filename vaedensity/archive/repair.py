"""Rebuild an archive's index from its blocks."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vaedensity.archive.block import LOST, Block
from vaedensity.archive.block_header import BlockHeader, scan
from vaedensity.archive.container import SENSELESS, Writer, id_of, read_contents, read_head, read_header
from vaedensity.archive.record import check_record
from vaedensity.coding.plan import Tick, silent
from vaedensity.data.atomic import atomic_file, refuse_existing
from vaedensity.errors import DamagedArchive, UsageError


@dataclass(frozen=True)
class LostItems:
    """Items ``first`` .. ``end`` - 1 of the array of that name."""

    array: str
    first: int
    end: int


@dataclass(frozen=True)
class Repaired:
    """What :func:`repair` found.

    ``blocks``: whole ones; ``index_lost``: whether the index was; ``whole``: whether nothing was wrong, and so nothing
    was written."""

    archive: str
    output: str
    blocks: int
    index_lost: bool
    lost: list[LostItems]
    whole: bool
    seconds: float


@dataclass(frozen=True)
class _Found:
    """A whole block: where it begins, what its header says, and its bytes."""

    begin: int
    header: BlockHeader
    size: int

    @property
    def block(self) -> Block:
        h = self.header
        return Block(h.array, h.first, h.items, h.codec, self.begin, self.size)


def repair(path: Path, out: Path, *, overwrite: bool = False, progress: Tick = silent) -> Repaired:
    """Write the whole blocks of a damaged or cut-off archive under an index made anew.

    Items of which no whole block is found are marked as lost. This needs no model and decodes nothing. An archive
    without damage is left as it is, and nothing is written.

    Parameters
    ----------
    path, out : Path
        The archive, and the archive to write.
    overwrite : bool
        Whether ``out`` may exist.
    progress : callable
        Called with the number of bytes that are done.

    Returns
    -------
    Repaired

    Raises
    ------
    UsageError
        A file cannot be read, or ``out`` exists.
    DamagedArchive
        The header is damaged: what it says stands nowhere else.
    """
    started = time.monotonic()
    refuse_existing(out, overwrite)
    try:
        f = open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    with f:
        size = read_head(f, str(path))
        try:
            record, fixed, begin = read_header(f, str(path), size)
            arrays = check_record(record).arrays
        except SENSELESS as error:
            raise DamagedArchive(f"{path}: the header makes no sense ({error}); it cannot be repaired") from error
        try:
            contents = read_contents(f, str(path))
        except DamagedArchive:
            contents = None
        rows = [array.rows if array.nbytes else 0 for array in arrays]
        try:
            found = _find(f, begin, size, id_of(fixed), rows, progress)
        except ValueError as error:
            raise DamagedArchive(f"{path}: {error}; it cannot be repaired") from error
        lost = _gaps(found, rows)
        whole = contents is not None and not lost and contents.blocks == [one.block for one in found]
        if not whole:
            digests: list[bytes | None] = contents.digests if contents else [None] * len(arrays)
            with atomic_file(out, overwrite) as new:
                _write(f, id_of(fixed), new, record, found, lost, digests)
                new.flush()
                with open(new.name, "rb") as written:
                    read_contents(written, str(out))
    return Repaired(
        archive=str(path),
        output=str(out),
        blocks=len(found),
        index_lost=contents is None,
        lost=[LostItems(arrays[k].name, low, high) for k, low, high in lost],
        whole=whole,
        seconds=time.monotonic() - started,
    )


def _find(f: BinaryIO, begin: int, size: int, archive_id: bytes, rows: list[int], progress: Tick) -> list[_Found]:
    """Whole blocks that can belong to the archive: none that overlaps what the same array's blocks before it hold."""
    found, ends = [], [0] * len(rows)
    for at, header, length in scan(f, begin, size, archive_id):
        progress(length)
        known = header.array < len(rows) and header.items > 0
        if known and ends[header.array] <= header.first and header.first + header.items <= rows[header.array]:
            ends[header.array] = header.first + header.items
            found.append(_Found(at, header, length))
    return found


def _gaps(found: list[_Found], rows: list[int]) -> list[tuple[int, int, int]]:
    """(array, first, end) of items that no block holds, or one that is marked as lost."""
    ends, gaps = [0] * len(rows), []
    for header in (one.header for one in found):
        if header.first > ends[header.array]:
            gaps.append((header.array, ends[header.array], header.first))
        ends[header.array] = header.first + header.items
        if header.codec == LOST:
            gaps.append((header.array, header.first, ends[header.array]))
    return gaps + [(k, end, count) for k, (end, count) in enumerate(zip(ends, rows)) if end < count]


def _write(
    f: BinaryIO,
    archive_id: bytes,
    new: BinaryIO,
    record: dict[str, Any],
    found: list[_Found],
    lost: list[tuple[int, int, int]],
    digests: list[bytes | None],
) -> None:
    """The archive of what was ``found``; each array's items in order, a block of codec LOST for each gap."""
    writer = Writer(new, record)
    missing = {(array, first): end for array, first, end in lost}
    ends = [0] * len(digests)
    for block in (one.block for one in found):
        if block.codec == LOST:
            continue
        _mark(writer, missing, block.array, ends)
        writer.copy(block, f, archive_id)
        ends[block.array] = block.first + block.items
    for array in range(len(digests)):
        _mark(writer, missing, array, ends)
    writer.finish(digests)


def _mark(writer: Writer, missing: dict[tuple[int, int], int], array: int, ends: list[int]) -> None:
    """Blocks for what is missing from where the array's blocks end so far."""
    while (end := missing.pop((array, ends[array]), None)) is not None:
        writer.add(array, ends[array], end - ends[array], LOST, b"", 0)
        ends[array] = end
