"""Jackknife variational inference: importance sampling without its leading bias (Nowozin 2018)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vaedensity.density.estimate import Estimate, Floats, Kind
from vaedensity.density.estimator import Estimator, ItemNoise, Sampler
from vaedensity.density.importance import PosteriorDraws
from vaedensity.density.weights import Rows, WeightSums
from vaedensity.errors import UsageError
from vaedensity.model.latent_model import LatentModel

MOST_SUBSETS = 20_000_000
SUBSETS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Jackknife(Estimator):
    """log p(x) by importance sampling with the leading bias removed by the jackknife (Nowozin 2018, eqs. 10 and 11).

        log p_J(x) = sum_{j=0..m} c(K,m,j) * mean of log p_{K-j}(x) over all subsets of K - j samples
        c(K,m,j) = (-1)^j (K-j)^m / ((m-j)! j!)

    The bias falls as K^-(m+1) instead of importance sampling's 1/K. The result is a point estimate and **not a bound**:
    it can lie above log p(x). Every log-weight is kept, 8 bytes an item and sample.

    Parameters
    ----------
    samples : int
        K, above ``order``.
    order : int
        m. Order 2 visits all pairs of samples, order 3 all triples; at most 20 million subsets.

    Raises
    ------
    UsageError
        For settings beyond these limits.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-3:]
    >>> estimate = vd.score("digits", x, estimator=Jackknife(samples=32, order=1))
    >>> str(estimate.kind)
    'estimate'
    """

    samples: int = 64
    order: int = 1
    name: ClassVar[str] = "jackknife"
    kind = Kind.POINT_ESTIMATE

    def __post_init__(self) -> None:
        if not 1 <= self.order < self.samples:
            raise UsageError(
                f"jackknife: found order {self.order} with {self.samples} samples; expected 1 <= order < samples"
            )
        if math.comb(self.samples, self.order) > MOST_SUBSETS:
            raise UsageError(
                f"jackknife: order {self.order} of {self.samples} samples visits {math.comb(self.samples, self.order)} "
                f"subsets, the limit is {MOST_SUBSETS}; lower one of them"
            )

    def sampler(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Sampler:
        with torch.inference_mode():
            return PosteriorDraws(model, x, noise)

    def collector(self, items: int, most: int) -> "AllWeights":
        return AllWeights(items, most, self.order)


class AllWeights(WeightSums):
    """Keeps every log-weight: 8 bytes an item and sample."""

    def __init__(self, items: int, most: int, order: int):
        super().__init__(items, most, Kind.POINT_ESTIMATE)
        self.order = order
        self.parts: list[list[Floats]] = [[] for _ in range(items)]

    def add(self, rows: Rows, log_weights: Floats, elbo_terms: Floats) -> None:
        super().add(rows, log_weights, elbo_terms)
        for row, weights in zip(rows, log_weights):
            self.parts[row].append(weights)

    def estimate(self) -> Estimate:
        """The corrected estimates. Where ``order`` or fewer weights are positive there is no correction: the lower
        bound log p_K stands, with an infinite standard error."""
        plain = super().estimate()
        value, error = plain.log_prob_nats.copy(), plain.standard_error_nats.copy()
        for i in np.flatnonzero(np.isfinite(value)):
            correction, deviation = jackknife_correction(np.concatenate(self.parts[i]), self.order)
            finite = math.isfinite(correction)
            value[i] += correction if finite else 0.0
            error[i] = deviation if finite else math.inf
        return replace(plain, log_prob_nats=value, standard_error_nats=error)


def jackknife_correction(log_weights: Floats, order: int) -> tuple[float, float]:
    """What to add to log p_K and the jackknife's standard error of log p_K (Efron & Stein 1981).

    Parameters
    ----------
    log_weights : (K,) float64
        In nats, at least one of them above -inf.
    order : int
        m of Nowozin 2018, eq. 10.

    Returns
    -------
    correction, standard_error : float
        In nats.

    Examples
    --------
    >>> np.round(jackknife_correction(np.log([1.0, 2.0, 3.0]), order=1), 3)
    array([0.043, 0.296])
    """
    k = len(log_weights)
    if not 1 <= order < k:
        raise UsageError(f"jackknife: found order {order} with {k} samples; expected 1 <= order < samples")
    weights = np.exp(log_weights - log_weights.max())
    share = np.sort(weights / weights.sum())  # ascending: only the last can come near one
    without_last = share[:-1].sum()
    correction, deviation = 0.0, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for j in range(1, order + 1):
            coefficient = (-1) ** j * (k - j) ** order / (math.factorial(order - j) * math.factorial(j))
            total, count = 0.0, 0
            for left in _shares_left(share, without_last, j):
                change = np.log(np.maximum(left, 0.0)) + math.log(k / (k - j))  # log p_{K-j} - log p_K
                total, count = total + float(change.sum()), count + len(change)
                if j == 1:
                    deviation = math.sqrt((k - 1) * float(np.var(change)))  # Efron & Stein 1981
            correction += coefficient * total / count
    return correction, deviation


def _shares_left(share: Floats, without_last: float, j: int) -> Iterator[Floats]:
    """What is left of the total weight, 1, when each subset of ``j`` samples is taken out; in pieces."""
    k = len(share)
    if j == 1:
        left = 1 - share
        left[-1] = without_last  # 1 - share would round to nothing
        yield left
    elif j == 2:
        for i in range(k - 1):
            left = 1 - share[i] - share[i + 1 :]
            left[-1] = without_last - share[i]
            yield left
    else:
        subsets = combinations(range(k), j)
        while piece := list(islice(subsets, SUBSETS_AT_ONCE)):
            index = np.array(piece)
            has_last = index[:, -1] == k - 1
            taken = np.where(index == k - 1, 0.0, share[index]).sum(1)
            yield np.where(has_last, without_last, 1.0) - taken
