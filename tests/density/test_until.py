"""Sampling until the error bar is met."""

from typing import Any

import numpy as np
import pytest

from vaedensity.density.annealed import Annealed
from vaedensity.density.estimate import Kind
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.density.jackknife import Jackknife
from vaedensity.density.until import UntilStandardError
from vaedensity.errors import UsageError


@pytest.mark.parametrize("inner", [ImportanceSampling(32), Jackknife(40), Annealed(32)], ids=repr)
def test_meets_the_target_item_by_item(golden: Any, inner: Any) -> None:
    x = golden.x[:40]
    e = score(golden.model, x, UntilStandardError(inner, 0.1, 4096), batch_size=2048)
    assert e.met.all() and (e.standard_error_nats <= 0.1).all() and e.kind is Kind.POINT_ESTIMATE
    assert len(set(e.samples.tolist())) > 1  # some items need more than others
    doubled = inner.samples * 2 ** np.arange(12)
    assert set(e.samples.tolist()) <= set(doubled.tolist())
    assert abs(e.log_prob_nats - golden.truth[:40]).max() < 0.5


def test_what_is_drawn_is_what_a_fixed_number_draws(golden: Any) -> None:
    x = golden.x[:10]
    e = score(golden.model, x, UntilStandardError(ImportanceSampling(16), 0.1))  # begins with 32
    for i, k in enumerate(e.samples):
        fixed = score(golden.model, x[i : i + 1], ImportanceSampling(int(k)))
        assert e.log_prob_nats[i] == pytest.approx(fixed.log_prob_nats[0], abs=1e-9)
        assert e.k_hat[i] == pytest.approx(fixed.k_hat[0], nan_ok=True)
    again = score(golden.model, x, UntilStandardError(ImportanceSampling(16), 0.1), batch_size=3)
    np.testing.assert_allclose(again.log_prob_nats, e.log_prob_nats, atol=1e-9)


def test_gives_up_at_the_limit_and_says_so(misled: Any) -> None:
    e = score(misled.model, misled.x[:6], UntilStandardError(ImportanceSampling(16), 1e-4, 100))
    assert not e.met.any() and (e.samples == 100).all()
    assert all("error bar not met" in flag for flag in e.flags())


def test_settings_that_make_no_sense() -> None:
    for target in (0.0, float("nan"), 0.51, 1.0, float("inf")):
        with pytest.raises(UsageError, match="standard error"):
            UntilStandardError(ImportanceSampling(16), target, 100)
    for samples, most in ((16, 31), (200, 100)):
        with pytest.raises(UsageError, match="at most"):
            UntilStandardError(ImportanceSampling(samples), 0.1, most)
    with pytest.raises(UsageError, match="subsets"):
        UntilStandardError(Jackknife(64, order=2), 0.1)  # it would visit 2e9 pairs
