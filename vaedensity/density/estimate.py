"""Log-likelihood estimates, one per item, with what is needed to believe them."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Kind(StrEnum):
    """What an estimate of log p(x) is, in expectation."""

    LOWER_BOUND = "lower bound"
    UPPER_BOUND = "upper bound"
    POINT_ESTIMATE = "estimate"


@dataclass(frozen=True)
class Estimate:
    """Estimates for n items, each array (n,) float64 in nats unless said otherwise.

    ``log_prob_nats``: the estimate of log p(x). ``standard_error_nats``: of its Monte-Carlo error by
    the delta method, NaN for one sample. ``elbo_nats``: mean log-weight. ``ess``: effective sample
    size, between 1 and ``samples``. ``kind``: what the number is.
    """

    log_prob_nats: Floats
    standard_error_nats: Floats
    elbo_nats: Floats
    ess: Floats
    samples: int
    kind: Kind

    def __len__(self) -> int:
        return len(self.log_prob_nats)

    @property
    def mean_standard_error_nats(self) -> float:
        """Monte-Carlo standard error of the mean over items (their errors are independent)."""
        return float(np.sqrt(np.square(self.standard_error_nats).sum()) / max(1, len(self)))


class WeightSums:
    """Running sums over the log-weights of n items: memory does not grow with the number of samples."""

    def __init__(self, items: int):
        self.count = 0
        self.peak = np.full(items, -np.inf)
        self.sum, self.sum_squares, self.sum_logs = np.zeros(items), np.zeros(items), np.zeros(items)

    def add(self, log_weights: Floats) -> None:
        """Take in log-weights (n, k) in nats."""
        peak = np.maximum(self.peak, log_weights.max(1))
        anchor = np.where(np.isfinite(peak), peak, 0.0)
        shrink = np.exp(np.where(np.isfinite(self.peak), self.peak - anchor, -np.inf))
        weights = np.exp(log_weights - anchor[:, None])
        self.sum = self.sum * shrink + weights.sum(1)
        self.sum_squares = self.sum_squares * shrink**2 + np.square(weights).sum(1)
        self.sum_logs += log_weights.sum(1)
        self.peak, self.count = peak, self.count + log_weights.shape[1]

    def estimate(self) -> Estimate:
        """log (1/K) sum_k w_k and its diagnostics (Burda et al. 2016, eq. 8; Kong 1992 for the ESS).

        Items whose weights are all zero get -inf, an ESS of 0 and an infinite error.
        """
        k = self.count
        with np.errstate(divide="ignore", invalid="ignore"):
            log_prob = np.log(self.sum) + np.where(np.isfinite(self.peak), self.peak, 0.0) - np.log(k)
            ess = np.where(self.sum > 0, self.sum**2 / self.sum_squares, 0.0)
            # Var(log mean w) ~ Var(w) / (K mean(w)^2), the variance with K - 1.
            relative = (
                np.maximum(0.0, self.sum_squares / self.sum**2 * k - 1) / (k - 1)
                if k > 1
                else np.full_like(ess, np.nan)
            )
            error = np.where(self.sum > 0, np.sqrt(relative), np.nan if k == 1 else np.inf)
        return Estimate(log_prob, error, self.sum_logs / k, ess, k, Kind.LOWER_BOUND)
