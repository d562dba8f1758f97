"""Draws and expectations of the likelihoods against their probabilities, and latents against their noise."""

from itertools import product

import numpy as np
import pytest
import torch

from vaedensity.model.config import preset_config
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.likelihood import NUMBERS_A_VALUE, Bernoulli, LogisticMixture, PixelLikelihood, likelihood_for

DRAWS = 200_000


def count_outputs(likelihood: PixelLikelihood) -> int:
    return sum(len(starts) for _, starts in likelihood.outputs())


def random_parameters(likelihood: PixelLikelihood, channels: int, seed: int, n: int = 1) -> torch.Tensor:
    """(n,P,channels,1,1): several components of different weight and width."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, count_outputs(likelihood), channels, 1, 1, generator=generator)


def draw(likelihood: PixelLikelihood, parameters: torch.Tensor, channels: int, seed: int) -> np.ndarray:
    """DRAWS items (DRAWS,channels) under one set of parameters."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(DRAWS, NUMBERS_A_VALUE * channels, 1, 1, generator=generator, dtype=torch.float64)
    drawn = likelihood.sample(parameters.expand(DRAWS, -1, -1, -1, -1), uniform.clamp(1e-12, 1 - 1e-12))
    assert drawn.dtype == torch.uint8 and drawn.shape == (DRAWS, channels, 1, 1)
    return drawn[:, :, 0, 0].numpy()


def probabilities(likelihood: PixelLikelihood, parameters: torch.Tensor, items: torch.Tensor) -> np.ndarray:
    """Joint probability of each of ``items`` (n,channels)."""
    log_prob = likelihood.log_prob(parameters.expand(len(items), -1, -1, -1, -1), items[:, :, None, None].float())
    return log_prob.sum((1, 2, 3)).double().exp().numpy()


