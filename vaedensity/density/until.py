"""Sampling until the standard error is small enough, item by item."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from vaedensity.density.estimate import Estimate, Kind
from vaedensity.density.estimator import Estimator, ItemNoise, Sampler, gather
from vaedensity.density.weights import WeightSums
from vaedensity.errors import UsageError
from vaedensity.model.latent_model import LatentModel

FEWEST = 32  # fewer weights say too little about their own spread, and have no k-hat
LARGEST_TARGET = 0.5  # the delta method's error never exceeds 1 nat, however bad the weights are


@dataclass(frozen=True)
class UntilStandardError(Estimator):
    """Any estimator, its samples doubled item by item until the standard error is at most ``target_nats``.

    It begins with the estimator's own number of samples, or 32. ``Estimate.met`` tells which items made it. A number of
    samples that depends on the samples forgoes the guarantee of a bound, so the result counts as a point estimate.

    Parameters
    ----------
    estimator : Estimator
        What draws the samples, for example ``ImportanceSampling(64)``.
    target_nats : float
        The standard error to reach in nats, above 0 and at most 0.5: the measured one saturates at 1.
    most : int
        The number of samples an item at which it gives up.

    Raises
    ------
    UsageError
        For a target or a limit that cannot be, or that ``estimator`` cannot do.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-3:]
    >>> estimate = vd.score("digits", x, estimator=UntilStandardError(vd.ImportanceSampling(32), 0.2, most=1024))
    >>> bool((estimate.standard_error_nats[estimate.met] <= 0.2).all())
    True
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
                f"found at most {self.most} samples, expected at least {max(FEWEST, self.estimator.samples)}, "
                "with which it begins"
            )
        replace(self.estimator, samples=self.most)  # raises UsageError where it cannot draw so many

    @property
    def samples(self) -> int:
        """How many samples an item gets to begin with."""
        return max(FEWEST, self.estimator.samples)

    @property
    def name(self) -> str:
        """The estimator's own name."""
        return self.estimator.name

    def sampler(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Sampler:
        return self.estimator.sampler(model, x, noise, batch_size)

    def collector(self, items: int, most: int) -> WeightSums:
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
