"""How well does a score tell two samples apart? The area under the ROC curve and its confidence interval."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Auroc(NamedTuple):
    """P(an anomalous item scores higher than a normal one), ties counted half, with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auroc(normal: NDArray[np.generic], anomalous: NDArray[np.generic], level: float = 0.95) -> Auroc:
    """Area under the ROC curve of two samples of scores, with its two-sided confidence interval.

    The variance is that of the placements (DeLong et al. 1988); the interval is normal on the logit scale, hence inside
    (0, 1). Complete separation has no variance to go by: its min(n, m) disjoint pairs are then as many successes out of
    as many, with the bound of Clopper & Pearson (1934) and half the complement of ``level`` in the tail. Close to 0 or
    1 with few items a 95 % interval covers about 90 %, as measured in the tests.

    Parameters
    ----------
    normal : (n,) ndarray
    anomalous : (m,) ndarray
        Scores, larger = more anomalous. Infinite ones are ranked.
    level : float
        The probability of covering.

    Returns
    -------
    Auroc
        ``value``, ``low`` and ``high``; a point where all scores are equal. O((n + m) log(n + m)).

    Raises
    ------
    ValueError
        For fewer than two scores a sample, or NaN.

    Examples
    --------
    >>> print(auroc(np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 4.0, 5.0, 6.0])))
    0.906 [0.426, 0.992]
    """
    x, y = _sample("normal", normal), _sample("anomalous", anomalous)
    below_anomalous, above_normal = placements(y, x), 1 - placements(x, y)
    value = float(below_anomalous.mean())
    tail = 0.5 * (1 - level)
    if value in (0.0, 1.0):
        bound = tail ** (1 / min(len(x), len(y)))
        return Auroc(value, bound, 1.0) if value else Auroc(value, 0.0, 1 - bound)
    variance = below_anomalous.var(ddof=1) / len(y) + above_normal.var(ddof=1) / len(x)
    logit = math.log(value / (1 - value))
    half = NormalDist().inv_cdf(1 - tail) * math.sqrt(variance) / (value * (1 - value))
    return Auroc(value, _logistic(logit - half), _logistic(logit + half))


def placements(scores: Floats, others: Floats) -> Floats:
    """The share of ``others`` (m,) below each of ``scores`` (n,), equal ones counted half: (n,)."""
    ascending = np.sort(others)
    strictly, weakly = (np.searchsorted(ascending, scores, side) for side in ("left", "right"))
    return (strictly + weakly) / (2 * len(others))


def _sample(name: str, scores: NDArray[np.generic]) -> Floats:
    sample = np.asarray(scores, np.float64)
    if sample.ndim != 1 or len(sample) < 2 or np.isnan(sample).any():
        raise ValueError(
            f"found {name} scores of shape {sample.shape}, {int(np.isnan(sample).sum())} of them NaN; "
            "expected at least two numbers in a row"
        )
    return sample


def _logistic(logit: float) -> float:
    return 0.5 * (1 + math.tanh(0.5 * logit))
