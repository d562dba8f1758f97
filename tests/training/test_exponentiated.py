"""Exponentiated gradient: its invariants whatever the gradient, and the optima it must find."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from vaedensity.errors import UsageError
from vaedensity.training.exponentiated import ExponentiatedGradient

LIGHT = settings(max_examples=80, deadline=None, derandomize=True, database=None)
SHAPE = (3, 4)
RATES = st.sampled_from([1e-3, 0.1, 1.0, 100.0])
ANY_FLOAT32 = arrays.arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
NOT_NEGATIVE = arrays.arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 1e-30, 0.1, 1.0, 7.0, 1e30]))


def step(p: Tensor, g: Any, lr: float, **options: Any) -> Tensor:
    p = p.clone().requires_grad_()
    p.grad = torch.as_tensor(g, dtype=p.dtype)
    ExponentiatedGradient([p], lr, **options).step()
    return p.detach()


@LIGHT
@given(NOT_NEGATIVE, ANY_FLOAT32, RATES)
def test_what_is_not_negative_stays_so_and_zeros_stay_zero(theta: np.ndarray, g: np.ndarray, lr: float) -> None:
    new = step(torch.from_numpy(theta), g, lr)
    assert bool((new >= 0).all() and new.isfinite().all())
    assert bool((new[torch.from_numpy(theta) == 0] == 0).all())


@LIGHT
@given(NOT_NEGATIVE, ANY_FLOAT32, RATES, st.sampled_from([0, 1, -1]))
def test_the_simplex_is_never_left(weights: np.ndarray, g: np.ndarray, lr: float, dim: int) -> None:
    p = torch.from_numpy(weights.astype(np.float64) + (weights.sum(axis=dim, keepdims=True) == 0))
    p = (p / p.sum(dim, keepdim=True)).float()
    new = step(p, g, lr, simplex=True, dim=dim)
    assert bool((new >= 0).all())
    torch.testing.assert_close(new.sum(dim), torch.ones_like(new.sum(dim)), rtol=0, atol=1e-6)
    assert bool((new[p == 0] == 0).all())


@LIGHT
@given(arrays.arrays(np.float64, SHAPE, elements=st.floats(-50, 50)), st.sampled_from([1e-3, 0.1, 1.0]))
def test_equals_the_formulae(g: np.ndarray, lr: float) -> None:
    theta = np.random.default_rng(0).uniform(0.1, 2, SHAPE)
    product = theta * np.exp(-lr * g)
    np.testing.assert_allclose(step(torch.tensor(theta), g, lr).numpy(), product, rtol=1e-12)
    p = theta / theta.sum(0)
    product = p * np.exp(-lr * g)
    new = step(torch.tensor(p), g, lr, simplex=True, dim=0).numpy()
    np.testing.assert_allclose(new, product / product.sum(0), rtol=1e-9)


def test_a_large_step_goes_to_the_best_corner() -> None:
    new = step(torch.full((2, 3), 1 / 3), [[3e38, -3e38, 0.0], [1.0, 1.0, 2e30]], 1e3, simplex=True)
    torch.testing.assert_close(new, torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]))
    lone = step(torch.tensor([0.0, 1.0]), [-3e38, 3e38], 1e3, simplex=True)  # what is zero has no say in the shift
    assert lone.tolist() == [0.0, 1.0]


def descend(p: Tensor, loss: Any, steps: int, lr: float, **options: Any) -> np.ndarray:
    p = p.clone().requires_grad_()
    optimizer = ExponentiatedGradient([p], lr, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(p).backward()
        optimizer.step()
    return p.detach().numpy()


def test_cross_entropy_has_its_optimum_at_the_target() -> None:
    target = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]], dtype=torch.float64)
    start = torch.full_like(target, 1 / 3)
    found = descend(start, lambda p: -(target * p.log()).sum(), 200, 0.3, simplex=True)
    np.testing.assert_allclose(found, target.numpy(), atol=1e-8)


def test_mixture_weights_agree_with_expectation_maximisation() -> None:
    rng = np.random.default_rng(4)
    x = rng.choice([-3.0, 0.0, 2.0], 400, p=[0.6, 0.3, 0.1]) + rng.normal(size=400)
    densities = np.exp(-((x[:, None] - np.array([-3.0, 0.0, 2.0])) ** 2) / 2)
    weights = np.full(3, 1 / 3)
    for _ in range(2000):  # Dempster et al. 1977: the mean responsibility
        shares = densities * weights
        weights = (shares / shares.sum(1, keepdims=True)).mean(0)
    fixed = torch.tensor(densities)
    start = torch.full((3,), 1 / 3, dtype=torch.float64)
    found = descend(start, lambda p: -(fixed @ p).log().mean(), 2000, 0.5, simplex=True)
    np.testing.assert_allclose(found, weights, atol=1e-8)
    assert np.ptp(weights) > 0.4


def test_a_non_negative_least_squares_problem() -> None:
    target = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)  # the third is best at the border
    found = descend(torch.ones(3, dtype=torch.float64), lambda p: (p - target).square().sum() / 2, 300, 0.3)
    np.testing.assert_allclose(found, [2.0, 0.5, 0.0], atol=1e-8)


def test_begins_only_where_it_can_stay() -> None:
    def refused(values: Any, match: str, **options: Any) -> None:
        p = torch.as_tensor(values).requires_grad_()
        optimizer = ExponentiatedGradient([torch.ones(1, requires_grad=True)], 0.1)
        with pytest.raises(UsageError, match=match):
            ExponentiatedGradient([p], 0.1, **options)
        with pytest.raises(UsageError, match=match):
            optimizer.add_param_group({"params": [p]} | options)
        assert len(optimizer.param_groups) == 1

    refused([0.5, -1e-9], "negative")
    refused([0.5, math.nan], "non-finite")
    refused([0.5, math.inf], "non-finite")
    refused([0.5, 0.4], "misses the simplex by 0.1", simplex=True)
    refused([[0.5, 0.5], [0.6, 0.3]], "divide it by its sum", simplex=True)
    refused([[0.5, 0.5], [0.5, 0.5]], "dim is 2", simplex=True, dim=2)
    for rate in (-1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="lr is"):
            ExponentiatedGradient([torch.ones(1, requires_grad=True)], rate)
    rows = torch.rand(5, 1000).softmax(-1).requires_grad_()  # rounding is no reason to refuse
    ExponentiatedGradient([rows], 0.1, simplex=True)


def test_groups_closure_and_sparse_gradients() -> None:
    p, theta = torch.tensor([0.5, 0.5], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = ExponentiatedGradient([{"params": [p], "simplex": True}, {"params": [theta], "lr": 0.0}], math.log(3))

    def closure() -> float:
        optimizer.zero_grad()
        loss = p[1] + theta.sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3.5
    assert p.tolist() == pytest.approx([0.75, 0.25]) and theta.tolist() == [1, 2]
    p.grad = theta.grad = None
    optimizer.step()
    assert p.tolist() == pytest.approx([0.75, 0.25])
    table = nn.Embedding(4, 2, sparse=True)
    table.weight.data.abs_()
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse=False"):
        ExponentiatedGradient(table.parameters(), 0.1).step()
