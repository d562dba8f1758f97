"""Gaussian terms against torch.distributions."""

import torch
from torch.distributions import Normal, kl_divergence

from vaedensity.model.latent_model import Gaussian


def pair() -> tuple[Gaussian, Normal]:
    mean, log2_scale = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)
    return Gaussian(mean, log2_scale), Normal(mean, torch.exp2(log2_scale))


def test_log_prob_kl_and_sample() -> None:
    torch.manual_seed(0)
    (q, q_ref), (p, p_ref) = pair(), pair()
    z = torch.randn(4, 2, 3, 3)
    assert torch.allclose(q.log_prob(z), q_ref.log_prob(z).flatten(1).sum(1), rtol=1e-5)
    assert torch.allclose(q.kl_from(p), kl_divergence(q_ref, p_ref).flatten(1).sum(1), rtol=1e-4)
    assert torch.equal(q.sample(torch.zeros_like(z)), q.mean)
