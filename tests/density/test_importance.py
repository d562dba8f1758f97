"""Importance sampling where log p(x) is known in closed form: the linear-Gaussian model."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vaedensity.density.estimate import Kind, WeightSums
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.model.gaussian import Gaussian
from vaedensity.model.latent_model import LatentModel, LogWeight

OBSERVED, LATENT, NOISE_SCALE = 30, 5, 0.5


class LinearGaussian(LatentModel):
    """p(z) = N(0, I), p(x|z) = N(W z, s^2 I); q(z|x) has the exact mean and diagonal scales of its own."""

    noise_dim = LATENT

    def __init__(self, seed: int = 0, widen: float = 1.3):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(OBSERVED, LATENT, generator=g).double() * 0.5)
        precision = torch.eye(LATENT) + self.weight.T @ self.weight / NOISE_SCALE**2
        self.covariance = torch.linalg.inv(precision)
        self.log2_scale = torch.log2(widen * self.covariance.diagonal().sqrt()).detach()
        self.marginal = torch.distributions.MultivariateNormal(
            torch.zeros(OBSERVED).double(),
            (self.weight @ self.weight.T + NOISE_SCALE**2 * torch.eye(OBSERVED)).detach(),
        )

    def encode(self, x: Tensor) -> list[Tensor]:
        return [x.double() @ self.weight @ self.covariance.T / NOISE_SCALE**2]

    def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
        posterior = Gaussian(context[0], self.log2_scale.expand_as(context[0]))
        z = posterior.sample(noise.double())
        likelihood = Gaussian(
            z @ self.weight.T, torch.full((1, OBSERVED), np.log2(NOISE_SCALE)).double().expand(len(z), -1)
        )
        prior = Gaussian(torch.zeros_like(z), torch.zeros_like(z))
        return LogWeight(likelihood.log_prob(x.double()), prior.log_prob(z), posterior.log_prob(z))


@pytest.fixture(scope="module")
def golden() -> tuple[LinearGaussian, np.ndarray, np.ndarray]:
    model = LinearGaussian()
    torch.manual_seed(1)
    x = model.marginal.sample((1000,))
    return model, x.numpy(), model.marginal.log_prob(x).numpy()


def test_bias_shrinks_towards_the_truth(golden: tuple[LinearGaussian, np.ndarray, np.ndarray]) -> None:
    model, x, truth = golden
    bias = {k: float((score(model, x, ImportanceSampling(k)).log_prob_nats - truth).mean()) for k in (1, 10, 100, 1000)}
    assert bias[1] < bias[10] < bias[100] < bias[1000] + 1e-3
    assert bias[1] < -0.05 and abs(bias[1000]) < 2e-3


def test_interval_covers_the_truth_at_its_rate(golden: tuple[LinearGaussian, np.ndarray, np.ndarray]) -> None:
    model, x, truth = golden
    e = score(model, x, ImportanceSampling(1000))
    covered = np.abs(e.log_prob_nats - truth) < 1.96 * e.standard_error_nats
    assert 0.92 <= covered.mean() <= 0.98
    assert e.kind is Kind.LOWER_BOUND and e.samples == 1000


def test_one_sample_is_the_elbo(golden: tuple[LinearGaussian, np.ndarray, np.ndarray]) -> None:
    model, x, _ = golden
    e = score(model, x[:20], ImportanceSampling(1))
    assert (e.log_prob_nats == e.elbo_nats).all() and np.isnan(e.standard_error_nats).all() and (e.ess == 1).all()


@pytest.mark.parametrize("samples", [1, 7, 64, 101])
def test_results_depend_on_neither_batch_nor_order(
    golden: tuple[LinearGaussian, np.ndarray, np.ndarray], samples: int
) -> None:
    model, x, _ = golden
    whole = score(model, x[:12], ImportanceSampling(samples), batch_size=4096)
    for batch_size in (1, 5, 64):
        part = score(model, x[:12], ImportanceSampling(samples), batch_size=batch_size)
        np.testing.assert_allclose(part.log_prob_nats, whole.log_prob_nats, rtol=1e-9)
        np.testing.assert_allclose(part.ess, whole.ess, rtol=1e-9)
        assert part.samples == samples
    later = score(model, x[5:12], ImportanceSampling(samples), first_index=5)
    np.testing.assert_allclose(later.log_prob_nats, whole.log_prob_nats[5:], rtol=1e-9)


def test_exactly_the_asked_samples_are_drawn(golden: tuple[LinearGaussian, np.ndarray, np.ndarray]) -> None:
    _, x, _ = golden
    drawn = []

    class Counting(LinearGaussian):
        def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
            drawn.append(len(noise))
            return super().log_weight(x, context, noise)

    score(Counting(), x[:3], ImportanceSampling(101), batch_size=17)
    assert sum(drawn) == 3 * 101 and max(drawn) <= 17


def test_seed_and_model_decide_the_noise(golden: tuple[LinearGaussian, np.ndarray, np.ndarray]) -> None:
    model, x, _ = golden
    runs = [
        score(model, x[:4], ImportanceSampling(5), seed=s, model_sha256=h).log_prob_nats
        for s, h in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    ]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).all() and (runs[0] != runs[3]).all()


def test_sums_in_pieces_equal_sums_at_once() -> None:
    logs = np.random.default_rng(0).normal(-1000, 30, (6, 50))
    whole, pieces = WeightSums(6), WeightSums(6)
    whole.add(logs)
    for part in np.array_split(logs, 7, axis=1):
        pieces.add(part)
    a, b = whole.estimate(), pieces.estimate()
    for name in ("log_prob_nats", "standard_error_nats", "elbo_nats", "ess"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-10)
    reference = np.logaddexp.reduce(logs, axis=1) - np.log(50)
    np.testing.assert_allclose(a.log_prob_nats, reference, rtol=1e-12)


def test_degenerate_weights_are_defined() -> None:
    sums = WeightSums(3)
    sums.add(np.array([[-5.0] * 4, [-np.inf] * 4, [-np.inf, 0, -np.inf, -np.inf]]))
    e = sums.estimate()
    assert e.log_prob_nats[0] == -5 and e.standard_error_nats[0] == 0 and e.ess[0] == 4
    assert e.log_prob_nats[1] == -np.inf and e.ess[1] == 0 and e.standard_error_nats[1] == np.inf
    assert e.ess[2] == 1
