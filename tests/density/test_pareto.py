"""k-hat against arviz-stats and against tails of known shape."""

import numpy as np
import pytest

from vaedensity.density.pareto import pareto_k, tail_length

arviz_stats = pytest.importorskip("arviz_stats")


def ours(logs: np.ndarray) -> float:
    k = len(logs)
    return float(pareto_k(np.sort(logs)[None, -tail_length(k) - 1 :], k)[0])


@pytest.mark.parametrize("count", [25, 60, 225, 226, 500, 4000, 20000])
@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9, 1.5])
def test_equals_arviz_stats(count: int, shape: float) -> None:
    from arviz_stats.base import array_stats

    rng = np.random.default_rng(count)
    logs = shape * rng.standard_exponential(count) - 700  # exp of it has a Pareto tail of this shape
    _, theirs = array_stats.psislw(-logs)
    assert ours(logs) == pytest.approx(float(theirs), abs=1e-8)
    normal = rng.normal(0, 2.0, count)
    assert ours(normal) == pytest.approx(float(array_stats.psislw(-normal)[1]), abs=1e-8)


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.2])
def test_finds_the_shape_of_a_pareto_tail(shape: float) -> None:
    logs = shape * np.random.default_rng(7).standard_exponential(200_000)
    assert ours(logs) == pytest.approx(shape, abs=0.12)


def test_special_cases() -> None:
    assert np.isnan(ours(np.arange(24.0)))  # too few to tell
    assert ours(np.zeros(100)) == -np.inf  # no tail
    assert ours(np.full(100, -np.inf)) == np.inf
    few = np.full(100, -np.inf)
    few[:4] = 0.0, -1.0, -2.0, -3.0
    assert ours(few) == np.inf
    halves = np.where(np.arange(100) % 2 == 0, 0.0, -1.0)
    assert ours(halves) == -np.inf  # the whole tail is one value
    assert np.isfinite(ours(np.random.default_rng(0).normal(0, 500, 1000)))  # excesses that underflow
