"""EGDD against the update written in numpy, its closed forms, its two paths, and saved runs."""

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from vaedensity.errors import UsageError
from vaedensity.training.egdd import EGDD

Array = np.ndarray


class InNumpy:
    """Amid et al. 2022, one array, plainly."""

    def __init__(self, theta: Array, lr: float, momentum: float, signed: bool, weight_decay: float):
        self.theta, self.lr, self.mu, self.signed, self.weight_decay = theta.copy(), lr, momentum, signed, weight_decay
        self.scale, self.gain = 1.0, np.ones_like(theta)
        self.m, self.gbar, self.t = np.zeros_like(theta), np.zeros_like(theta), 0

    def step(self, g: Array) -> None:
        lengths = math.sqrt((g * g).sum()) * math.sqrt((self.m * self.m).sum())
        cosine = (g * self.m).sum() / lengths if lengths else 0.0
        self.scale = min(max(self.scale * math.exp(0.001 * cosine), 0.1), 10.0)
        if self.signed:
            agreement = np.sign(g) * np.sign(self.gbar)
        else:
            agreement = g * self.gbar / (1 - 0.9**self.t) if self.t else np.zeros_like(g)
        self.gain = np.clip(self.gain * np.exp(0.01 * agreement), 0.01, 100)
        self.m = self.mu * self.m + self.lr * self.gain * g
        self.gbar = 0.9 * self.gbar + 0.1 * g
        self.theta = self.theta - self.lr * self.weight_decay * self.theta - self.scale * self.m
        self.t += 1


def gradients(shapes: tuple[tuple[int, ...], ...], steps: int) -> list[list[Array]]:
    """Noisy with a constant part, one coordinate always zero, and the third step zero altogether."""
    rng = np.random.default_rng(5)
    rows = [[rng.normal(0.5, 1, s) * (t != 2) for s in shapes] for t in range(steps)]
    for row in rows:
        row[0].flat[0] = 0.0
    return rows


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("signed", [True, False])
def test_equals_numpy(signed: bool, foreach: bool) -> None:
    rng, shapes = np.random.default_rng(1), ((3, 2), (4,))
    starts = [rng.normal(size=s) for s in shapes]
    tensors = [torch.tensor(s, requires_grad=True) for s in starts]
    groups: list[dict[str, Any]] = [{"params": tensors[:1]}, {"params": tensors[1:], "lr": 0.3, "weight_decay": 0.2}]
    optimizer = EGDD(groups, lr=0.05, momentum=0.8, signed=signed, foreach=foreach)
    plain = [InNumpy(starts[0], 0.05, 0.8, signed, 0.0), InNumpy(starts[1], 0.3, 0.8, signed, 0.2)]
    for row in gradients(shapes, 12):
        for t, p, g in zip(tensors, plain, row):
            t.grad = torch.tensor(g)
            p.step(g)
        optimizer.step()
    for t, p in zip(tensors, plain):
        np.testing.assert_allclose(t.detach().numpy(), p.theta, rtol=1e-12)
        state = optimizer.state[t]
        np.testing.assert_allclose(state["gain"].numpy(), p.gain, rtol=1e-12)
        assert state["scale"].item() == pytest.approx(p.scale, rel=1e-12) and p.scale != 1.0


def run(x: Tensor, gs: list[float], **options: Any) -> EGDD:
    optimizer = EGDD([x], **options)
    for g in gs:
        x.grad = torch.full_like(x, g)
        optimizer.step()
    return optimizer


def test_agreement_raises_and_disagreement_lowers_as_in_the_closed_form() -> None:
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    state = run(x, [0.7] * 30, lr=0.1).state[x]  # from the second step on, cos and both signs are 1
    assert state["scale"].item() == pytest.approx(math.exp(0.001 * 29), rel=1e-12)
    assert state["gain"].tolist() == pytest.approx([math.exp(0.01 * 29)] * 3, rel=1e-12)
    y = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    state = run(y, [1.0, -1.0], lr=0.1).state[y]
    assert state["scale"].item() == pytest.approx(math.exp(-0.001), rel=1e-12)
    assert state["gain"].tolist() == pytest.approx([math.exp(-0.01)] * 3, rel=1e-12)


