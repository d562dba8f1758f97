"""Values drawn from reshaped distributions: the distribution is the likelihood's, its entropy what was asked for."""

import pytest
import torch

from vaedensity.density.entropy import scale_entropy
from vaedensity.model.likelihood import PixelLikelihood, Reshaped, likelihood_for

KINDS = [(2, 1), (17, 1), (17, 3), (256, 1), (-17, 1)]  # below 0: categories


def setting(levels: int, channels: int, pixels: int) -> tuple[PixelLikelihood, torch.Tensor]:
    """A likelihood and the same random parameters (1,P,C,1,pixels) at every pixel."""
    kind = "mixture" if levels > 0 else "categorical"
    likelihood, g = likelihood_for(abs(levels), 3, channels, kind=kind), torch.Generator().manual_seed(1)
    count = sum(len(starts) for _, starts in likelihood.outputs())
    parameters = torch.randn(1, count, channels, 1, 1, generator=g).expand(-1, -1, -1, -1, pixels)
    return likelihood, parameters


@pytest.mark.parametrize(("levels", "channels"), KINDS)
def test_masses_are_the_likelihoods(levels: int, channels: int) -> None:
    likelihood, parameters = setting(levels, channels, 4)
    levels = abs(levels)
    x = torch.randint(0, levels, (1, channels, 1, 4), generator=torch.Generator().manual_seed(2))
    for c in range(channels):
        log_pmf = Reshaped(likelihood, lambda p: p).log_pmf(parameters, x.float(), c)
        assert log_pmf.shape == (1, 1, 4, levels)
        assert torch.allclose(log_pmf.exp().sum(-1), torch.ones(1, 1, 4), atol=1e-4)
        own = log_pmf.gather(-1, x[:, c, ..., None])[..., 0]
        assert torch.equal(own, likelihood.log_prob(parameters, x)[:, c])


@pytest.mark.parametrize(("levels", "channels"), KINDS)
@pytest.mark.parametrize("fraction", [0.4, 1.0, 1.2])
def test_draws_follow_the_reshaped_distribution(levels: int, channels: int, fraction: float) -> None:
    pixels = 6000
    likelihood, parameters = setting(levels, channels, pixels)
    levels = abs(levels)
    reshaped = Reshaped(likelihood, lambda log_p: scale_entropy(log_p, fraction))
    uniform = torch.rand(1, 2 * channels, 1, pixels, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = reshaped.sample(parameters, uniform)
    assert x.shape == (1, channels, 1, pixels) and x.dtype == torch.uint8 and int(x.max()) < levels
    log_p = reshaped.log_pmf(parameters[..., :1], torch.zeros(1, channels, 1, 1), 0)[0, 0, 0].double()
    q = scale_entropy(log_p, fraction).exp()
    seen = torch.bincount(x[0, 0, 0].long(), minlength=levels) / pixels
    assert float((seen - q).abs().max()) < 5 * float((q * (1 - q) / pixels).sqrt().max())
    own, now = (float(torch.special.entr(p).sum()) for p in (log_p.exp() / log_p.exp().sum(), q))
    most = torch.log(torch.tensor(float(levels)))
    assert now == pytest.approx(min(fraction * own, float(most)), abs=1e-6)


def test_no_entropy_leaves_the_likeliest() -> None:
    likelihood, parameters = setting(17, 1, 50)
    reshaped = Reshaped(likelihood, lambda log_p: scale_entropy(log_p, 0.0))
    x = reshaped.sample(parameters, torch.rand(1, 2, 1, 50, dtype=torch.float64))
    best = reshaped.log_pmf(parameters[..., :1], torch.zeros(1, 1, 1, 1), 0).argmax()
    assert (x == best).all()
