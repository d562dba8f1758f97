"""What an archive says of its blocks: how each is coded, what it holds, where it lies (docs/format.md, "Block
header")."""

from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from typing import Any

from vaedensity.coding.plan import Way


class Kind(IntEnum):
    """The low four bits of a codec byte."""

    RAW = 0
    DEFLATE = 1
    LZMA = 2
    LZMA_PLANES = 3
    MODEL = 4
    SERIES = 5
    LOST = 15


COUPLED, ENDS_FIRST = 16, 32


@dataclass(frozen=True)
class Codec:
    """How a block is coded: ``kind``, and of a model's blocks of images two flags."""

    kind: Kind
    coupled: bool = False
    ends_first: bool = False

    @property
    def byte(self) -> int:
        """As archives hold it."""
        return self.kind | COUPLED * self.coupled | ENDS_FIRST * self.ends_first

    @property
    def by_model(self) -> bool:
        """Whether decoding needs the model."""
        return self.kind in (Kind.MODEL, Kind.SERIES)

    def way(self, particles: int) -> Way:
        """The way of a block of an archive with so many ``particles``."""
        return Way(particles if self.coupled else 1, self.ends_first)


RAW, DEFLATE, LZMA, LZMA_PLANES, LOST = (
    Codec(kind) for kind in (Kind.RAW, Kind.DEFLATE, Kind.LZMA, Kind.LZMA_PLANES, Kind.LOST)
)
SERIES = Codec(Kind.SERIES)
_MODEL = [Codec(Kind.MODEL, coupled, ends_first) for coupled, ends_first in product((False, True), repeat=2)]
CODECS = {codec.byte: codec for codec in (RAW, DEFLATE, LZMA, LZMA_PLANES, LOST, SERIES, *_MODEL)}
"""All codecs by their byte."""


def codec_of(byte: int) -> Codec:
    """The codec with that byte. Raises ValueError."""
    if byte not in CODECS:
        raise ValueError(f"codec byte {byte} is not known")
    return CODECS[byte]


@dataclass(frozen=True)
class Block:
    """One block: the number of its array, the first of its ``items`` there, its codec, and the ``size`` bytes of the
    file from ``begin`` on that it takes, block header and payload."""

    array: int
    first: int
    items: int
    codec: Codec
    begin: int
    size: int


@dataclass(frozen=True)
class Contents:
    """All that an archive says of itself before a block is read.

    ``record``: the JSON of its header. ``blocks``: in file order. ``digests``: SHA-256 of each array, None where it is
    not known. ``blocks_begin``: offset. ``archive_id``: tells its blocks from those of other archives."""

    record: dict[str, Any]
    blocks: list[Block]
    digests: list[bytes | None]
    blocks_begin: int
    archive_id: bytes