@pytest.mark.parametrize("foreach", [False, True])
def test_bounds_hold(foreach: bool) -> None:
    fast: dict[str, Any] = {"lr": 0.1, "momentum": 0.0, "scale_rate": 2.0, "gain_rate": 3.0, "foreach": foreach}
    x = torch.zeros(2, requires_grad=True)
    state = run(x, [1.0] * 6, **fast).state[x]
    assert state["scale"].item() == 10 and state["gain"].tolist() == [100, 100]
    y = torch.zeros(2, requires_grad=True)
    # With no memory in either average, every flip of the sign disagrees.
    state = run(y, [1.0, -1.0] * 3, average_decay=0.0, **fast).state[y]
    assert state["scale"].item() == pytest.approx(0.1) and state["gain"].tolist() == pytest.approx([0.01, 0.01])
    z = torch.zeros(2, requires_grad=True)
    state = run(z, [1e30, 1e30], lr=1e-30, signed=False, foreach=foreach).state[z]  # exp overflows, the bound does not
    assert state["gain"].tolist() == [100, 100]


def network() -> nn.Sequential:
    torch.manual_seed(2)
    convolution = nn.Conv2d(1, 3, 3).to(memory_format=torch.channels_last)
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))


def train(model: nn.Module, optimizer: EGDD, start: int, end: int) -> None:
    for step in range(start, end):
        x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x.mean((1, 2, 3))[:, None]).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("signed", [True, False])
def test_both_paths_agree_to_the_bit_on_the_cpu(signed: bool) -> None:
    models = network(), network()
    for model, foreach in zip(models, (False, True)):
        train(model, EGDD(model.parameters(), 0.05, weight_decay=0.01, signed=signed, foreach=foreach), 0, 15)
    for p, q in zip(*(m.parameters() for m in models)):
        assert torch.equal(p, q)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("foreach", [False, True, None])
def test_a_gpu_gives_what_the_cpu_gives(foreach: bool | None) -> None:
    shapes = ((3, 2), (400,))
    devices: list[list[Tensor]] = [
        [torch.ones(s, device=d, requires_grad=True) for s in shapes] for d in ("cpu", "cuda")
    ]
    optimizers = [EGDD(tensors, 0.05, foreach=f) for tensors, f in zip(devices, (False, foreach))]
    for row in gradients(shapes, 10):
        for tensors, optimizer in zip(devices, optimizers):
            for t, g in zip(tensors, row):
                t.grad = torch.tensor(g, dtype=t.dtype, device=t.device)
            optimizer.step()
    for a, b in zip(*devices):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("foreach", [False, True])
def test_resumes_to_the_bit(foreach: bool, signed: bool) -> None:
    whole = network()
    train(whole, EGDD(whole.parameters(), 0.05, foreach=foreach, signed=signed), 0, 12)
    part = network()
    optimizer = EGDD(part.parameters(), 0.05, foreach=foreach, signed=signed)
    train(part, optimizer, 0, 5)
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    again = EGDD(part.parameters(), 7.0)  # its own options give way to the saved ones
    again.load_state_dict(torch.load(saved, weights_only=True))
    train(part, again, 5, 12)
    for p, q in zip(whole.parameters(), part.parameters()):
        assert torch.equal(p, q)


def test_resumes_from_tensors_alone() -> None:
    """The whole state is tensors, as a file without pickle needs."""
    whole, part = network(), network()
    train(whole, EGDD(whole.parameters(), 0.05, signed=False), 0, 12)
    optimizer = EGDD(part.parameters(), 0.05, signed=False)
    train(part, optimizer, 0, 5)
    flat = {f"{i}/{k}": t for i, p in enumerate(part.parameters()) for k, t in optimizer.state[p].items()}
    loaded = load(save({k: t.contiguous() for k, t in flat.items()}))
    again = EGDD(part.parameters(), 0.05, signed=False)
    for i, p in enumerate(part.parameters()):
        again.state[p] = {k.split("/")[1]: t for k, t in loaded.items() if k.startswith(f"{i}/")}
    train(part, again, 5, 12)
    for p, q in zip(whole.parameters(), part.parameters()):
        torch.testing.assert_close(p, q)


