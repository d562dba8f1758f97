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


@pytest.mark.parametrize("inner", [ImportanceSampling(16), Jackknife(20), Annealed(16)], ids=repr)
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
    e = score(golden.model, x, UntilStandardError(ImportanceSampling(16), 0.1))
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
    for target, most in ((0.0, 100), (float("nan"), 100), (0.1, 15)):
        with pytest.raises(UsageError, match="standard error"):
            UntilStandardError(ImportanceSampling(16), target, most)
