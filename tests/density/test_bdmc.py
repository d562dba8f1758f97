"""Bounds from both sides, on items drawn from the model."""

from typing import Any

import numpy as np
import pytest
import torch

from vaedensity.density.annealed import Annealed
from vaedensity.density.bdmc import bdmc_bounds, simulate
from vaedensity.density.estimate import Kind
from vaedensity.density.importance import ImportanceSampling

ESTIMATORS = [ImportanceSampling(5), Annealed(8), Annealed(8, leapfrog_steps=5, start="prior")]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("which", ["golden", "misled"])
def test_encloses_the_truth(request: pytest.FixtureRequest, which: str, estimator: Any) -> None:
    model = request.getfixturevalue(which).model
    result = bdmc_bounds(model, estimator, 100, batch_size=8192)
    truth = model.marginal.log_prob(torch.from_numpy(result.x)).numpy()
    assert (result.lower.kind, result.upper.kind) == (Kind.LOWER_BOUND, Kind.UPPER_BOUND)
    for gap in (truth - result.lower.log_prob_nats, result.upper.log_prob_nats - truth):
        assert gap.mean() > -3 * gap.std(ddof=1) / len(gap) ** 0.5
    assert result.mean_width_nats > -3 * result.standard_error_nats


def test_more_samples_close_it(golden: Any) -> None:
    widths = [bdmc_bounds(golden.model, ImportanceSampling(k), 300).mean_width_nats for k in (1, 10, 100)]
    assert widths[0] > 3 * widths[1] > 3 * widths[2] > 0


def test_items_do_not_depend_on_how_many_are_drawn(golden: Any) -> None:
    x, latents, _ = simulate(golden.model, 6, seed=5)
    later, _, _ = simulate(golden.model, 2, seed=5, first=4)
    torch.testing.assert_close(x[4:], later)
    assert latents.shape == (6, golden.model.noise_dim)
    a, b = (bdmc_bounds(golden.model, ImportanceSampling(9), 7, batch_size=n) for n in (9, 200))
    np.testing.assert_allclose(a.width_nats, b.width_nats, atol=1e-9)
