"""A sequence model's probabilities against sums over all latents and all series."""

import math

import pytest
import torch
from sequences import NOISES, all_latents, all_series, random_model, random_series
from torch import Tensor
from torch.nn import functional as F

from vaedensity.density.bdmc import simulate
from vaedensity.errors import UsageError
from vaedensity.model import sequence
from vaedensity.model.sequence import SequenceVAE

TINY = dict(variables=2, categories=3, length=5, levels=3)
DRAWS = 6_000
SPREADS = {"gumbel": 1.0, "exponential": 0.5, "normal": 0.5, "uniform": 0.1}  # so that no category is rarely drawn
every_noise = pytest.mark.parametrize("noise", NOISES)


def noise_for(model: SequenceVAE, count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, model.noise_dim, generator=torch.Generator().manual_seed(seed))


def log_terms(model: SequenceVAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x|z), log p(z) and log q(z|x), each (Z,), of one series and all latents, in float64."""
    z = all_latents(model.config)
    chosen = F.one_hot(z, model.config.categories).float()
    likelihood = model.log_likelihood(x.expand(len(z), -1, -1, -1), chosen).double()
    rows = torch.arange(model.config.variables)
    prior = model._log_prior()[rows, z].double().sum(1)
    posterior = model._log_posterior(model.encode(x))[0, rows, z].double().sum(1)
    return likelihood, prior, posterior


@every_noise
@torch.no_grad()
def test_sums_over_all_latents(noise: str) -> None:
    model = random_model(noise=noise, spread=SPREADS[noise], **TINY)
    for x in random_series(model.config, 3).split(1):
        likelihood, prior, posterior = log_terms(model, x)
        assert float(prior.exp().sum()) == pytest.approx(1, abs=1e-6)
        assert float(posterior.exp().sum()) == pytest.approx(1, abs=1e-5)
        assert float(posterior.std()) > 0.1 and float((likelihood.exp()).std()) > 1e-4


@every_noise
@torch.no_grad()
def test_weights_average_to_the_probability(noise: str) -> None:
    """And so latents are drawn from the q that the weights name."""
    model = random_model(noise=noise, spread=SPREADS[noise], **TINY)
    for x in random_series(model.config, 2).split(1):
        likelihood, prior, posterior = log_terms(model, x)
        assert float(posterior.min()) > math.log(1e-3)
        truth = float(torch.logsumexp(likelihood + prior, 0))
        many = x.expand(DRAWS, -1, -1, -1)
        found = model.log_weight(many, [c.expand(DRAWS, -1) for c in model.encode(x)], noise_for(model, DRAWS))
        weights = (found.total.double() - truth).exp()
        assert float(weights.std()) > 0
        assert abs(float(weights.mean()) - 1) < 4.5 * float(weights.std()) / DRAWS**0.5
        expected = float((posterior.exp() * (likelihood + prior - posterior)).sum())
        error = float(found.total.double().std()) / DRAWS**0.5
        assert float(found.total.double().mean()) == pytest.approx(expected, abs=4.5 * error)


@every_noise
@torch.no_grad()
def test_the_elbo_and_its_divergence(noise: str) -> None:
    model = random_model(noise=noise, spread=SPREADS[noise], **TINY)
    x = random_series(model.config, 1)
    likelihood, prior, posterior = log_terms(model, x)
    found, (divergence,) = model.elbo_terms(x.expand(DRAWS, -1, -1, -1), noise_for(model, DRAWS, seed=1))
    closed = float((posterior.exp() * (posterior - prior)).sum())
    assert closed > 0.01
    torch.testing.assert_close(divergence, torch.full_like(divergence, closed), atol=1e-4, rtol=1e-4)
    error = float(found.std()) / DRAWS**0.5
    assert float(found.double().mean()) == pytest.approx(float((posterior.exp() * likelihood).sum()), abs=4.5 * error)


@torch.no_grad()
def test_no_category_is_impossible() -> None:
    """Uniform noise has none for most: a floor keeps a finite price."""
    model = random_model(noise="uniform", spread=30.0, **TINY)
    _, _, posterior = log_terms(model, random_series(model.config, 1))
    assert float(posterior.min()) == pytest.approx(2 * math.log(2.0**-16), rel=1e-3)
    assert float(posterior.exp().sum()) == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_sums_over_all_series() -> None:
    model = random_model(variables=2, categories=3, length=3, levels=2)
    x = all_series(model.config)
    for z in all_latents(model.config):
        chosen = F.one_hot(z, 3).float().expand(len(x), -1, -1)
        p = model.log_likelihood(x, chosen).double().exp()
        assert float(p.sum()) == pytest.approx(1, abs=1e-5) and float(p.std()) > 0.01


@torch.no_grad()
def test_samples_have_the_models_frequencies() -> None:
    model = random_model(variables=1, categories=3, length=3, levels=2, spread=0.5)
    x = all_series(model.config)
    joint = torch.stack(
        [likelihood + prior for likelihood, prior, _ in (log_terms(model, one) for one in x.split(1))]
    ).exp()  # (8,3)
    g = torch.Generator().manual_seed(2)
    uniform = torch.rand(DRAWS, model.uniform_dim, generator=g, dtype=torch.float64)
    items, latents = model.simulate(noise_for(model, DRAWS), uniform)
    assert items.shape == (DRAWS, 1, 1, 3) and items.dtype == torch.uint8
    cell = (items.flatten(1).long() * torch.tensor([4, 2, 1])).sum(1) * 3 + latents.argmax(1)
    counts, expected = torch.bincount(cell, minlength=24).double(), joint.flatten() * DRAWS
    assert float(expected.min()) > 5
    assert float(((counts - expected).square() / expected).sum()) < 56  # beyond which 23 degrees of freedom go 1e-4


def test_samples_do_not_depend_on_the_others() -> None:
    model = random_model(levels=20)
    items, latents, _ = simulate(model, 6, seed=4)
    assert len({item.numpy().tobytes() for item in items}) == 6
    later, _, _ = simulate(model, 2, seed=4, first=3)
    assert torch.equal(later, items[3:5]) and latents.shape == (6, model.noise_dim)


def test_samples_can_be_reshaped() -> None:
    model = random_model(levels=20)
    model.reshape = lambda log_p: torch.log_softmax(1e9 * log_p, 1)  # only the likeliest
    noise, g = noise_for(model, 1).expand(4, -1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        items, _ = model.simulate(noise, torch.rand(4, model.uniform_dim, generator=g, dtype=torch.float64))
    assert bool((items == items[0]).all())


@torch.no_grad()
def test_the_size_of_a_pass_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    x, noise = random_series(model.config, 7), noise_for(model, 7)
    whole = model.log_weight(x, model.encode(x), noise)
    for positions in (1, 100):
        monkeypatch.setattr(sequence, "PASS_POSITIONS", positions)
        parts = model.log_weight(x, model.encode(x), noise)
        torch.testing.assert_close(parts.log_likelihood, whole.log_likelihood, atol=1e-3, rtol=1e-5)


def test_continuous_readings_are_rejected() -> None:
    model = random_model()
    x, noise = random_series(model.config, 2), noise_for(model, 2)
    for reading in (
        lambda: model.posterior_noise(model.encode(x), noise),
        lambda: model.prior_noise(noise),
        lambda: model.log_likelihood_under_prior(x, noise),
        lambda: model.log_weight(x, model.encode(x), noise.requires_grad_()),
    ):
        with pytest.raises(UsageError, match="categories"):
            reading()