def test_a_zero_gradient_moves_by_momentum_only() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = run(x, [0.0], lr=0.1, momentum=0.5)
    assert x.tolist() == [0, 0] and optimizer.state[x]["scale"].item() == 1
    for g in (1.0, 0.0):
        x.grad = torch.full_like(x, g)
        optimizer.step()
    assert optimizer.state[x]["scale"].item() == 1 and optimizer.state[x]["gain"].tolist() == [1, 1]
    assert x.tolist() == pytest.approx([-0.15, -0.15])


def test_weight_decay_is_decoupled() -> None:
    x = torch.full((2,), 3.0, dtype=torch.float64, requires_grad=True)
    optimizer = run(x, [0.0, 0.0], lr=0.1, weight_decay=0.5)
    assert x.tolist() == pytest.approx([3 * 0.95**2] * 2)
    assert optimizer.state[x]["momentum"].tolist() == [0, 0] and optimizer.state[x]["average"].tolist() == [0, 0]


def test_what_has_no_gradient_stays() -> None:
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    for foreach in (False, True):
        optimizer = EGDD([x, y], lr=0.1, foreach=foreach)
        x.grad, y.grad = torch.ones(2), None
        optimizer.step()
        assert y.tolist() == [1, 1] and y not in optimizer.state
        moved = x.tolist()
        assert moved != [1, 1]
        x.grad = None
        optimizer.step()
        assert x.tolist() == moved


def test_sparse_gradients_are_rejected_before_anything_moves() -> None:
    x, table = torch.ones(2, requires_grad=True), nn.Embedding(5, 3, sparse=True)
    optimizer = EGDD([x, *table.parameters()], lr=0.1)
    x.grad = torch.ones(2)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse=False"):
        optimizer.step()
    assert x.tolist() == [1, 1]


def test_a_closure_is_run_with_gradients() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    optimizer = EGDD([x], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = x.square().sum()
        loss.backward()
        return loss.item()

    with torch.no_grad():
        assert optimizer.step(closure) == 4.0
    assert x.item() == pytest.approx(1.6)


def test_goes_further_than_momentum_at_the_same_rate() -> None:
    curvature = torch.logspace(-3, 0, 12)
    ends = []
    for make in (lambda p: EGDD(p, 0.02, 0.9), lambda p: torch.optim.SGD(p, 0.02, 0.9)):
        x = torch.ones(12, requires_grad=True)
        optimizer = make([x])
        for _ in range(400):
            optimizer.zero_grad()
            (curvature * x.square()).sum().backward()
            optimizer.step()
        ends.append((curvature * x.detach().square()).sum().item())
    assert ends[0] < 0.5 * ends[1]


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -0.1},
        {"lr": math.nan},
        {"momentum": 1.0},
        {"average_decay": -0.1},
        {"scale_rate": math.inf},
        {"gain_rate": -1.0},
        {"weight_decay": -0.1},
        {"scale_bounds": (0.0, 2.0)},
        {"scale_bounds": (1.5, 2.0)},
        {"gain_bounds": (0.1, 0.9)},
    ],
)
def test_options_out_of_range_are_rejected(options: dict[str, Any]) -> None:
    x = torch.ones(1, requires_grad=True)
    with pytest.raises(UsageError, match=next(iter(options))):
        EGDD([x], **({"lr": 0.1} | options))
    optimizer = EGDD([torch.ones(1, requires_grad=True)], lr=0.1)
    with pytest.raises(UsageError, match=next(iter(options))):
        optimizer.add_param_group({"params": [x]} | options)
    assert len(optimizer.param_groups) == 1


def test_short_floats_are_rejected() -> None:
    optimizer = EGDD([torch.ones(1, requires_grad=True)], lr=0.1)
    with pytest.raises(UsageError, match="bfloat16"):
        optimizer.add_param_group({"params": [torch.ones(1, dtype=torch.bfloat16, requires_grad=True)]})
    assert len(optimizer.param_groups) == 1