def excess(counts: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square of the cells, in standard deviations above its mean; rare cells count as one."""
    order = np.argsort(expected)
    counts, expected = counts[order], expected[order]
    first = int(np.searchsorted(expected.cumsum(), 20.0))
    counts = np.append(counts[:first].sum(), counts[first:])
    expected = np.append(expected[:first].sum(), expected[first:])
    used = expected > 0
    assert (counts[~used] == 0).all()
    freedom = int(used.sum()) - 1
    chi_square = float((np.square(counts[used] - expected[used]) / expected[used]).sum())
    return (chi_square - freedom) / (2 * max(1, freedom)) ** 0.5


@pytest.mark.parametrize("levels", [2, 3, 5, 17, 256])
@pytest.mark.parametrize("seed", range(3))
def test_draws_of_one_channel_follow_the_probabilities(levels: int, seed: int) -> None:
    likelihood = likelihood_for(levels, 4, 1)
    parameters = random_parameters(likelihood, 1, seed)
    counts = np.bincount(draw(likelihood, parameters, 1, seed)[:, 0], minlength=levels)
    expected = DRAWS * probabilities(likelihood, parameters, torch.arange(levels)[:, None])
    assert len(counts) == levels and counts.sum() == DRAWS
    assert excess(counts, expected) < 5


@pytest.mark.parametrize("levels", [2, 4, 7])
@pytest.mark.parametrize("seed", range(3))
def test_draws_of_three_channels_follow_the_joint_probabilities(levels: int, seed: int) -> None:
    likelihood = likelihood_for(levels, 3, 3)
    parameters = random_parameters(likelihood, 3, seed)
    counts = np.zeros((levels,) * 3)
    np.add.at(counts, tuple(draw(likelihood, parameters, 3, seed).T), 1)
    items = torch.tensor(list(product(range(levels), repeat=3)))
    expected = DRAWS * probabilities(likelihood, parameters, items)
    assert expected.sum() == pytest.approx(DRAWS, rel=1e-4)
    assert excess(counts.ravel(), expected) < 5


def test_channels_depend_on_each_other_where_the_parameters_say_so() -> None:
    likelihood = LogisticMixture(256, 2, channels=3)
    parameters = torch.zeros(1, count_outputs(likelihood), 3, 1, 1)
    parameters[:, 6:8, 1] = 1.0
    red, green, blue = draw(likelihood, parameters, 3, 0).T.astype(float)
    assert np.corrcoef(red, green)[0, 1] > 0.5 and abs(np.corrcoef(red, blue)[0, 1]) < 0.02


def test_draws_keep_their_place() -> None:
    likelihood = LogisticMixture(256, 2, channels=3)
    parameters = torch.zeros(2, count_outputs(likelihood), 3, 4, 5)
    means = torch.randint(0, 256, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    parameters[:, 2:4] = ((means - likelihood.center) * 2.0**-likelihood.exponent)[:, None]
    parameters[:, 4:6] = -100.0  # the narrowest
    uniform = torch.full((2, 6, 4, 5), 0.5, dtype=torch.float64)
    for found in (likelihood.sample(parameters, uniform), likelihood.expect(parameters)):
        assert torch.equal(found.long(), means)


@pytest.mark.parametrize("position", [1e-12, 1 - 1e-12])
@pytest.mark.parametrize("levels", [2, 3, 256])
def test_the_ends_of_the_uniforms_give_values_in_range(levels: int, position: float) -> None:
    likelihood = likelihood_for(levels, 3, 1)
    parameters = random_parameters(likelihood, 1, 0, n=50) * 5
    drawn = likelihood.sample(parameters, torch.full((50, 2, 1, 1), position, dtype=torch.float64))
    assert int(drawn.max()) < levels


@pytest.mark.parametrize("levels", [5, 17, 256])
def test_expected_values_are_the_means_of_the_mass_functions(levels: int) -> None:
    """Away from the ends, where a logistic is not cut: to half a level, plus what lies beyond the ends."""
    likelihood = LogisticMixture(levels, 3, channels=1)
    parameters = random_parameters(likelihood, 1, levels, n=40)
    parameters[:, 3:6] *= 0.4  # means in the middle
    parameters[:, 6:9] = -parameters[:, 6:9].abs() - 1  # narrow
    every = torch.arange(levels)
    for one in parameters.split(1):
        mass = probabilities(likelihood, one, every[:, None])
        found = int(likelihood.expect(one))
        assert abs(found - (mass * every.numpy()).sum()) < 0.5 + 0.05


def test_expected_values_beyond_the_ends_are_the_ends() -> None:
    likelihood = LogisticMixture(17, 2, channels=1)
    parameters = torch.zeros(2, count_outputs(likelihood), 1, 1, 1)
    parameters[0, 2:4], parameters[1, 2:4] = -50.0, 50.0
    assert likelihood.expect(parameters).flatten().tolist() == [0, 16]


def test_expected_channels_see_the_expected_channels_before() -> None:
    likelihood = LogisticMixture(256, 1, channels=3)
    parameters = torch.zeros(1, 5, 3, 1, 1)
    parameters[0, 1, 0] = 0.5  # red 32 levels above the centre, 64 levels a unit
    parameters[0, 3, 1], parameters[0, 3, 2], parameters[0, 4, 2] = 1.0, 0.5, 0.25
    assert likelihood.exponent == 6
    assert likelihood.expect(parameters).flatten().tolist() == [160, 160, 152]


def test_the_likelier_of_two_values() -> None:
    odds = torch.tensor([-3.0, -0.01, 0.01, 5.0]).view(-1, 1, 1, 1, 1)
    assert Bernoulli().expect(odds).flatten().tolist() == [0, 0, 1, 1]


# Latents and the noise behind them


@pytest.fixture(scope="module", params=[((1, 8, 8), 17), ((3, 7, 5), 256), ((1, 1, 9), 2)], ids=str)
def network(request: pytest.FixtureRequest) -> HierarchicalVAE:
    """Untrained, with weights large enough for priors and posteriors to depend on what they see."""
    shape, levels = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HierarchicalVAE(preset_config("tiny", shape, levels)).eval()
        with torch.no_grad():
            for p in [*model.prior_heads.parameters(), *model.posterior_heads.parameters()]:
                p.add_(0.2 * torch.randn_like(p))
    return model


def numbers(model: HierarchicalVAE, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, model.noise_dim, generator=generator)
    return noise, torch.rand(n, model.uniform_dim, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)


def test_prior_noise_inverts_simulate(network: HierarchicalVAE) -> None:
    noise, uniform = numbers(network, 20, 1)
    with torch.no_grad():
        x, latents = network.simulate(noise, uniform)
        back = network.prior_noise(latents)
    assert x.dtype == torch.uint8 and x.shape == (20, *network.config.item_shape)
    assert int(x.max()) < network.config.levels and latents.shape == noise.shape
    assert torch.allclose(back, noise, atol=1e-4) and not torch.allclose(latents, noise, atol=0.1)


def test_posterior_noise_inverts_log_weight(network: HierarchicalVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    noise, uniform = numbers(network, 20, 2)
    seen: list[torch.Tensor] = []
    absorb = network.absorb_latent

    def watch(level: int, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        seen.append(z.flatten(1))
        return absorb(level, h, z)

    with torch.no_grad():
        x, made = network.simulate(noise, uniform)
        context = network.encode(x)
        monkeypatch.setattr(network, "absorb_latent", watch)
        network.log_weight(x, context, noise)
        monkeypatch.undo()
        latents = torch.cat(seen, 1)
        assert torch.allclose(network.posterior_noise(context, latents), noise, atol=1e-4)
        behind = network.posterior_noise(context, made)
        weight = network.log_weight(x, context, behind)
        likelihood = network.log_likelihood_under_prior(x, noise)
    # The latents that made x are weighed as such: their likelihood and their density under the prior.
    assert torch.allclose(weight.log_likelihood, likelihood, atol=1e-2, rtol=1e-4)
    assert not torch.allclose(latents, made, atol=0.1)


def test_simulated_items_follow_the_likelihood(network: HierarchicalVAE) -> None:
    """One value of the first sub-image, many times under the same latents."""
    n = 2000
    noise, uniform = numbers(network, 1, 3)
    noise = noise.expand(n, -1)
    uniform = torch.rand(n, network.uniform_dim, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with torch.no_grad():
        x, latents = network.simulate(noise, uniform.clamp(1e-12, 1 - 1e-12))
        h = network.top_down(n, lambda level, h, prior: network.split_latents(latents)[level])
        parameters, part = next(network.walk_sub_images(x, h))
        levels = torch.arange(network.config.levels)
        one = parameters[:1, :, :, :1, :1]
        red = [
            network.likelihood.log_prob(one, torch.full((1, one.shape[2], 1, 1), float(v)))[0, 0, 0, 0] for v in levels
        ]
    expected = n * torch.stack(red).double().exp().numpy()
    counts = np.bincount(part[:, 0, 0, 0].numpy(), minlength=network.config.levels)
    assert excess(counts, expected) < 5
