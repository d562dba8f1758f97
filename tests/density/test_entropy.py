"""Powers of a distribution with a given entropy."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torch import Tensor

from vaedensity.density.entropy import exponent_for_entropy, normalise_entropy, power_entropy
from vaedensity.errors import UsageError

INF = math.inf


def entropy_of(log_q: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(log_q.double().exp()).sum(-1)
    return entropy


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_reaches_the_entropy_or_the_end() -> None:
    g = torch.Generator().manual_seed(0)
    scale = torch.logspace(-6, 6, 200, dtype=torch.float64)[:, None]
    logs = torch.randn(200, 16, generator=g, dtype=torch.float64) * scale - 700
    wanted = torch.log(torch.full((200,), 0.9 * 16, dtype=torch.float64))
    highest = torch.ones(200, dtype=torch.float64)
    found = exponent_for_entropy(logs, wanted, highest)
    reached = power_entropy(logs, found)
    inside = power_entropy(logs, highest) < wanted
    assert inside.any() and not inside.all()
    torch.testing.assert_close(reached[inside], wanted[inside], atol=1e-6, rtol=0)
    assert (found[~inside] == 1).all() and (found >= 0).all()


def test_ties_and_infinities() -> None:
    logs = torch.tensor([[0.0, 0, 0, 0], [0, 0, -1e30, -1e30]], dtype=torch.float64)
    wanted = torch.log(torch.tensor([3.9, 3.0], dtype=torch.float64))
    found = exponent_for_entropy(logs, wanted, torch.ones(2, dtype=torch.float64))
    assert found[0] == 1  # all equal: nothing is ever lost
    assert 0 <= found[1] < 1e-17


@pytest.mark.parametrize("n", [2, 3, 16, 300])
@pytest.mark.parametrize("spread", [0.0, 20.0])  # decades between the entries of one row
def test_entropy_is_met_at_every_scale(n: int, spread: float) -> None:
    g = torch.Generator().manual_seed(n)
    rows = 2000 if n < 100 else 200

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    log_p = normal(rows, n) * 10 ** (spread * normal(rows, n) + 400 * uniform(rows, 1) - 200)
    log_p = log_p.clamp(-1e300, 1e300).masked_fill(uniform(rows, n) < 0.1, -INF)
    log_p[:, 0] = log_p[:, 1:].amax(1).clamp(min=-1e300) * (1 - 1e-9)  # all but a tie, and never a row of zeros
    gaps = log_p.amax(1, keepdim=True) - log_p
    lowest, highest = ((gaps == 0).sum(1).double().log(), (gaps < INF).sum(1).double().log())
    wanted = lowest + (highest - lowest) * uniform(rows)
    log_q = normalise_entropy(log_p, wanted)
    assert not log_q.isnan().any()
    torch.testing.assert_close(entropy_of(log_q), wanted, atol=1e-10, rtol=0)
    order = log_p.argsort(1)
    assert (log_q.gather(1, order).diff(dim=1).nan_to_num(0.0) >= 0).all()
    assert (log_q[gaps == INF] == -INF).all()


entries = st.one_of(st.floats(-1e300, 1e300), st.floats(-3, 0), st.sampled_from([0.0, -1.0, -1e-300, -INF]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 6).flatmap(lambda n: arrays(float, (20, n), elements=entries)), st.floats(0, 1))
def test_any_row_has_the_power_or_its_limit(values: object, share: float) -> None:
    log_p = torch.as_tensor(values)
    log_p[:, 0] = log_p[:, 0].clamp(min=-1e300)
    gaps = log_p.amax(1, keepdim=True) - log_p
    lowest, highest = ((gaps == 0).sum(1).double().log(), (gaps < INF).sum(1).double().log())
    log_p.requires_grad_()
    wanted = (lowest + (highest - lowest) * share).requires_grad_()
    log_q = normalise_entropy(log_p, wanted)
    torch.testing.assert_close(entropy_of(log_q), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(log_q.exp().sum(1), torch.ones(20, dtype=torch.float64))
    order = log_p.argsort(1)
    assert (log_q.gather(1, order).diff(dim=1).nan_to_num(0.0) >= 0).all()
    torch.autograd.backward(log_q.exp().sum())
    assert log_p.grad is not None and wanted.grad is not None
    assert not log_p.grad.isnan().any() and not wanted.grad.isnan().any()


def test_limits() -> None:
    log_p = double(0, 0, -1, -2, -INF).expand(4, 5).clone().requires_grad_()
    wanted = double(-1, math.log(2), math.log(4), 9).requires_grad_()
    log_q = normalise_entropy(log_p, wanted)
    ties = double(0.5, 0.5, 0, 0, 0)
    support = double(0.25, 0.25, 0.25, 0.25, 0)
    torch.testing.assert_close(log_q.exp(), torch.stack([ties, ties, support, support]))
    torch.autograd.backward(log_q.exp().square().sum())
    assert log_p.grad is not None and wanted.grad is not None
    assert (log_p.grad == 0).all() and (wanted.grad == 0).all()
    assert normalise_entropy(double(-3), 0.0).tolist() == [0.0]


def test_gradients_are_exact() -> None:
    g = torch.Generator().manual_seed(1)
    log_p = torch.randn(2, 3, 6, generator=g, dtype=torch.float64) * double(0.1, 1, 10)[:, None]
    log_p[0, 1, 2:4] = log_p[0, 1].max() + 1  # two share the maximum
    log_p[1, 2, 5] = -INF
    wanted = double(0.8, 1.0, 1.5)
    alive = log_p > -INF

    def probabilities(values: Tensor, wanted: Tensor) -> Tensor:
        return normalise_entropy(values.where(alive, -INF), wanted).exp()

    # gradcheck moves the tie apart by 1e-6, to either side: the power is smooth there, its limit far away
    inputs = (log_p.where(alive, 0.0).requires_grad_(), wanted.requires_grad_())
    assert torch.autograd.gradcheck(probabilities, inputs, atol=1e-6, rtol=1e-5)

    log_p.requires_grad_()
    log_q = normalise_entropy(log_p, wanted)
    loss = (log_q.where(alive, 0.0) * torch.arange(6.0)).sum()
    gradient, slope = torch.autograd.grad(loss, (log_p, wanted))
    assert (gradient[~alive] == 0).all() and gradient.isfinite().all() and slope.isfinite().all()

    def at(step: Tensor) -> Tensor:
        moved = normalise_entropy(log_p.detach(), wanted.detach() + step)
        return (moved.where(alive, 0.0) * torch.arange(6.0)).sum()

    numerical = torch.stack([(at(1e-5 * e) - at(-1e-5 * e)) / 2e-5 for e in torch.eye(3, dtype=torch.float64)])
    torch.testing.assert_close(slope, numerical, atol=1e-5, rtol=1e-6)


def test_single_precision_and_shapes() -> None:
    log_p = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(2))
    log_q = normalise_entropy(log_p, 1.0)
    assert log_q.dtype == torch.float32 and log_q.shape == log_p.shape
    torch.testing.assert_close(entropy_of(log_q), torch.ones(4, 5, dtype=torch.float64), atol=1e-6, rtol=0)
    each = normalise_entropy(log_p, torch.linspace(0.1, 1.9, 5))
    torch.testing.assert_close(entropy_of(each)[3].float(), torch.linspace(0.1, 1.9, 5), atol=1e-6, rtol=0)
    assert normalise_entropy(torch.zeros(0, 3), 1.0).shape == (0, 3)
    untouched = torch.log_softmax(log_p.double(), -1)
    torch.testing.assert_close(normalise_entropy(log_p.double(), entropy_of(untouched)), untouched)


@pytest.mark.parametrize("bad", [double(0, math.nan), double(0, INF), double(-INF, -INF), double(), torch.arange(3)])
def test_refuses(bad: Tensor) -> None:
    with pytest.raises(UsageError, match="expected"):
        normalise_entropy(bad, 0.5)
    with pytest.raises(UsageError, match="NaN"):
        normalise_entropy(double(0, -1), math.nan)


def newton_as_published(p: Tensor, entropy: Tensor, steps: int) -> Tensor:
    """The source's iteration on probabilities (B,n), with 0 log 0 = 0."""
    for _ in range(steps):
        log_p = p.where(p > 0, 1.0).log()
        reached = -(p * log_p).sum(1)
        gamma = 1 + (entropy - reached) / (reached.square() - (p * log_p.square()).sum(1))
        p = p ** gamma[:, None]
        p = p / p.sum(1, keepdim=True)
    return p


def test_newton_by_itself_fails_where_the_bracket_does_not() -> None:
    failures = {}
    for spread in (1, 3, 10):
        g = torch.Generator().manual_seed(spread)
        log_p = torch.log_softmax(spread * torch.randn(2000, 10, generator=g, dtype=torch.float64), 1)
        wanted = math.log(10) * torch.rand(2000, generator=g, dtype=torch.float64)
        newton = entropy_of(newton_as_published(log_p.exp(), wanted, 100).log())
        failures[spread] = int((~((newton - wanted).abs() < 1e-6)).sum())
        torch.testing.assert_close(entropy_of(normalise_entropy(log_p, wanted)), wanted, atol=1e-10, rtol=0)
    assert 0 < failures[1] < 20 and 100 < failures[3] < 200 and failures[10] > 1000  # 7, 134 and 1318 of 2000
