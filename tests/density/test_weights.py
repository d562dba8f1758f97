"""From log-weights to an estimate: sums in pieces, errors by the delta method, degenerate cases."""

import numpy as np
import pytest

from vaedensity.density.estimate import Estimate
from vaedensity.density.weights import WeightSums

NAMES = ("log_prob_nats", "standard_error_nats", "elbo_nats", "ess", "k_hat")


def gathered(logs: np.ndarray, pieces: int = 1) -> Estimate:
    sums = WeightSums(len(logs), logs.shape[1])
    for part in np.array_split(logs, pieces, axis=1):
        sums.add(np.arange(len(logs)), part, part)
    return sums.estimate()


def test_sums_in_pieces_equal_sums_at_once() -> None:
    logs = np.random.default_rng(0).normal(-1000, 30, (6, 400))
    whole, pieces = gathered(logs), gathered(logs, 7)
    for name in NAMES:
        np.testing.assert_allclose(getattr(whole, name), getattr(pieces, name), rtol=1e-10)
    np.testing.assert_allclose(whole.log_prob_nats, np.logaddexp.reduce(logs, axis=1) - np.log(400), rtol=1e-12)


def test_items_may_have_different_numbers_of_samples() -> None:
    logs = np.random.default_rng(1).normal(0, 1, (3, 90))
    sums = WeightSums(3, 90)
    sums.add(np.arange(3), logs[:, :30], logs[:, :30])
    sums.add(np.array([2]), logs[2:, 30:], logs[2:, 30:])
    e = sums.estimate()
    assert e.samples.tolist() == [30, 30, 90]
    for i, k in enumerate(e.samples):
        alone = gathered(logs[i : i + 1, :k])
        for name in NAMES:
            assert getattr(e, name)[i] == pytest.approx(getattr(alone, name)[0])


def test_standard_error_agrees_with_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    logs = rng.normal(-50, 0.8, (5, 500))
    e = gathered(logs)
    for i, row in enumerate(logs):
        again = row[rng.integers(0, 500, (4000, 500))]
        bootstrap = (np.logaddexp.reduce(again, axis=1) - np.log(500)).std()
        assert e.standard_error_nats[i] == pytest.approx(bootstrap, rel=0.1)


def test_degenerate_weights_are_defined() -> None:
    rows = [[-5.0] * 30, [-np.inf] * 30, [-np.inf] * 29 + [0.0], [np.nan] + [-5.0] * 29, [np.inf] + [-5.0] * 29]
    e = gathered(np.array(rows))
    assert e.log_prob_nats[0] == pytest.approx(-5) and e.standard_error_nats[0] == 0 and e.ess[0] == pytest.approx(30)
    assert e.k_hat[0] == -np.inf  # no tail at all
    assert e.log_prob_nats[1] == -np.inf and e.ess[1] == 0 and e.standard_error_nats[1] == np.inf
    assert e.ess[2] == pytest.approx(1) and e.log_prob_nats[2] == pytest.approx(-np.log(30)) and e.k_hat[2] == np.inf
    assert np.isnan(e.log_prob_nats[3:]).all() and np.isnan(e.standard_error_nats[3:]).all()
    assert e.flags() == ["", "no weight; k_hat > 0.7", "k_hat > 0.7", "undefined weight", "undefined weight"]


def test_an_estimate_prints_its_unit_and_kind() -> None:
    text = str(gathered(np.random.default_rng(0).normal(-7, 1, (4, 50))))
    assert "nats" in text and "lower bound" in text and "K = 50" in text


def test_intervals_are_wider_for_few_samples() -> None:
    from scipy.stats import t

    e = gathered(np.random.default_rng(3).normal(0, 1, (2, 8)))
    low, high = e.interval(0.9)
    np.testing.assert_allclose((high - low) / e.standard_error_nats, 2 * t.ppf(0.95, 7))
