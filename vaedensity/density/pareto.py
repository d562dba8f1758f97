"""k-hat, the shape of the weights' upper tail: can their mean be believed? (Vehtari et al. 2024)

A generalised Pareto distribution is fitted to the largest weights. Its shape k says how many moments the weights have.
Below 0.5 their variance is finite. Above 0.7 the mean of any affordable number of them depends on values not seen yet.
"""

import numpy as np

from vaedensity.density.estimate import Floats

FEWEST_IN_TAIL = 5
PRIOR_COUNT, PRIOR_SHAPE = 10, 0.5  # Vehtari et al. 2024, appendix G: a weak prior on the shape
GRID_OFFSET, GRID_SPREAD = 30, 3.0  # Zhang & Stephens 2009, section 4


def tail_length(count: int) -> int:
    """Weights in the tail of ``count``: a fifth, or 3 sqrt(count) where that is less (ibid., appendix H)."""
    return int(3 * count**0.5) if count > 225 else count // 5


def pareto_k(largest: Floats, count: int) -> Floats:
    """k-hat of n items, each with ``count`` weights.

    Parameters
    ----------
    largest : (n, m) float64
        The largest log-weights of each item in ascending order, m at least ``tail_length(count) + 1``.
    count : int
        How many weights an item has in all.

    Returns
    -------
    (n,) float64
        NaN where the tail has fewer than 5 weights, that is ``count`` < 25. +inf where fewer than 5 of its weights are
        positive. -inf where all of them are equal, so that there is no tail.

    Examples
    --------
    >>> log_weights = 0.2 * np.random.default_rng(0).standard_exponential(100_000)  # a Pareto tail of shape 0.2
    >>> bool(abs(pareto_k(np.sort(log_weights)[None], 100_000)[0] - 0.2) < 0.1)
    True
    """
    length = tail_length(count)
    if length < FEWEST_IN_TAIL:
        return np.full(len(largest), np.nan)
    tail = largest[:, -length - 1 :]
    k = np.full(len(tail), np.inf)
    peak = tail[:, -1:]
    usable = np.isfinite(peak[:, 0])
    weights = np.exp(np.where(usable[:, None], tail - np.where(usable[:, None], peak, 0.0), -np.inf))
    excess = weights[:, 1:] - weights[:, :1]
    spread = np.where(usable, tail[:, -1], 0.0) - np.where(usable, tail[:, 1], -np.inf)
    flat = usable & (spread < np.finfo(np.float64).tiny)
    rich = usable & ~flat & (np.isfinite(tail[:, 1:]).sum(1) >= FEWEST_IN_TAIL)
    for i in np.flatnonzero(rich):
        k[i] = _fit_shape(excess[i][excess[i] > 0])
    k[flat] = -np.inf
    return k


def _fit_shape(x: Floats) -> float:
    """Shape of a generalised Pareto distribution for ascending excesses ``x`` > 0 (Zhang & Stephens 2009).

    theta = -k / sigma is averaged over a grid under its profile likelihood (their eqs. 5 to 8, with
    the sign of k turned to the usual one).
    """
    n = len(x)
    if n < FEWEST_IN_TAIL:
        return float("inf")
    m = GRID_OFFSET + int(n**0.5)
    quartile = x[int(n / 4 + 0.5) - 1]
    j = np.arange(1, m + 1)
    theta = 1 / x[-1] + (1 - np.sqrt(m / (j - 0.5))) / (GRID_SPREAD * quartile)
    theta = theta[theta != 0]
    shape = np.log1p(-theta[:, None] * x).mean(1)
    with np.errstate(all="ignore"):
        profile = n * (np.log(-theta / shape) - shape - 1)
    profile = np.where(np.isfinite(profile), profile, -np.inf)
    weight = np.exp(profile - profile.max())
    mean_theta = float((theta * weight).sum() / weight.sum())
    k = float(np.log1p(-mean_theta * x).mean())
    return (n * k + PRIOR_COUNT * PRIOR_SHAPE) / (n + PRIOR_COUNT)
