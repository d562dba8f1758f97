"""Dilated gated convolutions: the formula, what is seen from where, masks, and that they learn."""

import pytest
import torch
from torch.nn import functional as F

from vaedensity.errors import UsageError
from vaedensity.model.dgcnn import DGCNN, DILATIONS, GatedBlock


def test_one_block_is_the_formula() -> None:
    torch.manual_seed(0)
    block, x = GatedBlock(3, 2).eval(), torch.randn(2, 3, 11)
    mask = (torch.arange(11) < torch.tensor([[11], [7]])).float()
    w, b = block.convolution.weight, block.convolution.bias
    for t in (0, 5, 10):
        taps = [x[:, :, t + d] if 0 <= t + d < 11 else torch.zeros(2, 3) for d in (-2, 0, 2)]
        both = sum(tap @ w[:, :, k].T for k, tap in enumerate(taps)) + b
        gate, h = torch.sigmoid(both[:, :3]), both[:, 3:]
        expected = (gate * x[:, :, t] + (1 - gate) * h) * mask[:, t, None]
        assert torch.allclose(block(x, mask)[:, :, t], expected, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_what_is_seen(causal: bool) -> None:
    torch.manual_seed(1)
    network = DGCNN(4, causal=causal).eval().double()
    assert network.reach == sum(DILATIONS) * (2 if causal else 1)
    x = torch.randn(1, 4, 201, dtype=torch.float64, requires_grad=True)
    network(x)[0, :, 100].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0).nonzero()[:, 0]
    assert int(seen.min()) == 100 - network.reach
    assert int(seen.max()) == (100 if causal else 100 + network.reach)


def test_nothing_behind_the_end_matters() -> None:
    torch.manual_seed(2)
    network, x = DGCNN(4).eval(), torch.randn(1, 4, 30)
    mask = (torch.arange(30) < 20).float()[None]
    other = x.clone()
    other[:, :, 20:] = 1e3
    y = network(x, mask)
    assert torch.equal(y, network(other, mask)) and (y[:, :, 20:] == 0).all()
    assert torch.allclose(y[:, :, :20], network(x[:, :, :20]), atol=1e-6)


def test_gates() -> None:
    x = torch.randn(2, 5, 9)
    assert torch.allclose(DGCNN(5, open_gate=30.0).eval()(x), x, atol=1e-5)
    noisy = DGCNN(5, dropout=0.5)
    assert not torch.equal(noisy(x), noisy(x)) and torch.equal(noisy.eval()(x), noisy(x))


def test_it_learns_what_needs_its_reach() -> None:
    """To tell whether the symbol twelve places before is the same."""
    torch.manual_seed(3)
    network = torch.nn.Sequential(DGCNN(24, (1, 2, 5, 5), dropout=0.0, causal=True), torch.nn.Conv1d(24, 1, 1))
    table = torch.nn.Embedding(3, 24)
    optimizer = torch.optim.Adam([*network.parameters(), *table.parameters()], lr=3e-3)
    for _ in range(200):
        s = torch.randint(0, 3, (32, 64))
        wanted = (s[:, 12:] == s[:, :-12]).float()
        loss = F.binary_cross_entropy_with_logits(network(table(s).transpose(1, 2))[:, 0, 12:], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # 0.637 without seeing it


@pytest.mark.parametrize("options", [{"kernel": 2}, {"width": 0}, {"dilation": 0}, {"dropout": 1.0}])
def test_impossible_blocks(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="GatedBlock"):
        GatedBlock(**{"width": 4, **options})  # type: ignore[arg-type]
