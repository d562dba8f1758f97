"""Powers of a distribution with a given entropy."""

import torch

from vaedensity.density.entropy import exponent_for_entropy, power_entropy


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
