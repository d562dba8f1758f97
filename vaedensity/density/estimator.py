"""What every estimator of log p(x) is to the rest: a small object that carries its own settings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import Field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.arithmetic import full_precision
from vaedensity.density.estimate import Estimate, Floats, Kind
from vaedensity.density.noise import ItemNoise
from vaedensity.density.weights import Collector, Rows, WeightSums
from vaedensity.items import plain_array
from vaedensity.model.latent_model import LatentModel

ITEMS_AT_ONCE = 16  # share an encoder pass even where one item's samples alone fill a batch


class Draws(NamedTuple):
    """Log-weights (r,k) of r items, and the log-weights of the plain posterior draws behind them, in nats."""

    log_weights: Floats
    elbo_terms: Floats


Sampler = Callable[[Rows, int], Draws]
"""Draws the next k samples of each of the items ``rows``; the first call gives samples 0..k-1."""


class Estimator(ABC):
    """A source of log-weights and a way to gather them. Knows no architecture and uses exactly as many
    samples as asked for."""

    if TYPE_CHECKING:  # a dataclass would take a property that exists for the default of its field

        @property
        def samples(self) -> int: ...

        @property
        def name(self) -> str: ...

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # every estimator is a dataclass
    kind: Kind

    @abstractmethod
    def sampler(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Sampler:
        """Where the log-weights of items ``x`` (B,...) come from, one noise source each."""

    def collector(self, items: int, most: int) -> Collector:
        """What gathers up to ``most`` log-weights of each of ``items`` items."""
        return WeightSums(items, most, self.kind)

    def estimate(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Estimate:
        """Estimates for items ``x`` (B,...); at most ``batch_size`` pairs of item and sample are in memory
        at once, where B allows."""
        weights = self.collector(len(x), self.samples)
        gather(self.sampler(model, x, noise, batch_size), weights, np.arange(len(x)), self.samples, batch_size)
        return weights.estimate()


def gather(draw: Sampler, weights: Collector, rows: Rows, samples: int, batch_size: int) -> None:
    """Draw ``samples`` more for each item of ``rows``, a batch at a time."""
    chunk = max(1, min(samples, batch_size // len(rows)))
    for begin in range(0, samples, chunk):
        drawn = draw(rows, min(chunk, samples - begin))
        weights.add(rows, drawn.log_weights, drawn.elbo_terms)


@full_precision()
def score(
    model: LatentModel,
    items: NDArray[np.generic],
    estimator: Estimator,
    *,
    model_sha256: str = "",
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int], None] = lambda n: None,
) -> Estimate:
    """Estimate log p of every item of ``items`` (N,...); see :class:`Estimate`.

    Results depend on (model_sha256, seed, the item's values) and not on batch size, order or what else
    is scored, up to the rounding of float32 sums (below 0.001 nats on images).

    >>> score(model, x, ImportanceSampling(samples=512)).log_prob_nats      # doctest: +SKIP
    """
    parts, items = [], plain_array(items, "items")
    for part in score_batches(model, items, estimator, model_sha256=model_sha256, seed=seed, batch_size=batch_size):
        parts.append(part)
        progress(len(part))
    return Estimate.concatenate(parts)


def score_batches(
    model: LatentModel,
    items: NDArray[np.generic],
    estimator: Estimator,
    *,
    model_sha256: str = "",
    seed: int = 0,
    batch_size: int = 256,
) -> Iterator[Estimate]:
    """The estimates of :func:`score`, a few items at a time, in order."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    per_pass = max(min(ITEMS_AT_ONCE, batch_size), batch_size // estimator.samples)
    for begin in range(0, len(items), per_pass):
        part = np.array(items[begin : begin + per_pass], order="C")  # a copy: torch warns of arrays that are read-only
        noise = [ItemNoise(model_sha256, seed, item) for item in part]
        key = np.array([source.key % 2**64 for source in noise], np.uint64)
        estimate = estimator.estimate(model, torch.from_numpy(part).to(device), noise, batch_size)
        yield replace(estimate, item_key=key)
