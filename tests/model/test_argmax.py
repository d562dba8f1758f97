"""Which of n noisy numbers is the largest: one contract for every noise, and each one's closed forms."""

from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
import torch
from torch import Tensor

from vaedensity.errors import UsageError
from vaedensity.model.argmax import ArgmaxNoise, Exponential, Gumbel, Normal, Uniform, floored

NOISES = [Gumbel(), Exponential(), Normal(), Uniform()]
every_noise = pytest.mark.parametrize("noise", NOISES, ids=lambda n: type(n).__name__)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@every_noise
@every_dtype
def test_contract(noise: ArgmaxNoise, dtype: torch.dtype) -> None:
    mu = normals(4, 5, 9, dtype=dtype) * torch.tensor([0.1, 0.3, 1.0, 3.0], dtype=dtype)[:, None, None]
    mu[..., 4] = mu[..., 2]
    log_p = noise.log_probs(mu)
    close = 1e-5 if dtype == torch.float32 else 1e-12
    assert log_p.shape == mu.shape and log_p.dtype == dtype
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(4, 5, dtype=dtype), atol=close, rtol=0)
    torch.testing.assert_close(noise.log_probs(mu + 8).exp(), log_p.exp(), atol=close, rtol=0)
    torch.testing.assert_close(noise.log_probs(mu[2, 3]), log_p[2, 3], atol=close, rtol=close)
    assert (log_p[..., 4] == log_p[..., 2]).all()
    assert (log_p.exp().gather(-1, mu.argsort(-1)).diff(dim=-1) >= -close).all()
    safe = floored(log_p, 1e-3)
    assert (safe.exp() > 0.99e-3 / 9).all()
    torch.testing.assert_close(safe.exp().sum(-1), torch.ones(4, 5, dtype=dtype), atol=close, rtol=0)


@every_noise
@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_agrees_with_its_own_samples(noise: ArgmaxNoise, n: int) -> None:
    mu, draws = 0.4 * normals(n, seed=n), 200_000
    uniform = torch.rand(draws, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    index = noise.sample(mu, uniform)
    assert index.shape == (draws,) and index.dtype == torch.int64
    p, share = noise.log_probs(mu).exp(), torch.bincount(index, minlength=n) / draws
    error = (p * (1 - p) / draws).sqrt()
    assert ((share - p).abs() <= 4.5 * error + 1e-12).all()


@every_noise
@pytest.mark.parametrize("spread", [0.0, 0.2, 1.0, 4.0])  # 0: all tied
def test_gradients_are_exact(noise: ArgmaxNoise, spread: float) -> None:
    mu = (spread * normals(3, 7, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: noise.log_probs(m).exp(), (mu,), atol=1e-6)


@every_noise
@every_dtype
@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 30.0, 1e4, 1e30])
def test_gradients_stay_finite(noise: ArgmaxNoise, dtype: torch.dtype, gap: float) -> None:
    mu = torch.tensor([0, 0, -gap, -gap / 2], dtype=dtype, requires_grad=True)
    log_p = floored(noise.log_probs(mu), 1e-6)
    assert log_p.isfinite().all()
    torch.autograd.backward(log_p.sum())
    assert mu.grad is not None and mu.grad.isfinite().all()
    mu.grad = None
    log_p = noise.log_probs(mu)
    assert isinstance(noise, Uniform) or log_p.isfinite().all()
    torch.autograd.backward(log_p.where(log_p > -torch.inf, 0.0).sum())
    assert mu.grad is not None and mu.grad.isfinite().all()


def integral(factors: list[tuple[Fraction, Fraction]], end: Fraction, begin: Fraction = Fraction(0)) -> Fraction:
    """Of the product of (a + b s) from begin to end, in fractions."""
    polynomial = [Fraction(1)]
    for a, b in factors:
        longer = [*(a * c for c in polynomial), Fraction(0)]
        for power, c in enumerate(polynomial):
            longer[power + 1] += b * c
        polynomial = longer
    return sum((c * (end ** (k + 1) - begin ** (k + 1)) / (k + 1) for k, c in enumerate(polynomial)), Fraction(0))


