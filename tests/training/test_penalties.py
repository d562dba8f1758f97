"""Gradient penalties against closed forms, differences and the flows they are said to follow."""

import io
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vaedensity.errors import UsageError
from vaedensity.training.penalties import (
    GradientPenalty,
    TwoRateAlternation,
    alternation_weight,
    flood,
    implicit_penalty,
)

Objective = Callable[[Tensor], Tensor]
START = torch.tensor([0.9, -0.6], dtype=torch.float64)


def bowl(x: Tensor) -> Tensor:
    """Smooth, curved unequally and not quadratic."""
    return torch.cosh(x[0]) + 1.5 * x[1] ** 2 + 0.3 * x[0] ** 2 * x[1] + 0.2 * x[1] ** 4


def penalised(weight: float) -> Objective:
    penalty = GradientPenalty(weight)
    return lambda x: bowl(x) + penalty(bowl(x), x)


def gradient(objective: Objective, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(objective(x), x)[0]


def flow(objective: Objective, x: Tensor, time: float, steps: int = 40) -> Tensor:
    """d x / d t = -gradient, by the fallback Runge-Kutta method."""
    h = time / steps
    for _ in range(steps):
        a = -gradient(objective, x)
        b = -gradient(objective, x + h / 2 * a)
        c = -gradient(objective, x + h / 2 * b)
        d = -gradient(objective, x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


def descend(objective: Objective, x: Tensor, rate: float, steps: int) -> Tensor:
    for _ in range(steps):
        x = x - rate * gradient(objective, x)
    return x


def order(errors: list[float]) -> float:
    """The power of the rate that the error follows, from the last two of a series of halved rates."""
    return math.log2(errors[-2] / errors[-1])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm())


RATES = [0.1, 0.05, 0.025, 0.0125]


def test_on_a_parabola_the_penalty_is_the_first_term_of_the_exact_rate() -> None:
    curvature, x = 1.7, torch.tensor(0.8, dtype=torch.float64)

    def parabola(x: Tensor) -> Tensor:
        return curvature / 2 * x**2

    def decay(weight: float) -> float:
        """Of x along the flow of the penalised parabola."""
        return float(gradient(lambda x: parabola(x) + GradientPenalty(weight)(parabola(x), x), x) / x)

    exact = [-math.log(1 - r * curvature) / r for r in RATES]  # = curvature + r/2 curvature^2 + r^2/3 curvature^3 + ...
    off = [e - decay(r / 4) for e, r in zip(exact, RATES)]
    assert order(off) == pytest.approx(2, abs=0.05)
    assert off[-1] == pytest.approx(RATES[-1] ** 2 * curvature**3 / 3, rel=0.05)
    assert order([e - decay(0) for e in exact]) == pytest.approx(1, abs=0.05)


def test_descent_follows_the_penalised_flow_to_second_order() -> None:
    with_penalty = [distance(descend(bowl, START, r, round(1 / r)), flow(penalised(r / 4), START, 1)) for r in RATES]
    without = [distance(descend(bowl, START, r, round(1 / r)), flow(bowl, START, 1)) for r in RATES]
    assert order(with_penalty) == pytest.approx(2, abs=0.15)
    assert order(without) == pytest.approx(1, abs=0.15)


def test_the_penalty_taken_away_gives_the_bare_flow_to_second_order() -> None:
    bare = [distance(descend(penalised(-r / 4), START, r, round(1 / r)), flow(bowl, START, 1)) for r in RATES]
    assert order(bare) == pytest.approx(2, abs=0.15)


def test_double_backward_equals_the_analytic_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, dtype=torch.float64, generator=generator) for n in (4, 3))
    a, b = a + a.T, b + b.T
    x, y = (torch.randn(n, dtype=torch.float64, generator=generator) for n in (4, 3))
    # The gradient of x'Ax/2 is Ax, and that of its squared norm 2AAx.
    u, v = x.clone().requires_grad_(), y.clone().requires_grad_()
    penalty = GradientPenalty(0.3)(u @ a @ u / 2 + v @ b @ v / 2, [u, v])
    torch.testing.assert_close(penalty.detach(), 0.3 * ((a @ x).square().sum() + (b @ y).square().sum()))
    penalty.backward()
    torch.testing.assert_close(u.grad, 0.6 * a @ a @ x)
    torch.testing.assert_close(v.grad, 0.6 * b @ b @ y)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def test_on_inputs_equals_finite_differences() -> None:
    model, x, h = network(), torch.randn(4, 3, dtype=torch.float64), 1e-5

    def losses(x: Tensor) -> Tensor:
        return torch.square(model(x)[:, 0])

    differences = torch.stack([(losses(x + h * e) - losses(x - h * e)) / (2 * h) for e in torch.eye(3).double()])
    expected = 0.7 * differences.detach().square().sum(0).mean()

    def penalty() -> Tensor:
        inputs = x.clone().requires_grad_()
        return GradientPenalty(0.7, on="inputs")(losses(inputs), inputs)

    torch.testing.assert_close(penalty().detach(), expected, rtol=1e-7, atol=0)
    penalty().backward()  # and how the penalty depends on the weights
    weight = model[0].weight
    assert isinstance(weight, Tensor) and weight.grad is not None
    for i, j in ((0, 0), (4, 2)):
        with torch.no_grad():
            weight[i, j] += h
        above = penalty().item()
        with torch.no_grad():
            weight[i, j] -= 2 * h
        below = penalty().item()
        with torch.no_grad():
            weight[i, j] += h
        assert weight.grad[i, j].item() == pytest.approx((above - below) / (2 * h), rel=1e-5)


