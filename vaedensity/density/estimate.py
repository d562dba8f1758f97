"""Log-likelihood estimates, one per item, with what is needed to believe them."""

from dataclasses import dataclass, fields, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import UsageError

Floats = NDArray[np.float64]
K_HAT_LIMIT = 0.7  # above it, a sum of weights converges too slowly to be believed (Vehtari et al. 2024)


class Kind(StrEnum):
    """What an estimate of log p(x) is, in expectation."""

    LOWER_BOUND = "lower bound"
    UPPER_BOUND = "upper bound"
    POINT_ESTIMATE = "estimate"


@dataclass(frozen=True)
class Estimate:
    """Estimates of log p(x) for n items, with the diagnostics that say how far to believe them.

    An item with values that the model cannot make has p(x) = 0 without any sampling: see :meth:`of_unseen`. Means are
    over the items whose estimate is finite.

    Attributes
    ----------
    log_prob_nats : (n,) float64
        The estimate of log p(x) in nats. -inf where every weight is zero, NaN where a weight is undefined (the network
        overflowed).
    standard_error_nats : (n,) float64
        Its Monte-Carlo standard error in nats by the delta method; NaN for one sample. It never exceeds about 1.
    elbo_nats : (n,) float64
        Mean log-weight of plain posterior draws, the ELBO, in nats.
    ess : (n,) float64
        Effective sample size (Kong 1992), between 1 and ``samples``.
    k_hat : (n,) float64
        Shape of the weights' upper tail (Vehtari et al. 2024). Above 0.7 the estimate and its standard error must not
        be believed. NaN for fewer than 25 samples.
    samples : (n,) int64
        How many weights were used.
    met : (n,) bool
        False where a standard error was asked for and not reached.
    item_key : (n,) uint64
        Items of equal key are equal and share their Monte-Carlo error.
    kind : Kind
        Lower bound, upper bound or point estimate, in expectation.

    Examples
    --------
    >>> import vaedensity as vd
    >>> estimate = vd.score("digits", vd.load_digits()[-3:], samples=32)
    >>> len(estimate), str(estimate.kind), estimate.samples.tolist()
    (3, 'lower bound', [32, 32, 32])
    >>> bool((estimate.log_prob_nats >= estimate.elbo_nats).all())
    True
    """

    log_prob_nats: Floats
    standard_error_nats: Floats
    elbo_nats: Floats
    ess: Floats
    k_hat: Floats
    samples: NDArray[np.int64]
    met: NDArray[np.bool_]
    item_key: NDArray[np.uint64]
    kind: Kind

    def __len__(self) -> int:
        return len(self.log_prob_nats)

    def __str__(self) -> str:
        count, error = int(self.finite.sum()), self.mean_standard_error_nats
        if not count:
            found = mean(self.log_prob_nats)
            return f"log p(x) = {found} nats per item, mean of {len(self)} (no finite estimate; {self.kind})"
        if (self.samples[self.finite] == 1).all():
            accuracy = "unknown with one sample"
        else:
            accuracy = f"{error:.4f} nats" if np.isfinite(error) else "unknown"
        of = f"{count}" if count == len(self) else f"the {count} of {len(self)} items with a finite estimate"
        return (
            f"log p(x) = {mean(self.log_prob_nats, self.finite):.4f} nats per item, mean of {of} (Monte-Carlo standard "
            f"error {accuracy}; {self.kind}; K = {spread(self.samples[~self.unseen])})"
        )

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Which items (n,) have values that the model cannot make: nothing was drawn for them."""
        nothing_drawn: NDArray[np.bool_] = self.samples == 0
        return nothing_drawn

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which estimates (n,) are finite: the items that means are taken over."""
        return np.isfinite(self.log_prob_nats)

    @property
    def mean_standard_error_nats(self) -> float:
        """Monte-Carlo standard error of the mean over the items whose estimate is finite: errors of different items
        are independent, those of equal items are the same."""
        _, group = np.unique(self.item_key[self.finite], return_inverse=True)
        sums = np.bincount(group, weights=self.standard_error_nats[self.finite])
        return float(np.sqrt(np.square(sums).sum()) / max(1, int(self.finite.sum())))

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Two-sided intervals around the estimates: Student's t with K - 1 degrees of freedom.

        They cover the Monte-Carlo error, not the bias of a bound at small K.

        Parameters
        ----------
        level : float
            The probability of covering, between 0 and 1.

        Returns
        -------
        low, high : (n,) float64
            In nats.

        Raises
        ------
        UsageError
            For a level that is no probability.
        """
        from scipy.stats import t

        if not 0 < level < 1:
            raise UsageError(f"found level {level}, expected a number between 0 and 1")
        with np.errstate(invalid="ignore"):
            half = t.ppf(0.5 + 0.5 * level, np.maximum(self.samples - 1, 1)) * self.standard_error_nats
        return self.log_prob_nats - half, self.log_prob_nats + half

    def flags(self) -> list[str]:
        """What is wrong with each item's estimate, in words; empty where nothing is."""
        tests = {
            "undefined weight": np.isnan(self.log_prob_nats),
            "unseen values": self.unseen,
            "no weight": (self.log_prob_nats == -np.inf) & ~self.unseen,
            f"k_hat > {K_HAT_LIMIT}": self.k_hat > K_HAT_LIMIT,
            "error bar not met": ~self.met,
        }
        return ["; ".join(word for word, bad in tests.items() if bad[i]) for i in range(len(self))]

    def of_reciprocal(self) -> "Estimate":
        """The upper bound of log p(x) that a lower bound of log 1 / p(x) is (Grosse et al. 2015, eq. 6)."""
        return replace(self, log_prob_nats=-self.log_prob_nats).as_upper_bound()

    def as_upper_bound(self) -> "Estimate":
        """These numbers as upper bounds, without diagnostics of independent weights: an exact draw is behind them."""
        nothing = np.full(len(self), np.nan)
        return replace(
            self,
            standard_error_nats=nothing,
            elbo_nats=nothing,
            ess=nothing,
            k_hat=nothing,
            kind=Kind.UPPER_BOUND,
        )

    @staticmethod
    def of_unseen(n: int, kind: Kind) -> "Estimate":
        """Estimates of ``n`` items with values that the model cannot make: exactly -inf, without samples."""
        nothing = np.full(n, -np.inf)
        return Estimate(
            log_prob_nats=nothing,
            standard_error_nats=np.zeros(n),
            elbo_nats=nothing.copy(),
            ess=np.zeros(n),
            k_hat=np.full(n, np.nan),
            samples=np.zeros(n, np.int64),
            met=np.ones(n, bool),
            item_key=np.zeros(n, np.uint64),
            kind=kind,
        )

    def among(self, known: NDArray[np.bool_]) -> "Estimate":
        """All n estimates, where these are of the items ``known`` (n,) bool and the others have unseen values."""
        whole = Estimate.of_unseen(len(known), self.kind)
        for f in fields(Estimate):
            if f.name != "kind":
                getattr(whole, f.name)[known] = getattr(self, f.name)
        return whole

    @staticmethod
    def concatenate(parts: list["Estimate"]) -> "Estimate":
        """The estimates of all parts, in order."""
        arrays = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Estimate) if f.name != "kind"
        }
        return Estimate(**arrays, kind=parts[0].kind)


def mean(values: Floats, where: NDArray[np.bool_] | None = None) -> float:
    """The mean of ``values`` (n,), of those ``where`` True; NaN of none."""
    chosen = values if where is None else values[where]
    return float(chosen.mean()) if len(chosen) else float("nan")


def spread(samples: NDArray[np.int64]) -> str:
    """ "64", or "16 to 1024" where items differ."""
    low, high = (int(samples.min()), int(samples.max())) if len(samples) else (0, 0)
    return str(low) if low == high else f"{low} to {high}"
