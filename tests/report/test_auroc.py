"""The area under the ROC curve against its definition, and how often the interval holds the truth."""

from statistics import NormalDist

import numpy as np
import pytest

from vaedensity.report.auroc import Auroc, auroc


def pairwise(normal: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """DeLong's kernel (m, n): 1 where the anomalous score is higher, 1/2 where both are equal."""
    kernel: np.ndarray = (anomalous[:, None] > normal) + 0.5 * (anomalous[:, None] == normal)
    return kernel


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_value_is_that_of_the_definition(levels: int) -> None:
    rng = np.random.default_rng(levels)
    normal, anomalous = rng.integers(0, levels, 70), rng.integers(0, levels, 40) + levels // 4
    found = auroc(normal, anomalous)
    assert found.value == pytest.approx(pairwise(normal, anomalous).mean(), abs=1e-12)
    metrics = pytest.importorskip("sklearn.metrics")
    labels = np.repeat([0, 1], [70, 40])
    assert found.value == pytest.approx(metrics.roc_auc_score(labels, np.concatenate([normal, anomalous])), abs=1e-12)


def test_interval_is_delongs_on_the_logit_scale() -> None:
    rng = np.random.default_rng(0)
    normal, anomalous = rng.normal(size=30), rng.normal(1, 2, size=20).round(1)
    kernel = pairwise(normal, anomalous)
    value = kernel.mean()
    variance = kernel.mean(1).var(ddof=1) / 20 + kernel.mean(0).var(ddof=1) / 30
    half = NormalDist().inv_cdf(0.95) * variance**0.5 / (value * (1 - value))
    odds = np.exp(np.log(value / (1 - value)) + np.array([-half, half]))
    assert auroc(normal, anomalous, level=0.9)[1:] == pytest.approx(odds / (1 + odds), abs=1e-12)


@pytest.mark.parametrize(
    "n, m, distance, least",
    [(40, 40, 0.0, 0.93), (40, 40, 1.5, 0.93), (150, 50, 2.5, 0.91), (20, 20, 3.0, 0.93), (300, 30, 3.6, 0.88)],
)
def test_interval_covers_the_truth_at_about_its_rate(n: int, m: int, distance: float, least: float) -> None:
    rng = np.random.default_rng(1)
    truth = NormalDist().cdf(distance / 2**0.5)
    found = [auroc(rng.normal(size=n), rng.normal(distance, size=m)) for _ in range(2000)]
    covered = np.mean([a.low <= truth <= a.high for a in found])
    assert least <= covered <= 0.985


def test_negated_scores_mirror_everything() -> None:
    rng = np.random.default_rng(2)
    for gap in (0.5, 100.0):
        normal, anomalous = rng.normal(size=20), rng.normal(gap, size=15)
        found, mirrored = auroc(normal, anomalous), auroc(-normal, -anomalous)
        assert tuple(mirrored) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low), abs=1e-12)
        assert tuple(auroc(anomalous, normal)) == pytest.approx(tuple(mirrored), abs=1e-12)


def test_complete_separation_is_bounded_by_disjoint_pairs() -> None:
    found = auroc(np.arange(50.0), np.arange(100.0, 400.0))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 50))
    assert 0.9 < found.low < auroc(np.arange(300.0), np.arange(300.0, 600.0)).low < 1


def test_ranks_know_infinity_and_refuse_nan() -> None:
    assert auroc(np.array([-np.inf, 0.0, 1.0]), np.array([np.inf, np.inf, 1.0])).value == pytest.approx(
        (3 + 3 + 2.5) / 9
    )
    for wrong in (np.array([1.0, np.nan]), np.array([1.0]), np.ones((2, 2))):
        with pytest.raises(ValueError, match=r"expected at least two numbers in a row$"):
            auroc(np.arange(3.0), wrong)


def test_large_samples_need_no_table_of_pairs() -> None:
    rng = np.random.default_rng(3)
    found = auroc(rng.normal(size=200_000), rng.normal(1, size=200_000))
    assert found.low < NormalDist().cdf(1 / 2**0.5) < found.high < found.low + 0.004


def test_reads_as_a_table_cell() -> None:
    assert str(Auroc(0.5, 0.25, 1.0)) == "0.500 [0.250, 1.000]"