def test_on_inputs_does_not_depend_on_the_batch() -> None:
    model, x = network(), torch.randn(6, 3, dtype=torch.float64)

    def penalty(x: Tensor) -> float:
        x = x.clone().requires_grad_()
        return GradientPenalty(1.0, on="inputs")(model(x)[:, 0], x).item()

    assert penalty(x) == pytest.approx(sum(penalty(item[None]) for item in x) / 6)


def test_what_cannot_be_differentiated_is_rejected() -> None:
    x, other = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    with pytest.raises(UsageError, match="requires_grad_"):
        GradientPenalty(1.0)(x.sum(), [torch.ones(2)])
    with pytest.raises(UsageError, match="none of the tensors"):
        GradientPenalty(1.0)(x.sum(), [other])
    with pytest.raises(UsageError, match="expected a scalar"):
        GradientPenalty(1.0)(x.square(), [x])
    with pytest.raises(UsageError, match="one value an item"):
        GradientPenalty(1.0, on="inputs")(x.square().mean(), [x])
    with pytest.raises(UsageError, match="finite"):
        GradientPenalty(math.nan)
    with pytest.raises(UsageError, match="'weights'"):
        GradientPenalty(1.0, on="weights")  # type: ignore[arg-type]
    assert GradientPenalty(1.0)((x**2).sum(), [x, other]).item() == 12.0  # one of them is enough


def test_implicit_penalty_is_the_penalty_of_the_rate() -> None:
    model, x, rate = network(), torch.randn(8, 3, dtype=torch.float64), 0.05
    parameters = list(model.parameters())
    loss = model(x).square().mean()
    expected = GradientPenalty(rate / 4)(loss, parameters).item()
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
    with pytest.raises(UsageError, match="no gradients"):
        implicit_penalty(parameters, rate)
    loss.backward()
    assert implicit_penalty(parameters, rate) == pytest.approx(expected, rel=1e-12)
    assert implicit_penalty(gradients, rate) == pytest.approx(expected, rel=1e-12)
    assert implicit_penalty([*parameters, nn.Parameter(torch.ones(2))], rate) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UsageError, match="rate is -1"):
        implicit_penalty(parameters, -1)


def test_flooding_descends_above_the_level_and_ascends_below() -> None:
    x = START.clone()
    value = bowl(x).item()
    plain = gradient(bowl, x)
    assert torch.equal(gradient(lambda x: flood(bowl(x), value - 0.1), x), plain)
    assert torch.equal(gradient(lambda x: flood(bowl(x), value + 0.1), x), -plain)
    assert flood(bowl(x), value + 0.1).item() == pytest.approx(value + 0.2)
    for start in (START, START / 100):  # from either side of the level, and not on to the minimum at 1
        end = descend(lambda x: flood(bowl(x), 1.3), start, 0.01, 500)
        assert bowl(end).item() == pytest.approx(1.3, abs=0.05)


