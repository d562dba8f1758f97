"""Bidirectional Monte Carlo: how wrong is an estimator on this model? (Grosse et al. 2015)

On items drawn from the model itself the latents that made them are an exact draw from p(z|x). From it an
upper bound of log p(x) follows, from the estimator as usual a lower bound; log p(x) lies between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.density.estimate import Estimate, Floats
from vaedensity.density.noise import ItemNoise
from vaedensity.model.latent_model import LatentModel


class TwoSided(Protocol):
    """An estimator that bounds log p(x) from both sides: importance sampling and annealing."""

    @property
    def samples(self) -> int: ...

    def estimate(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Estimate: ...

    def upper(
        self, model: LatentModel, x: Tensor, latents: Tensor, noise: list[ItemNoise], batch_size: int
    ) -> Estimate: ...


@dataclass(frozen=True)
class Sandwich:
    """Bounds, in expectation, of log p(x) for items ``x`` (n,...) drawn from the model."""

    x: NDArray[np.generic]
    lower: Estimate
    upper: Estimate

    @property
    def width_nats(self) -> Floats:
        """(n,): noise can make single ones negative; their mean is what the estimator may be wrong by."""
        return self.upper.log_prob_nats - self.lower.log_prob_nats

    @property
    def mean_width_nats(self) -> float:
        return float(self.width_nats.mean())

    @property
    def standard_error_nats(self) -> float:
        """Of the mean width over items, their differences included."""
        n = len(self.width_nats)
        return float(self.width_nats.std(ddof=1) / n**0.5) if n > 1 else float("nan")


def simulate(
    model: LatentModel, n: int, *, model_sha256: str = "", seed: int = 0, first: int = 0
) -> tuple[Tensor, Tensor, list[ItemNoise]]:
    """Items ``first`` .. ``first`` + n - 1 of the model's stream of samples, their latents (n, noise_dim) and
    what noise they are left with.

    Item i is the same whatever ``first`` and n are.
    """
    p = next(model.parameters(), torch.zeros(()))
    sources = [ItemNoise(model_sha256, seed, np.array(first + i)) for i in range(n)]
    streams = [source.stream("simulate") for source in sources]
    noise = np.stack([g.standard_normal(model.noise_dim, np.float32) for g in streams])
    uniform = np.stack([g.random(model.uniform_dim) for g in streams]).clip(1e-12, 1 - 1e-12)
    with torch.no_grad():
        x, latents = model.simulate(
            torch.from_numpy(noise).to(p.device, p.dtype), torch.from_numpy(uniform).to(p.device, torch.float64)
        )
    return x, latents, sources


def sandwich(
    model: LatentModel,
    estimator: TwoSided,
    n: int,
    *,
    model_sha256: str = "",
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int], None] = lambda n: None,
) -> Sandwich:
    """Both bounds on ``n`` items drawn from the model."""
    per_pass = max(1, batch_size // estimator.samples)
    items, lower, upper = [], [], []
    for first in range(0, n, per_pass):
        x, latents, noise = simulate(model, min(per_pass, n - first), model_sha256=model_sha256, seed=seed, first=first)
        items.append(x.cpu().numpy())
        lower.append(estimator.estimate(model, x, noise, batch_size))
        upper.append(estimator.upper(model, x, latents, noise, batch_size))
        progress(len(x))
    return Sandwich(np.concatenate(items), Estimate.concatenate(lower), Estimate.concatenate(upper))
