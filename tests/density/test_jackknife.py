"""The jackknife against its definition, the truth, and its corner cases."""

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest

from vaedensity.density.estimate import Kind
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.density.jackknife import Jackknife, jackknife_correction
from vaedensity.errors import UsageError


def by_definition(logs: np.ndarray, order: int) -> float:
    """Nowozin 2018, eq. 10, every subset written out."""
    k, value = len(logs), 0.0
    for j in range(order + 1):
        c = (-1) ** j * (k - j) ** order / (factorial(order - j) * factorial(j))
        means = [np.logaddexp.reduce(logs[list(s)]) - np.log(k - j) for s in combinations(range(k), k - j)]
        value += c * np.mean(means)
    return value


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("samples", [6, 11])
def test_equals_its_definition(order: int, samples: int) -> None:
    logs = np.random.default_rng(order).normal(-300, 2, samples)
    plain = np.logaddexp.reduce(logs) - np.log(samples)
    correction, _ = jackknife_correction(logs, order)
    assert plain + correction == pytest.approx(by_definition(logs, order), abs=1e-8)


def test_bias_falls_with_the_order(golden: Any) -> None:
    x, truth = np.tile(golden.x, (4, 1)) + 0.0, np.tile(golden.truth, 4)
    x += np.arange(4).repeat(1000)[:, None] * 1e-9  # other noise for the same items
    bias = [
        abs(float((score(golden.model, x, e, batch_size=8192).log_prob_nats - truth).mean()))
        for e in (ImportanceSampling(8), Jackknife(8), Jackknife(8, 2))
    ]
    assert bias[1] < 0.4 * bias[0] and bias[2] < 0.4 * bias[0]


@pytest.mark.parametrize("estimator", [Jackknife(50), Jackknife(30, order=2)], ids=repr)
def test_intervals_cover_the_truth(golden: Any, estimator: Jackknife) -> None:
    e = score(golden.model, golden.x, estimator, batch_size=8192)
    low, high = e.interval(0.95)
    assert 0.92 <= np.mean((low <= golden.truth) & (golden.truth <= high)) <= 0.98
    assert e.kind is Kind.POINT_ESTIMATE


def test_it_is_no_bound(golden: Any) -> None:
    e = score(golden.model, golden.x[:200], Jackknife(20))
    above = (e.log_prob_nats > golden.truth[:200]).mean()
    assert 0.3 < above < 0.7


def test_batches_do_not_matter(golden: Any) -> None:
    a, b = (score(golden.model, golden.x[:5], Jackknife(23), batch_size=n).log_prob_nats for n in (7, 512))
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_corner_cases() -> None:
    assert jackknife_correction(np.full(9, -3.0), 1) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    correction, _ = jackknife_correction(np.array([0.0] + [-np.inf] * 5), 1)
    assert correction == np.inf  # then the plain bound stands
    huge, _ = jackknife_correction(np.array([0.0] + [-50.0] * 5), 1)  # 1 - p rounds to nothing
    assert np.isfinite(huge)
    for samples, order in ((1, 1), (3, 3), (5000, 3)):
        with pytest.raises(UsageError, match="order"):
            Jackknife(samples, order)
