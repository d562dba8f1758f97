"""What the container asks of whatever decodes and encodes the blocks of a model; engines plug in by name.

A *chain* is the items of one block on one stack of bits. Its *plan* says how each item was coded: one tuple of item
numbers for each fallback way (first those coded directly; of coupled chains, then those coded by plain bits-back); all
other items were coded in the best way. Chains with the same plan and flags can be decoded in lockstep.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.uint8]
"""(n,C,H,W): the model's levels of n items."""
Plan = tuple[tuple[int, ...], ...]
Tick = Callable[[int], None]
ENGINES = {"torch": "vaedensity.coding.engine", "numpy": "vaedensity.numpy_decoder.engine"}


@dataclass(frozen=True)
class Way:
    """How a model's blocks are coded. ``particles`` above 1: latents are coupled particles. ``ends_first``: of pixels, the
    lowest and the highest level are coded before the others."""

    particles: int = 1
    ends_first: bool = False


class Decoder(Protocol):
    """A model ready to decode. ``sha256``: of its integers; ``latents``: how many an item has; ``values``: what two
    levels stand for, or None; ``is_series``: whether items are series (1,1,T)."""

    @property
    def sha256(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def values(self) -> list[int] | None: ...
    @property
    def item_shape(self) -> tuple[int, int, int]: ...
    @property
    def is_series(self) -> bool: ...
    @property
    def latents(self) -> int: ...
    @property
    def probe(self) -> str:
        """What this machine makes of the fixed question of docs/format.md, "Probe": 16 hexadecimal digits."""

    def chains_at_once(self, way: Way) -> int:
        """How many chains to decode in lockstep."""

    def decode(self, words: Sequence[bytes], lengths: Sequence[int], plan: Plan, way: Way, tick: Tick) -> list[Items]:
        """The items of chains in lockstep, longest first. ``tick`` hears how many items are done. Raises ValueError where
        the words cannot be those of such items, or bits are left over after a chain's first item."""


class Engine(Protocol):
    """A module that makes decoders of model files."""

    def load_decoder(self, path: Path) -> Decoder:
        """Raises ModelError."""

    def parse_decoder(self, data: bytes, name: str, path: Path) -> Decoder:
        """As ``load_decoder``, of a model file's bytes that the archive ``path`` holds."""


def engine(name: str) -> Engine:
    """The engine of that name, imported now."""
    return import_module(ENGINES[name])  # type: ignore[return-value]
