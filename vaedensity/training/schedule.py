"""What follows from how far a run has come: the learning rate, the KL term's weight and floor, the next batch."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Length:
    """When a run ends: after ``steps`` optimiser steps or ``seconds`` of training, whichever is set and comes first.

    >>> Length(steps=200).progress(50, seconds=9.0)
    0.25
    """

    steps: int | None = None
    seconds: float | None = None

    def progress(self, steps: int, seconds: float) -> float:
        """Fraction done, 1.0 when it is over."""
        done = [0.0]
        if self.steps is not None:
            done.append(steps / self.steps if self.steps else 1.0)
        if self.seconds is not None:
            done.append(seconds / self.seconds if self.seconds else 1.0)
        return min(1.0, max(done))


@dataclass(frozen=True)
class WarmupCosine:
    """The learning rate: linear warm-up over ``warmup_steps``, then half a cosine down to ``floor`` of the ``peak``
    (Loshchilov & Hutter 2017, eq. 5, without restarts).

    >>> WarmupCosine(peak=0.002).rate(progress=1.0, steps=9999)
    2e-05
    """

    peak: float = 2e-3
    warmup_steps: int = 200
    floor: float = 0.01

    def rate(self, progress: float, steps: int) -> float:
        warm = min(1.0, (steps + 1) / self.warmup_steps)
        return self.peak * warm * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class KLWarmup:
    """The KL term's weight, rising linearly from ``start`` to 1 over the first ``fraction`` of the run
    (Bowman et al. 2016). It keeps latents in use while the likelihood is still poor.

    >>> KLWarmup(fraction=0.1, start=0.1).weight(progress=0.2)
    1.0
    """

    fraction: float = 0.1
    start: float = 0.1

    def weight(self, progress: float) -> float:
        return 1.0 if self.fraction <= 0 else min(1.0, self.start + (1 - self.start) * progress / self.fraction)


@dataclass(frozen=True)
class FreeBits:
    """The least KL of every level in bits per dimension, falling linearly from ``bits_per_dim`` to 0 at ``fraction``
    of the run (after Kingma et al. 2016, appendix C.8).

    A likelihood that sees most of an item before each pixel learns faster than latents do and leaves them unused
    (Bowman et al. 2016). Once in use, they stay so without help where they are worth their bits.

    >>> FreeBits(0.03, fraction=0.5).floor(progress=0.25)
    0.015
    """

    bits_per_dim: float = 0.03
    fraction: float = 0.7

    def floor(self, progress: float) -> float:
        return self.bits_per_dim * max(0.0, 1 - progress / self.fraction) if self.fraction > 0 else 0.0


def batch_at(train: NDArray[np.uint8], step: int, batch_size: int, seed: int) -> NDArray[np.uint8]:
    """Items of the batch after ``step`` batches: epochs are permutations, a function of (seed, epoch)."""
    batch_size = min(batch_size, len(train))
    epoch, position = divmod(step, len(train) // batch_size)
    order = _epoch_order(len(train), seed, epoch)
    return np.ascontiguousarray(train[np.sort(order[position * batch_size : (position + 1) * batch_size])])


@lru_cache(maxsize=2)
def _epoch_order(items: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(items)
