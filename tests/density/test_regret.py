"""Likelihood regret where the best posterior is known in closed form, and on a fitted model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_gaussian import LATENT, LinearGaussian
from torch import Tensor

from vaedensity.density.estimator import ItemNoise
from vaedensity.density.regret import ItemPosterior, LikelihoodRegret, _elbo_terms
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import load_model
from vaedensity.units import LN2


def divergence(model: LinearGaussian, shift: Tensor, scale: Tensor) -> float:
    """KL(N(m + shift, diag(scale^2)) || p(z|x)) in nats, m the exact posterior mean."""
    covariance = model.covariance.double()
    precision = torch.linalg.inv(covariance)
    trace = (precision.diagonal() * scale**2).sum() + shift @ precision @ shift
    return float(0.5 * (trace - LATENT + torch.logdet(covariance) - 2 * scale.log().sum()))


def best_scale(model: LinearGaussian) -> Tensor:
    """Scales of the diagonal Gaussian of least KL(q || p): the precision's diagonal decides."""
    precision: Tensor = torch.linalg.inv(model.covariance.double())
    return precision.diagonal().rsqrt()


def shift_of(model: LinearGaussian) -> Tensor:
    return torch.as_tensor(model.shift).double().expand(LATENT)


@pytest.mark.parametrize("widen, shift", [(1.3, 0.0), (0.5, 0.0), (2.0, 1.0), (1.0, 3.0)])
def test_regret_approaches_the_gap_to_the_best_diagonal_posterior(widen: float, shift: float) -> None:
    model = LinearGaussian(widen=widen, shift=shift)
    x, _ = model.data(200)
    scale = 2 ** model.log2_scale.double()
    gap = divergence(model, shift_of(model), scale) - divergence(model, 0 * scale, best_scale(model))
    found = LikelihoodRegret(samples=4).score(model, x, batch_size=1024)
    error = found.std() / len(x) ** 0.5  # of the evaluation's noise: the gap is the same for all items
    assert abs(found.mean() - gap / LN2) < 4 * error + 0.01 * gap / LN2


def test_nothing_to_regret_where_the_posterior_is_the_best() -> None:
    model = LinearGaussian()
    model.log2_scale = best_scale(model).log2()
    x, _ = model.data(100)
    found = LikelihoodRegret(samples=4).score(model, x)
    assert abs(found.mean()) < 0.03 and np.abs(found).max() < 0.3


@pytest.mark.parametrize("path_only", [False, True])
def test_terms_average_to_the_elbo_of_any_posterior(path_only: bool) -> None:
    model = LinearGaussian(shift=0.5)
    x, log_prob = model.data(3)
    items = torch.from_numpy(x)
    with torch.no_grad():
        context = model.encode(items)
        eps = torch.randn(3, 20000, LATENT, generator=torch.Generator().manual_seed(0)).double()
        amortised = ItemPosterior.amortised(model, items)
        terms = _elbo_terms(model, items, context, amortised, eps[:, :1], path_only)
        assert torch.allclose(terms[:, 0], model.log_weight(items, context, eps[:, 0]).total)
        moved = ItemPosterior(amortised.mean + torch.linspace(-1, 1, LATENT), amortised.log_scale - 0.4)
        terms = _elbo_terms(model, items, context, moved, eps, path_only)
    scale = 2 ** model.log2_scale.double()
    expected = log_prob - divergence(model, shift_of(model) + scale * moved.mean[0], scale * moved.log_scale[0].exp())
    error = (terms.std(1) / eps.shape[1] ** 0.5).numpy()
    assert (np.abs(terms.mean(1).numpy() - expected) < 4 * error).all()


def test_every_item_is_optimised_on_its_own() -> None:
    model = LinearGaussian(widen=2.0, shift=1.0)
    x, _ = model.data(9)
    regret = LikelihoodRegret(steps=30, samples=2, evaluate=7)
    whole = regret.score(model, x, model_sha256="a", seed=3)
    for batch_size in (1, 5, 8):
        np.testing.assert_allclose(
            regret.score(model, x, model_sha256="a", seed=3, batch_size=batch_size), whole, atol=1e-6
        )
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(regret.score(model, x[order], model_sha256="a", seed=3), whole[order], atol=1e-6)
    assert np.abs(regret.score(model, x, model_sha256="a", seed=4) - whole).min() > 1e-6


def test_noise_among_digits_is_regretted_and_the_model_stays_as_it_was(model: Path, digits: np.ndarray) -> None:
    network = load_model(model).float_model()
    before = [p.detach().clone() for p in network.parameters()]
    noise = np.random.default_rng(2).integers(0, 17, (8, 1, 8, 8), np.uint8)
    done: list[int] = []
    regret = LikelihoodRegret(steps=40)
    items = np.concatenate([digits[1500:1508, None], noise])
    found = regret.score(network, items, batch_size=10, progress=done.append)
    assert found.shape == (16,) and found.dtype == np.float64 and done == [10, 6]
    assert found[:8].max() < found[8:].min() and found[:8].mean() > 0
    np.testing.assert_allclose(regret.score(network, items[::-1], batch_size=16)[::-1], found, atol=0.2, rtol=0.02)
    assert all(torch.equal(p, q) and p.requires_grad and p.grad is None for p, q in zip(network.parameters(), before))


def test_posteriors_are_found_from_the_item_alone() -> None:
    model = LinearGaussian(widen=2.0, shift=1.0)
    x, _ = model.data(2)
    items, noise = torch.from_numpy(x), [ItemNoise("", 0, item) for item in x]
    with torch.no_grad():
        context = model.encode(items)
    own = LikelihoodRegret(samples=4).fit(model, items, context, ItemPosterior.amortised(model, items), noise)
    scale = 2 ** model.log2_scale.double()
    assert torch.allclose(own.mean, -shift_of(model) / scale, atol=0.05)
    assert torch.allclose(own.log_scale, (best_scale(model) / scale).log(), atol=0.05)


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"steps": 0}, {"samples": 0}, {"evaluate": 0}, {"rate": 0.0}, {"rate": float("nan")}):
        with pytest.raises(UsageError, match=r"expected at least 1 of each and a rate above 0$"):
            LikelihoodRegret(**wrong)
    assert LikelihoodRegret().score(LinearGaussian(), np.zeros((0, 30))).shape == (0,)
