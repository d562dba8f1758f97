"""Log-weights gathered into an estimate; memory does not grow with their number."""

import numpy as np
from numpy.typing import NDArray

from vaedensity.density.estimate import Estimate, Floats, Kind
from vaedensity.density.pareto import pareto_k, tail_length

Rows = NDArray[np.int64]


class WeightSums:
    """log (1/K) sum_k w_k of n items (Burda et al. 2016, eq. 8) and its diagnostics, from running sums.

    Parameters
    ----------
    items : int
        The number of items, n.
    most : int
        The most samples that an item can get; the largest of them are kept for k-hat.
    kind : Kind
        What the estimate is to be called.

    Examples
    --------
    >>> sums = WeightSums(items=1, most=4)
    >>> log_weights = np.log([[1.0, 2.0, 3.0, 2.0]])
    >>> sums.add(np.array([0]), log_weights, log_weights)
    >>> np.exp(sums.estimate().log_prob_nats).round(6)
    array([2.])
    """

    def __init__(self, items: int, most: int, kind: Kind = Kind.LOWER_BOUND):
        self.kind = kind
        self.count = np.zeros(items, np.int64)
        self.peak = np.full(items, -np.inf)
        self.sum, self.sum_squares, self.sum_elbo = np.zeros(items), np.zeros(items), np.zeros(items)
        self.undefined = np.zeros(items, bool)
        self.largest = np.full((items, tail_length(most) + 1), -np.inf)  # ascending

    def add(self, rows: Rows, log_weights: Floats, elbo_terms: Floats) -> None:
        """Take in log-weights (r,k) in nats of the items ``rows`` (r,), and the log-weights (r,k) of the plain
        posterior draws behind them: the same numbers where those are what was drawn."""
        bad = np.isnan(log_weights) | (log_weights == np.inf)
        self.undefined[rows] |= bad.any(1)
        log_weights = np.where(bad, -np.inf, log_weights)
        peak = np.maximum(self.peak[rows], log_weights.max(1))
        anchor = np.where(np.isfinite(peak), peak, 0.0)
        shrink = np.exp(np.where(np.isfinite(self.peak[rows]), self.peak[rows] - anchor, -np.inf))
        weights = np.exp(log_weights - anchor[:, None])
        self.sum[rows] = self.sum[rows] * shrink + weights.sum(1)
        self.sum_squares[rows] = self.sum_squares[rows] * shrink**2 + np.square(weights).sum(1)
        self.sum_elbo[rows] += elbo_terms.sum(1)
        self.peak[rows] = peak
        self.count[rows] += log_weights.shape[1]
        keep = self.largest.shape[1]
        joined = np.concatenate([self.largest[rows], log_weights], 1)
        self.largest[rows] = np.sort(np.partition(joined, -keep, axis=1)[:, -keep:], axis=1)

    def estimate(self) -> Estimate:
        """The estimate from all log-weights so far."""
        k = self.count
        with np.errstate(divide="ignore", invalid="ignore"):
            log_prob = np.log(self.sum) + np.where(np.isfinite(self.peak), self.peak, 0.0) - np.log(k)
            ess = np.where(self.sum > 0, self.sum**2 / self.sum_squares, 0.0)  # Kong 1992
            # Delta method: Var(log mean w) ~ Var(w) / (K mean(w)^2), the variance with K - 1.
            relative = np.maximum(0.0, self.sum_squares / self.sum**2 * k - 1) / (k - 1)
            error = np.where(self.sum > 0, np.sqrt(relative), np.inf)
            elbo = self.sum_elbo / k
        return Estimate(
            log_prob_nats=np.where(self.undefined, np.nan, log_prob),
            standard_error_nats=np.where((k <= 1) | self.undefined, np.nan, error),
            elbo_nats=elbo,
            ess=np.where(self.undefined, np.nan, ess),
            k_hat=self.k_hat(),
            samples=k.copy(),
            met=np.ones(len(k), bool),
            item_key=np.arange(len(k), dtype=np.uint64),
            kind=self.kind,
        )

    def k_hat(self) -> Floats:
        """The tail's shape (n,) of the weights so far; see density/pareto.py."""
        k = np.full(len(self.count), np.nan)
        for count in np.unique(self.count):
            rows = np.flatnonzero((self.count == count) & ~self.undefined)
            k[rows] = pareto_k(self.largest[rows], int(count))
        return k
