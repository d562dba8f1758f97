"""Anomaly scores that read an estimate: their formulas, their direction, and what they refuse."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaedensity.density.anomaly import AnomalyScore, Likelihood, LikelihoodRatio, Typicality, information_bits
from vaedensity.density.complexity import CODECS, Complexity, codec_bits
from vaedensity.density.estimate import Estimate, Floats, Kind
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import load_model
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.units import LN2

ITEMS = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), np.uint8)


def estimate_of(log2_prob: list[float], kind: Kind = Kind.LOWER_BOUND) -> Estimate:
    """Estimates of the given log2 p, nothing else known."""
    nothing, n = np.full(len(log2_prob), np.nan), len(log2_prob)
    return Estimate(
        np.array(log2_prob) * LN2,
        nothing,
        nothing,
        nothing,
        nothing,
        np.ones(n, np.int64),
        np.ones(n, bool),
        np.arange(n, dtype=np.uint64),
        kind,
    )


NORMAL = estimate_of([-100.0, -110.0, -90.0, -100.0])
EVERY_SCORE = [Likelihood(), Complexity("png"), Typicality(NORMAL), LikelihoodRatio(NORMAL)]


def require(codec: str) -> None:
    if codec == "zstd":
        pytest.importorskip("zstandard")


def test_formulas_in_bits() -> None:
    e = estimate_of([-50.0, -100.0, -130.0, -np.inf])
    np.testing.assert_allclose(Likelihood().score(e, ITEMS), [50, 100, 130, np.inf])
    np.testing.assert_allclose(Typicality(NORMAL).score(e, ITEMS), [50, 0, 30, np.inf])
    np.testing.assert_allclose(LikelihoodRatio(NORMAL).score(e, ITEMS), [-50, -10, 40, np.inf])
    finite = estimate_of([-50.0, -100.0, -130.0, -7.0])
    np.testing.assert_allclose(
        Complexity("png").score(finite, ITEMS), [50, 100, 130, 7] - codec_bits(ITEMS, "png"), atol=1e-9
    )


@pytest.mark.parametrize("anomaly", EVERY_SCORE, ids=lambda a: a.name)
def test_less_likely_than_all_normal_items_is_more_anomalous(anomaly: AnomalyScore) -> None:
    scores = anomaly.score(estimate_of([-100.0, -120.0, -500.0, -np.inf]), ITEMS[[0, 0, 0, 0]])
    assert (np.diff(scores) > 0).all() and scores[-1] == np.inf


@pytest.mark.parametrize("anomaly", EVERY_SCORE, ids=lambda a: a.name)
def test_undefined_estimates_stay_undefined(anomaly: AnomalyScore) -> None:
    scores = anomaly.score(estimate_of([-100.0, np.nan, -100.0, -100.0]), ITEMS)
    assert np.isnan(scores).tolist() == [False, True, False, False]


@pytest.mark.parametrize("anomaly", EVERY_SCORE, ids=lambda a: a.name)
def test_mismatched_lengths_are_refused(anomaly: AnomalyScore) -> None:
    with pytest.raises(UsageError, match=r"found 3 items and 4 estimates[^\n]*$"):
        anomaly.score(NORMAL, ITEMS[:3])


def test_ratio_and_typicality_refuse_what_cannot_be_compared() -> None:
    three, upper = estimate_of([-1.0, -2.0, -3.0]), estimate_of([-100.0] * 4, Kind.UPPER_BOUND)
    with pytest.raises(UsageError, match=r"found 4 estimates and 3 under the background[^\n]*$"):
        LikelihoodRatio(three).score(NORMAL, ITEMS)
    for anomaly in (LikelihoodRatio(upper), Typicality(upper)):
        with pytest.raises(UsageError, match=r"lower bound[^\n]*upper bound[^\n]*$"):
            anomaly.score(NORMAL, ITEMS)
    for reference in (estimate_of([]), estimate_of([-1.0, -np.inf]), estimate_of([np.nan])):
        with pytest.raises(UsageError, match=r"reference items[^\n]*$"):
            Typicality(reference)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_takes_more_bits_than_a_constant(codec: str, channels: int) -> None:
    require(codec)
    rng = np.random.default_rng(1)
    shape = (channels, 16, 12)
    constant, noise = np.full(shape, 200, np.uint8), rng.integers(0, 256, shape, np.uint8)
    two_valued = rng.integers(0, 2, shape, np.uint8) * 255
    bits = codec_bits(np.stack([constant, two_valued, noise]), codec)
    assert bits.shape == (3,) and bits.dtype == np.float64
    assert bits[0] < bits[1] < bits[2]
    assert bits[2] >= noise.size * 7.5 and (bits % 8 == 0).all()


@pytest.mark.parametrize("codec", CODECS)
def test_bits_of_an_item_do_not_depend_on_its_company(codec: str) -> None:
    require(codec)
    whole = codec_bits(ITEMS, codec)
    assert [codec_bits(ITEMS[i : i + 1], codec)[0] for i in (3, 1, 0, 2)] == whole[[3, 1, 0, 2]].tolist()
    assert codec_bits(ITEMS[:0], codec).shape == (0,)


def test_codecs_refuse_what_they_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"found codec 'jpeg', expected one of png, webp, zstd$"):
        Complexity("jpeg")
    wrong: Any
    for wrong in (ITEMS[:, 0], ITEMS.astype(np.float32), np.zeros((2, 4, 8, 8), np.uint8)):
        with pytest.raises(UsageError, match=r"expected uint8 \(N,1 or 3,H,W\)$"):
            codec_bits(wrong, "png")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UsageError, match=r"pip install vaedensity\[zstd\][^\n]*$"):
        Complexity("zstd")


@pytest.fixture(scope="module")
def scored(model: Path, digits: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Estimate], dict[str, Estimate]]:
    """Held-out digits, others for reference, and noise: items, estimates, estimates under an unfitted model."""
    file = load_model(model)
    sets = {
        "digits": digits[1500:1530, None],
        "reference": digits[1600:1660, None],
        "noise": np.random.default_rng(2).integers(0, 17, (30, 1, 8, 8), np.uint8),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        background = HierarchicalVAE(file.config).eval()
    fitted, sampling = file.float_model(), ImportanceSampling(8)
    under = {name: score(fitted, x, sampling) for name, x in sets.items()}
    return sets, under, {name: score(background, x, sampling) for name, x in sets.items()}


def separation(
    anomaly: AnomalyScore, noise: AnomalyScore, sets: dict[str, np.ndarray], e: dict[str, Estimate]
) -> Floats:
    """(2,): the highest score of a digit, the lowest of noise."""
    return np.array([anomaly.score(e["digits"], sets["digits"]).max(), noise.score(e["noise"], sets["noise"]).min()])


def test_noise_among_digits_stands_out(
    scored: tuple[dict[str, np.ndarray], dict[str, Estimate], dict[str, Estimate]],
) -> None:
    sets, under, background = scored
    for anomaly in (Likelihood(), Complexity("png"), Typicality(under["reference"])):
        digit, noise = separation(anomaly, anomaly, sets, under)
        assert digit < noise, anomaly.name
    digit, noise = separation(LikelihoodRatio(background["digits"]), LikelihoodRatio(background["noise"]), sets, under)
    assert digit < noise
    assert (information_bits(under["digits"]) > 0).all()
