"""Items that cannot be decoded: refused, or, where that is asked for, written down while the others are decoded."""

import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import DamagedArchive
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.record import LOST, Block, Entry


class Lost(NamedTuple):
    """Items ``first`` .. ``end`` - 1 of an array that could not be decoded, and why."""

    array: str
    first: int
    end: int
    reason: str


class Losses:
    """Where errors of blocks go: raised, or kept in ``found`` where they are ``allowed``."""

    def __init__(self, allowed: bool):
        self.allowed = allowed
        self.found: list[Lost] = []

    def take(
        self, directory: Directory, array: Entry, block: Block, place: NDArray[np.uint8], error: DamagedArchive
    ) -> None:
        """Raise ``error`` of a block, or meta it and make its items, whose bytes are ``place``, zeros."""
        self._take(directory, array, (block.first, block.first + block.items), place, error)

    def take_array(self, directory: Directory, array: Entry, data: NDArray[Any], error: DamagedArchive) -> None:
        """:meth:`take` for all items of an array, decoded into ``data``."""
        self._take(directory, array, (0, array.rows), data.reshape(-1).view(np.uint8), error)

    def _take(
        self,
        directory: Directory,
        array: Entry,
        items: tuple[int, int],
        place: NDArray[np.uint8],
        error: DamagedArchive,
    ) -> None:
        if not self.allowed:
            raise error
        place[:] = 0
        reason = str(error).removeprefix(f"{directory.path}: ")
        self.found.append(Lost(array.name, *items, reason))

    def holes(self) -> dict[str, list[tuple[int, int]]]:
        """Ranges of lost items by array."""
        out: dict[str, list[tuple[int, int]]] = {}
        for one in self.found:
            out.setdefault(one.array, []).append((one.first, one.end))
        return out


def require_none_lost(directory: Directory, blocks: Iterable[Block]) -> None:
    """Raise DamagedArchive where items of ``blocks`` are lost (section 6.1)."""
    lost = [block for block in blocks if block.coder == LOST]
    if lost:
        block, more = lost[0], f" and {len(lost) - 1} more blocks" if len(lost) > 1 else ""
        raise DamagedArchive(
            f"{directory.path}: block {block.index} is lost, items {block.first} to {block.first + block.items - 1} "
            f"of array {directory.arrays[block.array].name}{more}; the archive was repaired without them; keep going to restore the others"
        )


def require_checksum(directory: Directory, block: Block, items: NDArray[np.uint8], checksum: int | None) -> None:
    """Raise DamagedArchive unless the bytes ``items`` of a block have their CRC-32, or it is not known."""
    if checksum is not None and zlib.crc32(np.ascontiguousarray(items).data) != checksum:
        raise disagreement(directory, block, "decode to other items than were packed")


def disagreement(directory: Directory, block: Block, what: str) -> DamagedArchive:
    """What is said of a block that is as it was written and yet decodes to other items."""
    return DamagedArchive(
        f"{directory.path}: block {block.index}: this machine disagrees: its bytes are as written, but {what}; "
        "nothing of it can be trusted here, try another engine or machine"
    )