@pytest.mark.parametrize("n", [2, 5, 12, 31])
def test_exponential_is_exact(n: int) -> None:
    mu = normals(n)
    w = [Fraction(float(v)) for v in (mu - mu.max()).exp()]
    exact = [w[i] * integral([(Fraction(1), -w[j]) for j in range(n) if j != i], Fraction(1)) for i in range(n)]
    log_exact = torch.tensor([float(p) for p in exact], dtype=torch.float64).log()
    torch.testing.assert_close(Exponential().log_probs(mu), log_exact, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("n", [2, 5, 12])
def test_uniform_is_exact(n: int) -> None:
    g = [Fraction(int(v), 64) for v in torch.randint(0, 80, (n,), generator=torch.Generator().manual_seed(n))]
    g[0] = Fraction(0)
    ends = sorted({Fraction(0), *(1 - v for v in g if v < 1)})

    def exact(i: int) -> Fraction:
        p = Fraction(0)
        for begin, end in pairwise(ends):
            if end <= 1 - g[i]:
                others = [g[j] for j in range(n) if j != i and begin + g[j] < 1]
                p += integral([(v, Fraction(1)) for v in others], end, begin)
        return p

    mu = -torch.tensor([float(v) for v in g], dtype=torch.float64)
    expected = torch.tensor([float(exact(i)) for i in range(n)], dtype=torch.float64)
    log_p = Uniform().log_probs(mu)
    torch.testing.assert_close(log_p.exp(), expected, atol=1e-15, rtol=1e-12)
    assert ((log_p == -torch.inf) == (expected == 0)).all()


def test_two_entries_in_closed_form() -> None:
    gap = torch.linspace(0, 50, 401, dtype=torch.float64)
    mu = torch.stack([torch.zeros_like(gap), -gap], -1)

    def second(noise: ArgmaxNoise) -> Tensor:
        return noise.log_probs(mu)[:, 1]

    torch.testing.assert_close(second(Gumbel()), torch.nn.functional.logsigmoid(-gap), atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(second(Exponential()), torch.log(0.5 * torch.exp(-gap)), atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(second(Normal()), torch.special.log_ndtr(-gap * 0.5**0.5), atol=1e-14, rtol=1e-13)
    torch.testing.assert_close(second(Uniform()).exp(), 0.5 * (1 - gap).clamp(min=0).square(), atol=1e-15, rtol=1e-13)


@every_noise
def test_two_hundred_and_fifty_six_entries(noise: ArgmaxNoise) -> None:
    n = 128 if isinstance(noise, Uniform) else 256
    even = noise.log_probs(torch.zeros(n, dtype=torch.float64))
    torch.testing.assert_close(even.exp() * n, torch.ones(n, dtype=torch.float64), atol=1e-12, rtol=0)
    mu = 0.3 * normals(n)
    log_p, single = noise.log_probs(mu), noise.log_probs(mu.float()).double()
    torch.testing.assert_close(single.exp(), log_p.exp(), atol=2e-7, rtol=0)
    if not isinstance(noise, Uniform):  # a small p is a power of 1 - gap there, and the difference is rounded
        torch.testing.assert_close(single, log_p, atol=3e-6, rtol=1e-6)


def test_large_sets_against_finer_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    mu = torch.stack([normals(256), 0.01 * normals(256, seed=1), torch.linspace(0, 40, 256, dtype=torch.float64)])
    normal = Normal().log_probs(mu)
    monkeypatch.setattr(Normal, "STEP", 1 / 64)
    torch.testing.assert_close(normal, Normal().log_probs(mu), atol=1e-12, rtol=1e-12)
    one = torch.ones(1, dtype=torch.float64)
    padded = torch.cat([mu, (mu.amax(1) - 700)[:, None] * one], 1)  # one more entry that never wins: other nodes
    assert ceil(257 / 2) != ceil(256 / 2)
    torch.testing.assert_close(Exponential().log_probs(mu), Exponential().log_probs(padded)[:, :-1], atol=1e-12, rtol=0)


@every_noise
def test_relaxed_samples(noise: ArgmaxNoise) -> None:
    mu = normals(4, 6).requires_grad_()
    uniform = torch.rand(500, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft = noise.relaxed(mu, uniform, 0.5)
    torch.testing.assert_close(soft.sum(-1), torch.ones(500, 4, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda m: noise.relaxed(m, uniform[:3], 0.5), (mu,))
    hard = torch.nn.functional.one_hot(noise.sample(mu, uniform), 6)
    cold = noise.relaxed(mu, uniform, 1e-9)
    assert ((cold - hard).abs() < 1e-6).double().mean() > 0.999
    for edge in (torch.zeros(4, 6), torch.ones(4, 6)):
        assert noise.relaxed(mu, edge, 1.0).isfinite().all()


def test_rejects() -> None:
    with pytest.raises(UsageError, match="expected float32 or float64"):
        Gumbel().log_probs(torch.arange(3))
    with pytest.raises(UsageError, match="temperature"):
        Gumbel().relaxed(torch.zeros(3), torch.rand(3), 0.0)
    with pytest.raises(UsageError, match="floor"):
        floored(torch.zeros(3), 0.0)
