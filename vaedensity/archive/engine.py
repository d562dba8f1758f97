"""What the container asks of models: a decoder behind each name of ``engine``, and the encoder.

The container knows bytes, checksums and which items are where. An engine knows a model's arithmetic. Both engines give
the same items for the same words, or the archive says so.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from vaedensity.coding.plan import CodedChains, Items, Plan, Tick, Way

ENGINES = {"torch": "vaedensity.coding.engine", "numpy": "vaedensity.numpy_decoder.engine"}


class Decoder(Protocol):
    """A model ready to decode."""

    @property
    def sha256(self) -> str:
        """Of the model's integers (docs/format.md, "Network SHA-256")."""

    @property
    def name(self) -> str: ...

    @property
    def values(self) -> list[int] | None:
        """What the two levels of two-valued data stand for, else None."""

    @property
    def item_shape(self) -> tuple[int, int, int]:
        """(C,H,W); of series (1,1,T)."""

    @property
    def is_series(self) -> bool: ...

    @property
    def latents(self) -> int:
        """How many latents an item has."""

    @property
    def probe(self) -> str:
        """What this machine makes of the fixed question of docs/format.md, "Probe": 16 hexadecimal digits."""

    def prepare(self) -> None:
        """Build and compile what coding needs, so that forked processes share it."""

    def chains_at_once(self, way: Way) -> int:
        """How many chains to decode in lockstep, so that memory does not grow."""

    def decode(self, words: Sequence[bytes], lengths: Sequence[int], plan: Plan, way: Way, tick: Tick) -> list[Items]:
        """The items of chains with one plan, longest first.

        Raises ValueError where the words cannot be those of such items or bits are left over after a chain's first
        item."""


class Encoder(Decoder, Protocol):
    """A model ready to encode, too."""

    @property
    def levels(self) -> int: ...

    @property
    def bits_per_dim(self) -> float:
        """Its usual rate, which decides how long chains are."""

    @property
    def file_bytes(self) -> int: ...

    @property
    def proven_probe(self) -> str:
        """``probe``, where arithmetic without torch gives the same. Raises VaedensityError."""

    def encode(self, chains: list[Items], way: Way, tick: Tick) -> CodedChains:
        """Code ``chains`` in lockstep, longest first."""

    def deep_bits(self, chains: list[Items], items: list[int], way: Way) -> NDArray[np.float64]:
        """Bits that ``items`` of each chain would take in the best way, from stacks that hold enough bits."""


class Engine(Protocol):
    """A module that makes decoders of model files."""

    def load_decoder(self, path: Path) -> Decoder:
        """Raises ModelError."""

    def parse_decoder(self, data: bytes, name: str, path: Path) -> Decoder:
        """As ``load_decoder``, of a model file's bytes that the archive ``path`` holds."""


def engine(name: str) -> Engine:
    """The engine of that name, imported now: only what it needs is loaded."""
    return cast(Engine, import_module(ENGINES[name]))
