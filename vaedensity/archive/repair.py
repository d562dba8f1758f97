"""Rebuild an archive's index from its blocks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from vaedensity.archive.block import LOST, SINCE, Block
from vaedensity.archive.block_header import Frame, scan
from vaedensity.archive.container import (
    FRAMED_SINCE,
    Writer,
    read_directory,
    read_head,
    read_opening,
    stamp_of,
)
from vaedensity.archive.reader import check_record
from vaedensity.data.atomic import atomic_file, refuse_existing
from vaedensity.errors import DamagedArchive, UsageError


def repair(
    path: Path, out: Path, *, overwrite: bool = False, progress: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Write to ``out`` the whole blocks of the archive ``path`` under an index made anew; returns the record of `repair --json`.

    Items of which no whole block is found are marked as lost. Needs no model and decodes nothing. An archive without damage is left as
    it is and nothing is written (``whole``). Raises UsageError; DamagedArchive where the record itself is lost, which is nowhere else.
    """
    started = time.monotonic()
    refuse_existing(out, overwrite)
    try:
        f = open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    with f:
        _, version, size = read_head(f, str(path))
        if version < FRAMED_SINCE:
            raise DamagedArchive(
                f"{path}: blocks of format version {version} do not say what they are, expected {FRAMED_SINCE} or later; "
                "if only blocks are damaged, decompress it with keep_going=True"
            )
        try:
            record, opening, begin = read_opening(f, str(path), size)
            arrays, _, _ = check_record(record, version)
        except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
            raise DamagedArchive(f"{path}: the record makes no sense ({error}); it cannot be repaired") from error
        digests = _digests(f, path, len(arrays))
        rows = [array.rows if array.nbytes else 0 for array in arrays]
        try:
            found = _find(f, begin, size, stamp_of(opening), rows, version, progress)
        except ValueError as error:
            raise DamagedArchive(f"{path}: {error}; it cannot be repaired") from error
        lost = _gaps(found, rows)
        record_out = {
            "archive": str(path),
            "output": str(out),
            "blocks": len(found),
            "index_lost": digests is None,
            "lost": [{"array": arrays[k].name, "first": low, "end": high} for k, low, high in lost],
            "whole": digests is not None and not lost and _is_whole(f, path, found),
        }
        if not record_out["whole"]:
            with atomic_file(out, overwrite) as new:
                _write(f, stamp_of(opening), new, record, found, lost, digests or [None] * len(arrays))
                new.flush()
                with open(new.name, "rb") as written:
                    read_directory(written, str(out))
    return record_out | {"seconds": time.monotonic() - started}


def _digests(f: BinaryIO, path: Path, arrays: int) -> list[bytes | None] | None:
    """The digests of the closing, None where it is lost."""
    try:
        return read_directory(f, str(path)).digests
    except DamagedArchive:
        return None


def _is_whole(f: BinaryIO, path: Path, found: list[tuple[int, Frame, int]]) -> bool:
    """Whether the index says what the blocks say, one after the other."""
    said = read_directory(f, str(path)).blocks
    return [(b.begin, b.array, b.first, b.items, b.coder, b.size) for b in said] == [
        (at, frame.array, frame.first, frame.items, frame.coder, size) for at, frame, size in found
    ]


def _find(
    f: BinaryIO, begin: int, size: int, stamp: bytes, rows: list[int], version: int, progress: Callable[[int], None]
) -> list[tuple[int, Frame, int]]:
    """Whole blocks that can belong to the archive: none that overlaps what the same array's blocks before it hold."""
    found, ends = [], [0] * len(rows)
    for at, frame, length in scan(f, begin, size, stamp):
        progress(length)
        known = frame.array < len(rows) and SINCE.get(frame.coder, version + 1) <= version and frame.items > 0
        if known and ends[frame.array] <= frame.first and frame.first + frame.items <= rows[frame.array]:
            ends[frame.array] = frame.first + frame.items
            found.append((at, frame, length))
    return found


def _gaps(found: list[tuple[int, Frame, int]], rows: list[int]) -> list[tuple[int, int, int]]:
    """(array, first, end) of items that no block holds, or one that is marked as lost."""
    ends, gaps = [0] * len(rows), []
    for _, frame, _ in found:
        if frame.first > ends[frame.array]:
            gaps.append((frame.array, ends[frame.array], frame.first))
        if frame.coder == LOST:
            gaps.append((frame.array, frame.first, frame.first + frame.items))
        ends[frame.array] = frame.first + frame.items
    return gaps + [(k, end, count) for k, (end, count) in enumerate(zip(ends, rows)) if end < count]


def _write(
    f: BinaryIO,
    stamp: bytes,
    new: BinaryIO,
    record: dict[str, Any],
    found: list[tuple[int, Frame, int]],
    lost: list[tuple[int, int, int]],
    digests: list[bytes | None],
) -> None:
    """The archive of what was ``found``; each array's items in order, a block of coder LOST for each gap."""
    writer = Writer(new, record)
    missing = {(array, first): end for array, first, end in lost}
    ends = [0] * len(digests)
    for at, frame, length in found:
        if frame.coder == LOST:
            continue
        _mark(writer, missing, frame.array, ends)
        writer.copy(Block(frame.array, frame.first, frame.items, frame.coder, at, length), f, stamp)
        ends[frame.array] = frame.first + frame.items
    for array in range(len(digests)):
        _mark(writer, missing, array, ends)
    writer.finish(digests)


def _mark(writer: Writer, missing: dict[tuple[int, int], int], array: int, ends: list[int]) -> None:
    """Blocks for what is missing from where the array's blocks end so far."""
    while (end := missing.pop((array, ends[array]), None)) is not None:
        writer.add(array, ends[array], end - ends[array], LOST, b"", 0)
        ends[array] = end