def test_a_pair_of_flooded_steps_descends_the_gradients_norm() -> None:
    level, off = bowl(START).item() - 1e-9, []
    for rate in RATES:
        end = descend(lambda x: flood(bowl(x), level), START, rate, 2)
        off.append(distance(end, START - rate**2 / 2 * gradient(lambda x: GradientPenalty(1.0)(bowl(x), x), START)))
    assert order(off) == pytest.approx(3, abs=0.2)
    assert off[-1] < 0.1 * RATES[-1] ** 2 / 2 * float(gradient(penalised(1.0), START).norm())


def rounds(start: Tensor, lr: float, ratio: float, count: int) -> Tensor:
    x = start.clone().requires_grad_()
    optimizer = TwoRateAlternation([x], lr, ratio)
    for _ in range(2 * count):
        optimizer.zero_grad()
        bowl(x).backward()
        optimizer.step()
    return x.detach()


@pytest.mark.parametrize("ratio", [0.2, 0.7])
def test_a_round_is_a_step_on_the_penalised_loss(ratio: float) -> None:
    off, bare = [], []
    for lr in RATES:
        net, weight = lr * (1 - ratio), alternation_weight(lr, ratio * lr)
        off.append(distance(rounds(START, lr, ratio, 1), descend(penalised(weight), START, net, 1)))
        bare.append(distance(rounds(START, lr, ratio, 1), descend(bowl, START, net, 1)))
    assert order(off) == pytest.approx(3, abs=0.2)
    assert order(bare) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("ratio", [0.2, 0.7])
def test_rounds_follow_the_flow_of_the_penalty_derived(ratio: float) -> None:
    off, step_only = [], []
    for count in (160, 320):
        net, lr = 1 / count, 1 / count / (1 - ratio)
        weight = alternation_weight(lr, ratio * lr)
        assert weight + net / 4 == pytest.approx((lr**2 + (ratio * lr) ** 2) / (4 * net))
        end = rounds(START, lr, ratio, count)
        off.append(distance(end, flow(penalised(weight + net / 4), START, 1)))
        step_only.append(distance(end, flow(penalised(weight), START, 1)))
    assert order(off) == pytest.approx(2, abs=0.2)
    assert order(step_only) == pytest.approx(1, abs=0.1)  # without the step's own share the flow is another


def test_the_alternation_is_stable_as_far_as_derived() -> None:
    lr, ratio = 0.5, 0.6
    net, product = lr * (1 - ratio), ratio * lr**2
    limit = (math.sqrt(net**2 + 8 * product) - net) / (2 * product)  # net c + product c^2 = 2
    for curvature, stable in ((0.5 * limit, True), (0.99 * limit, True), (1.01 * limit, False)):
        x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        optimizer = TwoRateAlternation([x], lr, ratio)
        for _ in range(800):
            x.grad = curvature * x.detach()
            optimizer.step()
        assert (abs(x.item()) < 1e-3) is stable
        assert (abs(x.item()) > 1e3) is not stable


def test_the_turn_is_saved_and_kept_per_parameter() -> None:
    def one(x: Tensor, optimizer: TwoRateAlternation) -> None:
        optimizer.zero_grad()
        bowl(x).backward()
        assert optimizer.step() is None

    whole, x = (START.clone().requires_grad_() for _ in range(2))
    a, b = TwoRateAlternation([whole], 0.1), TwoRateAlternation([x], 0.1)
    for _ in range(4):
        one(whole, a)
    for _ in range(3):
        one(x, b)
    saved = io.BytesIO()
    torch.save(b.state_dict(), saved)
    saved.seek(0)
    c = TwoRateAlternation([x], 0.3)
    c.load_state_dict(torch.load(saved, weights_only=True))
    one(x, c)
    assert torch.equal(x, whole)

    late = torch.ones(1, requires_grad=True)
    c.add_param_group({"params": [late]})
    late.grad = torch.ones(1)
    c.step()
    assert late.item() == pytest.approx(1 - 0.3)  # its first step descends


def test_a_closure_and_bad_rates() -> None:
    x = torch.tensor(1.0, requires_grad=True)
    optimizer = TwoRateAlternation([x], 0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = x**2 / 2
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 0.5 and x.item() == 0.5
    for lr, ratio in ((0.0, 0.5), (0.1, 1.0), (0.1, 0.0), (math.inf, 0.5)):
        with pytest.raises(UsageError, match="0 < ratio < 1"):
            TwoRateAlternation([x], lr, ratio)
    with pytest.raises(UsageError, match="0 < ascent < descent"):
        alternation_weight(0.1, 0.1)
