"""What every estimator of log p(x) is to the rest: a small object that carries its own settings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.density.estimate import Estimate
from vaedensity.density.noise import ItemNoise
from vaedensity.model.latent_model import LatentModel


class Estimator(ABC):
    """Knows no architecture and uses exactly as many samples as asked for."""

    samples: int

    @abstractmethod
    def estimate(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Estimate:
        """Estimates for items ``x`` (B,...), one noise source each; at most ``batch_size`` pairs of item
        and sample are in memory at once, where B allows."""


def score(
    model: LatentModel,
    items: NDArray[np.uint8],
    estimator: Estimator,
    *,
    model_sha256: str = "",
    seed: int = 0,
    batch_size: int = 256,
    first_index: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> Estimate:
    """Estimate log p of every item of ``items`` (N,...); see :class:`Estimate`.

    Results depend on (model_sha256, seed, index of the item) and not on batch size or order.

    >>> score(model, x, ImportanceSampling(samples=512)).log_prob_nats      # doctest: +SKIP
    """
    parts = list(score_batches(model, items, estimator, model_sha256, seed, batch_size, first_index, progress))
    arrays = [
        np.concatenate([getattr(p, name) for p in parts])
        for name in ("log_prob_nats", "standard_error_nats", "elbo_nats", "ess")
    ]
    return Estimate(*arrays, samples=estimator.samples, kind=parts[0].kind)


def score_batches(
    model: LatentModel,
    items: NDArray[np.uint8],
    estimator: Estimator,
    model_sha256: str,
    seed: int,
    batch_size: int,
    first_index: int,
    progress: Callable[[int], None],
) -> Iterator[Estimate]:
    """The estimates of :func:`score`, a few items at a time, in order."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    per_pass = max(1, batch_size // estimator.samples)
    for begin in range(0, len(items), per_pass):
        part = items[begin : begin + per_pass]
        noise = [ItemNoise(model_sha256, seed, first_index + begin + i) for i in range(len(part))]
        x = torch.from_numpy(np.ascontiguousarray(part)).to(device)
        yield estimator.estimate(model, x, noise, batch_size)
        progress(len(part))
