"""Bits-back coding with asymmetric numeral systems, BB-ANS (Townsend, Bird & Barber 2019, arXiv:1901.04866, table 1).

Several levels of latents are one z here, whose prior and posterior are autoregressive codecs. Bit-Swap (Kingma et al.
2019), which interleaves the levels to need fewer initial bits, is not used: items without bits to get back are coded
by :class:`Direct`.
"""

from collections.abc import Callable
from typing import Any

from vaedensity.coding.ans import Stacks
from vaedensity.coding.codec import Codec

SPARE_BITS = 64  # an empty stack pops zeros without complaint: never go near it


class TooShallow(Exception):
    """A stack ran out of bits to get back; the stacks are spoilt, go back to a copy."""


class BitsBack(Codec):
    """Codes x with latents z for -log2 p(x|z) p(z) / q(z|x) bits: minus the ELBO on average.

    Parameters
    ----------
    prior : Codec
        Of z.
    posterior, likelihood : callable
        ``posterior(x)``: the codec of z given x; ``likelihood(z)``: that of x given z.

    Raises
    ------
    TooShallow
        By ``push``, where a stack holds too few bits to pop z from.
    """

    def __init__(self, prior: Codec, posterior: Callable[[Any], Codec], likelihood: Callable[[Any], Codec]):
        self.prior, self.posterior, self.likelihood = prior, posterior, likelihood

    def push(self, stacks: Stacks, symbol: Any) -> None:
        z = self.posterior(symbol).pop(stacks)  # gets log2 1/q bits back
        if (stacks.depth_bits() < SPARE_BITS).any():
            raise TooShallow
        self.likelihood(z).push(stacks, symbol)
        self.prior.push(stacks, z)

    def pop(self, stacks: Stacks) -> Any:
        z = self.prior.pop(stacks)
        symbol = self.likelihood(z).pop(stacks)
        self.posterior(symbol).push(stacks, z)
        return symbol


class Direct(Codec):
    """Codes x with one chosen z, for -log2 p(x|z) p(z) bits: for stacks that hold too few bits to get back.

    Parameters
    ----------
    prior : Codec
        Of z. It should put its mass on the few values that ``point`` chooses from.
    point : callable
        ``point(x)``: the z to take.
    likelihood : callable
        ``likelihood(z)``: the codec of x given z.
    """

    def __init__(self, prior: Codec, point: Callable[[Any], Any], likelihood: Callable[[Any], Codec]):
        self.prior, self.point, self.likelihood = prior, point, likelihood

    def push(self, stacks: Stacks, symbol: Any) -> None:
        z = self.point(symbol)
        self.likelihood(z).push(stacks, symbol)
        self.prior.push(stacks, z)

    def pop(self, stacks: Stacks) -> Any:
        return self.likelihood(self.prior.pop(stacks)).pop(stacks)
