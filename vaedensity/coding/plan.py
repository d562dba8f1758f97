"""What the coding of chains and the container share. Needs no torch.

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
"""Called with the number of items that are done."""
LONGEST_CHAIN = 4096
MOST_PARTICLES = 256


@dataclass(frozen=True)
class Way:
    """How a model codes its blocks.

    Attributes
    ----------
    particles : int
        More than one are coupled.
    ends_first : bool
        Whether the lowest and the highest level of pixels are coded before the others, which is faster where these
        are many.

    Examples
    --------
    >>> Way(particles=4).coupled
    True
    """

    particles: int = 1
    ends_first: bool = False

    @property
    def coupled(self) -> bool:
        """Whether items have several particles."""
        return self.particles > 1


@dataclass(frozen=True)
class CodedChains:
    """Chains that were coded in lockstep.

    Attributes
    ----------
    words : list of bytes
        Each chain's 32-bit words.
    plan : Plan
        Of the longest chain; the others' are its beginnings.
    best_bits, fallback_bits : numpy.ndarray
        (chains,) float64: bits that each chain's items took in the best way and in the other ways.
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
    """A Tick that does nothing."""
