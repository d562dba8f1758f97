"""The words that coders of chains and the container share. Needs no torch.

A *chain* is the items of one block, coded on one stack of bits. Its *plan* lists the items that were not coded in the
best way, which the first ones are not, as their stack holds no bits yet.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.uint8]
"""(n,C,H,W): the model's levels of n items."""
Plan = tuple[tuple[int, ...], ...]
"""Items of a chain by their fallback way: first those coded directly, then, of coupled chains, those coded by bits-back
with one particle. The best way coded all others."""
Tick = Callable[[int], None]
"""Hears how many items are done."""
LONGEST_CHAIN = 4096
MOST_PARTICLES = 256


@dataclass(frozen=True)
class Way:
    """How a model codes its blocks.

    ``particles``: more than one of them are coupled. ``ends_first``: of pixels, the lowest and the highest level are
    coded before the others, which is faster where these are many.
    """

    particles: int = 1
    ends_first: bool = False

    @property
    def coupled(self) -> bool:
        """Whether items have several particles."""
        return self.particles > 1


@dataclass(frozen=True)
class CodedChains:
    """The coder words of chains in lockstep, their common plan (of the longest), and the bits behind them.

    ``best_bits``, ``fallback_bits``: float64, one for each chain, that its items took in the best and the other ways.
    """

    words: list[bytes]
    plan: Plan
    best_bits: NDArray[np.float64]
    fallback_bits: NDArray[np.float64]

    @property
    def fallback_items(self) -> list[int]:
        """The items of the plan, in order."""
        return sorted(t for items in self.plan for t in items)


def silent(count: int) -> None:
    """A tick that nobody listens to."""
