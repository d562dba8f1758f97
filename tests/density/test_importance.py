"""Importance sampling where log p(x) is known in closed form: the linear-Gaussian model."""

from typing import Any

import numpy as np
import pytest
import torch
from linear_gaussian import LinearGaussian
from torch import Tensor

from vaedensity.density.estimate import Kind
from vaedensity.density.estimator import ItemNoise, score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.model.latent_model import LogWeight


def test_bias_shrinks_towards_the_truth(golden: Any) -> None:
    bias = {
        k: float(
            (score(golden.model, golden.x, ImportanceSampling(k), batch_size=16384).log_prob_nats - golden.truth).mean()
        )
        for k in (1, 10, 100, 1000)
    }
    assert bias[1] < bias[10] < bias[100] < bias[1000] + 1e-3
    assert bias[1] < -0.05 and abs(bias[1000]) < 2e-3


@pytest.mark.parametrize("samples", [100, 1000])
def test_intervals_cover_the_truth(golden: Any, samples: int) -> None:
    e = score(golden.model, golden.x, ImportanceSampling(samples), batch_size=8192)
    low, high = e.interval(0.95)
    assert 0.92 <= np.mean((low <= golden.truth) & (golden.truth <= high)) <= 0.98
    assert e.kind is Kind.LOWER_BOUND and (e.samples == samples).all()


def test_one_sample_is_the_elbo(golden: Any) -> None:
    e = score(golden.model, golden.x[:20], ImportanceSampling(1))
    assert (e.log_prob_nats == e.elbo_nats).all() and np.isnan(e.standard_error_nats).all() and (e.ess == 1).all()
    assert np.isnan(e.k_hat).all() and np.isnan(e.mean_standard_error_nats)


@pytest.mark.parametrize("samples", [1, 7, 64, 101])
def test_results_depend_on_neither_batch_nor_order_nor_company(golden: Any, samples: int) -> None:
    model, x = golden.model, golden.x[:12]
    whole = score(model, x, ImportanceSampling(samples), batch_size=4096)
    for batch_size in (1, 5, 64):
        part = score(model, x, ImportanceSampling(samples), batch_size=batch_size)
        for name in ("log_prob_nats", "ess", "elbo_nats"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name), rtol=1e-9)
        assert (part.samples == samples).all()
    turned = score(model, x[::-1].copy(), ImportanceSampling(samples))
    np.testing.assert_allclose(turned.log_prob_nats[::-1], whole.log_prob_nats, rtol=1e-9)
    alone = score(model, x[7:8], ImportanceSampling(samples))
    np.testing.assert_allclose(alone.log_prob_nats, whole.log_prob_nats[7:8], rtol=1e-9)


def test_equal_items_share_their_error(golden: Any) -> None:
    x = golden.x[[0, 1, 0, 0]]
    e = score(golden.model, x, ImportanceSampling(30))
    assert e.log_prob_nats[0] == pytest.approx(e.log_prob_nats[2], abs=1e-9)
    a, b = e.standard_error_nats[:2]
    assert e.mean_standard_error_nats == pytest.approx(np.hypot(3 * a, b) / 4)


def test_exactly_the_asked_samples_are_drawn(golden: Any) -> None:
    drawn, encoded = [], []

    class Counting(LinearGaussian):
        def encode(self, x: Tensor) -> list[Tensor]:
            encoded.append(len(x))
            return super().encode(x)

        def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
            drawn.append(len(noise))
            return super().log_weight(x, context, noise)

    score(Counting(), golden.x[:3], ImportanceSampling(101), batch_size=17)
    assert sum(drawn) == 3 * 101 and max(drawn) <= 17
    assert sum(encoded) == 3  # once per item


def test_many_samples_in_bounded_memory(golden: Any) -> None:
    e = score(golden.model, golden.x[:2], ImportanceSampling(100_000), batch_size=2048)
    assert (e.samples == 100_000).all() and abs(e.log_prob_nats - golden.truth[:2]).max() < 0.02
    assert (e.k_hat < 0.5).all()


def test_seed_model_and_item_decide_the_noise(golden: Any) -> None:
    runs = [
        score(golden.model, golden.x[:4], ImportanceSampling(5), seed=s, model_sha256=h).log_prob_nats
        for s, h in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    ]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).all() and (runs[0] != runs[3]).all()


def test_streams_of_an_item_are_independent_and_resumable() -> None:
    item = np.arange(4)
    a, b = ItemNoise("m", 0, item), ItemNoise("m", 0, item)
    whole = a.stream("x").standard_normal(10, np.float32)
    again = b.stream("x")
    assert np.array_equal(
        np.concatenate([again.standard_normal(4, np.float32), again.standard_normal(6, np.float32)]), whole
    )
    others = [a.stream("y"), a.stream("x", 1), ItemNoise("m", 0, item.astype(np.int32)).stream("x")]
    assert all(not np.array_equal(o.standard_normal(10, np.float32), whole) for o in others)


def test_upper_bound_with_the_exact_draw(golden: Any) -> None:
    model = golden.model
    noise = torch.randn(400, model.noise_dim, generator=torch.Generator().manual_seed(3)).double()
    uniform = torch.rand(400, model.uniform_dim, generator=torch.Generator().manual_seed(4)).double()
    x, latents = model.simulate(noise, uniform)
    truth = model.marginal.log_prob(x).detach().numpy()
    x, latents = x.detach(), latents.detach()
    sources = [ItemNoise("", 0, item) for item in x.numpy()]
    previous = np.inf
    for k in (1, 10, 100):
        e = ImportanceSampling(k).upper(model, x, latents, sources, 4096)
        excess = float((e.log_prob_nats - truth).mean())
        assert np.isnan(e.standard_error_nats).all() and np.isnan(e.k_hat).all()  # the weights are not independent
        assert e.kind is Kind.UPPER_BOUND and 0 < excess + 0.01 < previous and (e.samples == k).all()
        previous = excess
    assert previous < 0.03
