"""Muon: orthogonal steps for hidden matrices, Adam's for the rest."""

import math

import pytest
import torch
from torch import nn

from vaedensity.training.groups import param_groups
from vaedensity.training.muon import Muon, orthogonalised, split_matrices


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))


def muon_for(module: nn.Module, lr: float = 1e-2) -> Muon:
    return Muon(split_matrices(param_groups(module, {}, lr=lr), outputs=("4.",)), lr)


@pytest.mark.parametrize("shape", [(5, 5), (8, 30), (30, 8), (1, 7)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    kept = u.T @ found @ v.T  # the singular vectors stay
    assert torch.allclose(kept, torch.diag(kept.diagonal()), atol=1e-6)


def test_only_hidden_matrices_are_orthogonal() -> None:
    module = net()
    groups = split_matrices(param_groups(module, {"0.*": 0.5}, lr=1.0), outputs=("4.",))
    marked = {name: (g["orthogonal"], g["lr"]) for g in groups for name in g["names"]}
    assert marked == {
        "0.weight": (True, 0.5),
        "0.bias": (False, 0.5),
        "2.weight": (True, 1.0),
        "2.bias": (False, 1.0),
        "4.weight": (False, 1.0),
        "4.bias": (False, 1.0),
    }


def test_other_parameters_follow_adam() -> None:
    a, b = net(), net()
    ours = Muon([{"params": list(a.parameters()), "orthogonal": False}], 1e-2)
    theirs = torch.optim.Adam(b.parameters(), 1e-2, betas=(0.9, 0.99))
    x = torch.randn(20, 6)
    for _ in range(30):
        for module, optimizer in ((a, ours), (b, theirs)):
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
    assert all(torch.allclose(p, q, atol=1e-5) for p, q in zip(a.parameters(), b.parameters()))


def test_steps_measure_what_adams_measure() -> None:
    module = net()
    optimizer = muon_for(module, 1.0)
    before = module[2].weight.detach().clone()
    module(torch.randn(20, 6)).square().sum().backward()
    optimizer.step()
    rms = (module[2].weight - before).square().mean().sqrt()
    assert 0.1 < float(rms) < 0.3


def test_convolutions_count_as_matrices() -> None:
    conv = nn.Conv2d(4, 6, 3)
    optimizer = Muon(split_matrices([{"params": list(conv.parameters()), "names": ["weight", "bias"]}]), 0.1)
    before = conv.weight.detach().clone()
    conv(torch.randn(2, 4, 5, 5)).square().sum().backward()
    optimizer.step()
    step = (conv.weight - before).detach().reshape(6, -1)
    values = torch.linalg.svdvals(step) / (0.1 * 0.2 * math.sqrt(36))
    assert values.min() > 0.6 and values.max() < 1.3


def test_state_survives() -> None:
    x = torch.randn(20, 6)

    def run(module: nn.Module, optimizer: Muon, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()

    a, b = net(), net()
    whole, first = muon_for(a), muon_for(b)
    run(a, whole, 6)
    run(b, first, 3)
    second = muon_for(b)
    second.load_state_dict(first.state_dict())
    run(b, second, 3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


def test_misuse_is_rejected() -> None:
    with pytest.raises(ValueError, match="expected lr"):
        Muon(net().parameters(), -1.0)
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = Muon(table.parameters(), 0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


def test_a_closure_is_evaluated() -> None:
    module = net()
    optimizer = muon_for(module)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = module(torch.ones(2, 6)).square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure)) > float(optimizer.step(closure))
