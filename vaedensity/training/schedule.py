"""How far a run has come, and what follows from it: learning rate and KL weight."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """When a run ends: after ``steps`` optimiser steps or ``seconds`` of training, whichever is set."""

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
    """Linear warm-up over ``warmup_steps``, then half a cosine down to ``floor`` of the peak."""

    peak: float = 2e-3
    warmup_steps: int = 200
    floor: float = 0.01

    def rate(self, progress: float, steps: int) -> float:
        warm = min(1.0, (steps + 1) / self.warmup_steps)
        return self.peak * warm * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class KLWarmup:
    """KL weight rising linearly from ``start`` to 1 over the first ``fraction`` of the run
    (Bowman et al. 2016), which keeps latents in use while the likelihood is still poor."""

    fraction: float = 0.1
    start: float = 0.1

    def weight(self, progress: float) -> float:
        return 1.0 if self.fraction <= 0 else min(1.0, self.start + (1 - self.start) * progress / self.fraction)


@dataclass(frozen=True)
class FreeBits:
    """Least KL of every level, in bits per dimension: from ``bits_per_dim`` linearly to 0 at ``fraction`` of the run.

    A likelihood that sees most of an item before each pixel learns faster than latents do and leaves them unused
    (Bowman et al. 2016); once in use, they stay so without help where they are worth their bits.
    """

    bits_per_dim: float = 0.03
    fraction: float = 0.7

    def floor(self, progress: float) -> float:
        return self.bits_per_dim * max(0.0, 1 - progress / self.fraction) if self.fraction > 0 else 0.0
