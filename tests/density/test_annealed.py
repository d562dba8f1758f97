"""Annealed importance sampling: the transitions, the ladder, the estimates."""

from typing import Any

import numpy as np
import pytest
import torch
from linear_gaussian import LinearGaussian

from vaedensity.density.annealed import Annealed, AnnealedChains
from vaedensity.density.estimate import Kind
from vaedensity.density.estimator import ItemNoise, score
from vaedensity.density.hamiltonian import evaluate, transition
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import UsageError
from vaedensity.model.latent_model import LogWeight


def test_transitions_keep_their_distribution() -> None:
    """f_b for l(e) = -a |e - m|^2 / 2 is Gaussian with precision 1 + b a and mean b a m / (1 + b a)."""
    g = torch.Generator().manual_seed(0)
    a, m, b, n, d = 3.0, 2.0, 0.6, 20_000, 3
    precision, mean = 1 + b * a, b * a * m / (1 + b * a)

    def log_ratio(e: torch.Tensor) -> torch.Tensor:
        return -0.5 * a * (e - m).square().sum(1)

    chains = evaluate(log_ratio, torch.randn(n, d, generator=g, dtype=torch.float64) / precision**0.5 + mean)
    accepted = torch.zeros(n, dtype=torch.float64)
    for _ in range(5):
        chains, accepted = transition(
            chains,
            log_ratio,
            torch.full((n,), b, dtype=torch.float64),
            torch.full((n,), 0.7, dtype=torch.float64),  # coarse: acceptance matters
            3,
            torch.randn(n, d, generator=g, dtype=torch.float64),
            torch.rand(n, generator=g, dtype=torch.float64).log(),
        )
    assert 0.5 < float(accepted.mean()) < 0.97
    assert chains.position.mean().item() == pytest.approx(mean, abs=0.01)
    assert chains.position.var().item() == pytest.approx(1 / precision, rel=0.02)
    fresh = evaluate(log_ratio, chains.position)
    torch.testing.assert_close(fresh.log_ratio, chains.log_ratio)
    torch.testing.assert_close(fresh.gradient, chains.gradient)


def test_trajectories_that_end_nowhere_are_rejected() -> None:
    chains = evaluate(lambda e: -e.square().sum(1), torch.ones(4, 2, dtype=torch.float64))
    one = torch.ones(4, dtype=torch.float64)
    kept, accepted = transition(
        chains, lambda e: -(e**60).sum(1) / (e - e).sum(1), one, 9 * one, 5, torch.ones(4, 2).double(), -one
    )
    assert (accepted == 0).all() and torch.equal(kept.position, chains.position)


def test_coverage(golden: Any) -> None:
    e = score(golden.model, golden.x, Annealed(16), batch_size=16384)
    low, high = e.interval(0.95)
    assert 0.92 <= np.mean((low <= golden.truth) & (golden.truth <= high)) <= 0.98
    assert e.kind is Kind.LOWER_BOUND and (e.samples == 16).all()
    assert abs((e.log_prob_nats - golden.truth).mean()) < 0.03


def test_a_bad_posterior_is_overcome(misled: Any) -> None:
    plain = score(misled.model, misled.x, ImportanceSampling(100)).log_prob_nats - misled.truth
    assert plain.mean() < -0.5
    settings = Annealed(100, entropy_share=0.998, pilot_chains=32)
    annealed = score(misled.model, misled.x, settings, batch_size=8192).log_prob_nats - misled.truth
    assert abs(annealed.mean()) < 0.02


@pytest.mark.parametrize("start", ["posterior", "prior"])
def test_batches_and_order_do_not_matter(golden: Any, start: str) -> None:
    settings = Annealed(5, start=start, pilot_chains=4, entropy_share=0.7, leapfrog_steps=3)
    x = golden.x[:4]
    whole = score(golden.model, x, settings, batch_size=1000)
    for batch_size in (1, 11):
        part = score(golden.model, x, settings, batch_size=batch_size)
        np.testing.assert_allclose(part.log_prob_nats, whole.log_prob_nats, atol=1e-7)
        np.testing.assert_allclose(part.elbo_nats, whole.elbo_nats, atol=1e-7)
    turned = score(golden.model, x[::-1].copy(), settings, batch_size=1000)
    np.testing.assert_allclose(turned.log_prob_nats[::-1], whole.log_prob_nats, atol=1e-7)


def test_the_elbo_is_the_posterior_s_from_either_start(golden: Any) -> None:
    x, settings = golden.x[:50], {"entropy_share": 0.5, "leapfrog_steps": 1}
    starts = [Annealed(64, start=start, **settings) for start in ("posterior", "prior")]
    elbos = [score(golden.model, x, estimator, batch_size=8192).elbo_nats.mean() for estimator in starts]
    expected = score(golden.model, x, ImportanceSampling(2000), batch_size=8192).elbo_nats.mean()
    # From the prior, chains begin at prior draws: the ELBO is taken with the same noise under q.
    assert elbos == [pytest.approx(expected, abs=0.15)] * 2


def test_ladders_rise_to_one_and_follow_the_share(misled: Any) -> None:
    x = misled.x[:8]
    lengths = []
    for share in (0.8, 0.95, 0.99):
        chains = AnnealedChains(
            Annealed(entropy_share=share), misled.model, torch.from_numpy(x), [ItemNoise("", 0, i) for i in x], 512
        )
        for ladder in chains.ladders:
            assert ladder.betas[-1] == 1 and all(np.diff([0, *ladder.betas]) > 0)
            assert len(ladder.steps) == len(ladder.betas)
        lengths.append(np.mean([len(ladder.betas) for ladder in chains.ladders]))
    assert lengths[0] < lengths[1] < lengths[2]
    capped = AnnealedChains(
        Annealed(entropy_share=0.999, most_temperatures=5),
        misled.model,
        torch.from_numpy(x),
        [ItemNoise("", 0, i) for i in x],
        512,
    )
    assert all(len(ladder.betas) <= 5 and ladder.betas[-1] == 1 for ladder in capped.ladders)


def test_impossible_places_do_not_spread(golden: Any) -> None:
    """Where p(x|z) is zero, l is -inf: a longer ladder of another item must not make that NaN."""

    class Walled(LinearGaussian):
        def log_weight(self, x: torch.Tensor, context: list[torch.Tensor], noise: torch.Tensor) -> LogWeight:
            weight = super().log_weight(x, context, noise)
            wall = torch.where(noise[:, 0] > 0.5, -torch.inf, 0.0).double()
            return weight._replace(log_likelihood=weight.log_likelihood + wall)

    model, settings = Walled(), Annealed(8, entropy_share=0.8, leapfrog_steps=3)
    together = score(model, golden.x[:6], settings, batch_size=1000).log_prob_nats
    assert np.isfinite(together).all()
    alone = [score(model, golden.x[i : i + 1], settings).log_prob_nats[0] for i in range(6)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    noise = [ItemNoise("", 0, item) for item in golden.x[:6]]
    chains = AnnealedChains(settings, model, torch.from_numpy(golden.x[:6]), noise, 512)
    assert max(len(ladder.betas) for ladder in chains.ladders) < 50


def test_one_chain_is_defined(golden: Any) -> None:
    e = score(golden.model, golden.x[:3], Annealed(1))
    assert np.isfinite(e.log_prob_nats).all() and np.isnan(e.standard_error_nats).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "middle"},
        {"entropy_share": 1.0},
        {"target_acceptance": 0.0},
        {"pilot_chains": 1},
        {"leapfrog_steps": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="annealed"):
        Annealed(**wrong)
