"""Sampling until the error bar is short enough, item by item."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from vaedensity.density.estimate import Estimate, Kind
from vaedensity.density.estimator import Estimator, Sampler, gather
from vaedensity.density.noise import ItemNoise
from vaedensity.density.weights import Collector
from vaedensity.errors import UsageError
from vaedensity.model.latent_model import LatentModel

FEWEST = 32  # fewer weights say too little about their own spread, and have no k-hat
LARGEST_TARGET = 0.5  # the delta method's error never exceeds 1 nat, however bad the weights are


@dataclass(frozen=True)
class UntilStandardError(Estimator):
    """``estimator`` with its samples doubled for the items whose standard error exceeds ``target_nats``.

    It starts with the estimator's own number (at least 32) and never exceeds ``most``; ``Estimate.met`` tells
    which items made it. Stopping on the samples themselves forgoes the guarantee of a bound, so the
    result counts as a point estimate.
    """

    estimator: Estimator
    target_nats: float
    most: int = 65536
    kind = Kind.POINT_ESTIMATE

    def __post_init__(self) -> None:
        if not 0 < self.target_nats <= LARGEST_TARGET:
            raise UsageError(
                f"found a standard error of {self.target_nats} nats to reach, expected more than 0 and at most "
                f"{LARGEST_TARGET}: the measured error saturates at 1"
            )
        if self.most < max(FEWEST, self.estimator.samples):
            raise UsageError(
                f"found at most {self.most} samples, expected at least {max(FEWEST, self.estimator.samples)}, with which "
                "it begins"
            )
        replace(self.estimator, samples=self.most)  # refuses what it cannot do

    @property
    def samples(self) -> int:
        return max(FEWEST, self.estimator.samples)

    @property
    def name(self) -> str:
        return self.estimator.name

    def sampler(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Sampler:
        return self.estimator.sampler(model, x, noise, batch_size)

    def collector(self, items: int, most: int) -> Collector:
        return self.estimator.collector(items, most)

    def estimate(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Estimate:
        weights, draw = self.collector(len(x), self.most), self.sampler(model, x, noise, batch_size)
        rows, drawn, goal = np.arange(len(x)), 0, self.samples
        while True:
            gather(draw, weights, rows, goal - drawn, batch_size)
            estimate, drawn = weights.estimate(), goal
            met = estimate.standard_error_nats <= self.target_nats
            undefined = np.isnan(estimate.log_prob_nats)  # more samples cannot help
            rows, goal = np.flatnonzero(~met & ~undefined & (estimate.samples == drawn)), min(self.most, 2 * drawn)
            if not len(rows) or goal == drawn:
                return replace(estimate, met=met, kind=self.kind)
