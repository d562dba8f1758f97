"""What an archive says of its blocks: who coded them, what they hold, where they lie."""

from dataclasses import dataclass
from typing import Any

LOST = 15  # no coder: items of which a repaired archive has no bytes
MODEL_CODERS = {
    16: 1,
    17: 2,
    18: 3,
    19: 3,
    20: 3,
    21: 3,
    22: 4,
}  # and the format version that brought each; others are fallback
SERIES_CODER = 22
COUPLED_CODERS = frozenset({17, 19, 21})
LONGEST_CHAIN = 4096  # items of a block that a model codes
MOST_PARTICLES = 256
SINCE = {0: 1, 1: 1, 2: 1, 3: 5, LOST: 5} | MODEL_CODERS


@dataclass(frozen=True)
class Block:
    """One block: the number of its array, the first of its ``items`` there, its coder, and the ``size`` bytes of the file from
    ``begin`` on that it takes, frame and payload. ``checksum``: CRC-32 of the payload, None where its frame has that."""

    array: int
    first: int
    items: int
    coder: int
    begin: int
    size: int
    checksum: int | None = None


@dataclass(frozen=True)
class Directory:
    """``record``: JSON that describes the archive. ``blocks``: in file order. ``version``: of the format. ``digests``: SHA-256 of
    each array, or of all of them together in archives of versions before 5; None where it is not known. ``blocks_begin``: offset.
    ``stamp``: what tells the archive's frames from those of others."""

    record: dict[str, Any]
    blocks: list[Block]
    version: int
    digests: list[bytes | None]
    blocks_begin: int
    stamp: bytes = b""
