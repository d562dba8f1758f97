"""Bits-back coding (Townsend, Bird & Barber 2019) and its beginning without bits to get back."""

from collections.abc import Callable
from typing import Any

from vaedensity.coding.ans import Stacks
from vaedensity.coding.codec import Codec

SPARE_BITS = 64  # an empty stack pops zeros without complaint: never go near it


class TooShallow(Exception):
    """A stack ran out of bits to get back; the stacks are spoilt, go back to a copy."""


class BitsBack(Codec):
    """Codes x with latents z for -log2 p(x|z) p(z) / q(z|x) bits: minus the ELBO on average.

    ``posterior(x)`` and ``likelihood(z)`` are codecs conditioned on what is known by then.
    ``push`` raises TooShallow where the stack cannot pay for z.
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
    """Codes x with latents chosen by ``point(x)``, for stacks that hold too few bits to get back.

    ``prior`` should put its mass on the few values that ``point`` chooses from.
    """

    def __init__(self, prior: Codec, point: Callable[[Any], Any], likelihood: Callable[[Any], Codec]):
        self.prior, self.point, self.likelihood = prior, point, likelihood

    def push(self, stacks: Stacks, symbol: Any) -> None:
        z = self.point(symbol)
        self.likelihood(z).push(stacks, symbol)
        self.prior.push(stacks, z)

    def pop(self, stacks: Stacks) -> Any:
        return self.likelihood(self.prior.pop(stacks)).pop(stacks)
