"""Likelihoods are probability mass functions, and their integer twins say the same."""

import numpy as np
import pytest
import torch

from vaedensity.coding.pixel_table import pixel_table
from vaedensity.coding.tables import TOTAL
from vaedensity.model.likelihood import Bernoulli, Categorical, LogisticMixture, PixelLikelihood, likelihood_for

LEVELS = [3, 5, 17, 100, 255, 256]


def unit_of_outputs(likelihood: PixelLikelihood, neighbours: int = 0) -> list[float]:
    return [unit for unit, starts in likelihood.outputs(neighbours) for _ in starts]


def count_outputs(likelihood: PixelLikelihood) -> int:
    return len(unit_of_outputs(likelihood))


def every_level(likelihood: PixelLikelihood, parameters: torch.Tensor) -> torch.Tensor:
    """Probabilities (levels, B, C, h, w)."""
    shape = (parameters.shape[0], *parameters.shape[2:])
    return torch.stack(
        [likelihood.log_prob(parameters, torch.full(shape, float(x))).exp() for x in range(likelihood.levels)]
    )


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 30.0])
def test_mixtures_sum_to_one(levels: int, spread: float) -> None:
    torch.manual_seed(levels)
    likelihood = LogisticMixture(levels, 4, channels=1)
    parameters = torch.randn(50, count_outputs(likelihood), 1, 2, 2).double() * spread
    total = every_level(likelihood, parameters).double().sum(0)
    assert torch.allclose(total, torch.ones_like(total), atol=2e-5)


def test_bernoulli_sums_to_one() -> None:
    odds = torch.linspace(-60, 60, 241).view(-1, 1, 1, 1, 1)
    zero, one = (Bernoulli().log_prob(odds, torch.full((241, 1, 1, 1), v)).exp() for v in (0.0, 1.0))
    assert torch.allclose(zero + one, torch.ones_like(zero), atol=1e-6)


def test_green_and_blue_follow_the_channels_before() -> None:
    likelihood = LogisticMixture(256, 2, channels=3)
    parameters = torch.zeros(1, count_outputs(likelihood), 3, 1, 1)
    parameters[:, 4:6] = -4.0  # narrow
    x = torch.tensor([200.0, 200.0, 128.0]).view(1, 3, 1, 1)
    plain = likelihood.log_prob(parameters, x)
    parameters[:, 6:8, 1] = 1.0  # green's mean moves with red
    moved = likelihood.log_prob(parameters, x)
    assert moved[0, 1] > plain[0, 1] + 5
    assert torch.equal(moved[0, [0, 2]], plain[0, [0, 2]])


@pytest.mark.parametrize("levels", [3, 17, 256])
def test_categories_sum_to_one(levels: int) -> None:
    likelihood = Categorical(levels)
    parameters = torch.randn(20, levels, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 8
    total = every_level(likelihood, parameters).sum(0)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


@pytest.mark.parametrize("kind", ["mixture", "categorical"])
@pytest.mark.parametrize(("levels", "channels"), [(256, 1), (256, 3), (17, 1), (100, 3), (2, 1)])
def test_integer_twin_agrees(levels: int, channels: int, kind: str) -> None:
    torch.manual_seed(0)
    likelihood = likelihood_for(levels, 3, channels, kind=kind)
    units = torch.tensor(unit_of_outputs(likelihood)).view(1, -1, 1, 1, 1)
    real = torch.randn(200, count_outputs(likelihood), channels, 1, 1)
    if kind == "mixture":
        real[:, 9:] *= 0.2  # colour weights that keep means inside the table
    integers = (real * units).round()
    x = torch.randint(0, levels, (200, channels, 1, 1))
    expected = likelihood.log_prob(integers / units, x.float()).exp()
    for channel in range(channels):
        known = [x[:, c].flatten(1) for c in range(channel)]
        table = pixel_table(integers, channel, known, levels, kind)
        here = x[:, channel].flatten(1)
        mass = table.cumulative(torch.stack([here, here + 1], -1)).diff(dim=-1)[..., 0] / TOTAL
        np.testing.assert_allclose(
            mass, expected[:, channel].flatten(1), rtol=4e-2 if channels == 3 else 3e-3, atol=1e-5
        )
