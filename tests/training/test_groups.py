"""Patterns, learning rates by part: groups, and the reparametrisation that does the same to any optimiser."""

import copy
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fit import CONFIG, TRAIN, VALID, settings, weights
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.errors import Interrupted, UsageError
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.training.fit import fit
from vaedensity.training.groups import param_groups, scaled_parametrization, set_rate
from vaedensity.training.patterns import assign, matching

NAMES = ["encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "decoder.weight", "decoder_2.weight", "start"]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 8) -> list[Tensor]:
    """Descend on a regression; the network's outputs after every step."""
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(20, n, generator=generator, dtype=torch.float64) for n in (5, 2))
    outputs = []
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(net(x), y).backward()
        optimizer.step()
        outputs.append(net(x).detach())
    return outputs


# Patterns


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("encoder", NAMES[:3]),
        ("encoder.*", NAMES[:3]),
        ("encoder.?", NAMES[:3]),
        ("encoder.0", NAMES[:2]),
        ("decoder", NAMES[3:4]),
        ("decoder*", NAMES[3:5]),
        ("*.weight", [NAMES[i] for i in (0, 2, 3, 4)]),
        ("encoder.[1-3].weight", NAMES[2:3]),
        ("start", NAMES[5:]),
        ("*", NAMES),
    ],
)
def test_patterns(pattern: str, found: list[str]) -> None:
    assert matching(NAMES, pattern) == found


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("encodr", "near: encoder"),
        ("encoder.0.wieght", "encoder.0.weight"),
        ("decoder2.*", "decoder_2"),
        ("Start", "start"),
        ("zzz", "there are: encoder, decoder, decoder_2, start"),
        ("", "there are: encoder"),
        ("weight", "no parameter matches 'weight'"),
    ],
)
def test_a_pattern_that_matches_nothing_names_what_is_near(pattern: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        matching(NAMES, pattern)
    assert near in str(caught.value)


def test_later_patterns_win() -> None:
    values = assign(NAMES, {"*": 2, "encoder": 3, "*.bias": 4}, default=1)
    assert list(values.values()) == [3, 4, 3, 2, 2, 2]
    assert assign(NAMES, {"start": 5}, default=1)["decoder.weight"] == 1


# Groups


def test_groups_have_their_rate_scale_and_names() -> None:
    net = network()
    groups = param_groups(net, {"0": 0.1, "2.*": 3, "*.bias": 0.1, "4.weight": 3}, lr=0.5)
    assert [(g["scale"], g["names"]) for g in groups] == [
        (0.1, ["0.weight", "0.bias", "2.bias", "4.bias"]),
        (3.0, ["2.weight", "4.weight"]),
    ]
    assert [g["lr"] for g in groups] == [0.5 * 0.1, 0.5 * 3]
    named = dict(net.named_parameters())
    assert all(p is named[name] for g in groups for p, name in zip(g["params"], g["names"]))


def test_without_scales_there_is_one_group_with_everything() -> None:
    net = network()
    (group,) = param_groups(net, {}, lr=0.25)
    assert group["lr"] == 0.25 and all(a is b for a, b in zip(group["params"], net.parameters(), strict=True))


def test_scale_0_freezes() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW(param_groups(net, {"2": 0}, lr=0.1), weight_decay=0.1)
    train(net, optimizer)
    for name, p in net.named_parameters():
        frozen = name.startswith("2.")
        assert torch.equal(p, before[name]) == frozen and p.requires_grad != frozen
        assert (p in optimizer.state) != frozen and (p.grad is None) == frozen


def test_what_is_frozen_already_stays_so() -> None:
    net = network()
    net[0].requires_grad_(False)
    assert [g["names"] for g in param_groups(net, {"0": 2}, lr=1)] == [["2.weight", "2.bias", "4.weight", "4.bias"]]
    assert not net[0].weight.requires_grad


def test_a_schedule_keeps_the_ratios() -> None:
    optimizer = torch.optim.SGD(param_groups(network(), {"0": 0.1, "2": 7}, lr=1.0))
    set_rate(optimizer, 0.3)
    assert [g["lr"] for g in optimizer.param_groups] == [0.3 * 0.1, 0.3 * 7, 0.3]
    plain = torch.optim.SGD(network().parameters(), lr=1.0)
    set_rate(plain, 0.3)
    assert plain.param_groups[0]["lr"] == 0.3
    optimizer = torch.optim.SGD(param_groups(network(), {"0": 0.1}, lr=1.0))
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.5]


@pytest.mark.parametrize(
    "scales", [{"0": 0.0, "2": -1.0}, {"0": 0, "2": math.nan}, {"2": math.inf}, {"0": 0, "5": 1.0}, {"*": 0}]
)
def test_rejected_scales_change_nothing(scales: dict[str, float]) -> None:
    net = network()
    with pytest.raises(UsageError):
        param_groups(net, scales, lr=1.0)
    assert all(p.requires_grad for p in net.parameters())


# The reparametrisation: theta = lambda phi

Optimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]


@pytest.mark.parametrize(
    ("make", "power"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.05), 2),
        (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True), 2),
        (lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-30), 1),
        (lambda p: torch.optim.RMSprop(p, lr=0.01, eps=1e-30), 1),
    ],
    ids=["SGD", "momentum", "Adam", "RMSprop"],
)
def test_a_scaled_parametrization_is_a_learning_rate(make: Optimizer, power: int) -> None:
    factors = {"0": 3.0, "2.weight": 0.3}
    grouped, scaled, plain = network(), network(), network()
    lr = make(plain.parameters()).defaults["lr"]
    groups = param_groups(grouped, {name: factor**power for name, factor in factors.items()}, lr=lr)
    wanted = train(grouped, make(groups))
    scaled_parametrization(scaled, factors)
    found = train(scaled, make(scaled.parameters()))
    for a, b, c in zip(wanted, found, train(plain, make(plain.parameters()))):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        assert not torch.allclose(a, c, rtol=1e-3)
    for name, p in grouped.named_parameters():
        index, leaf = name.split(".")
        torch.testing.assert_close(getattr(scaled[int(index)], leaf), p, rtol=1e-9, atol=1e-11)


def test_it_leaves_the_function_and_can_be_removed() -> None:
    net, x = network(), torch.randn(4, 5, dtype=torch.float64)
    before = net(x)
    handle = scaled_parametrization(net, {"0": 3.0, "*.bias": 4.0})
    assert handle.scales == {"0.weight": 3.0, "0.bias": 4.0, "2.bias": 4.0, "4.bias": 4.0}
    torch.testing.assert_close(net(x), before, rtol=1e-14, atol=1e-14)
    assert torch.equal(net[2].bias, network()[2].bias)  # a power of two is exact
    phi = dict(net.named_parameters())["0.parametrizations.weight.original"]
    torch.testing.assert_close(3 * phi, net[0].weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    train(net, optimizer)
    after = net(x)
    handle.remove()
    assert set(dict(net.named_parameters())) == set(dict(network().named_parameters()))
    assert net[0].weight is phi and type(net[0]) is nn.Linear
    assert torch.equal(net(x), after)


def test_it_takes_parameters_of_the_module_itself() -> None:
    model = HierarchicalVAE(CONFIG)
    with torch.no_grad():
        model.start.normal_()
    before = weights(model)["start"]
    scaled_parametrization(model, {"start": 2.0})
    assert torch.equal(model.start, before) and isinstance(model, HierarchicalVAE)


def test_what_a_parametrization_rejects() -> None:
    net = network()
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="above 0"):
            scaled_parametrization(net, {"0": factor})
    with pytest.raises(UsageError, match="no parameter matches"):
        scaled_parametrization(net, {"0": 2.0, "9": 2.0})
    assert type(net[0]) is nn.Linear
    scaled_parametrization(net, {"0": 2.0})
    with pytest.raises(UsageError, match="already"):
        scaled_parametrization(net, {"2": 2.0, "0": 2.0})
    assert type(net[2]) is nn.Linear
    net[4].weight = nn.Parameter(torch.randn(6, 6))
    net.append(nn.Linear(6, 6))
    net[5].weight = net[4].weight
    with pytest.raises(UsageError, match="share"):
        scaled_parametrization(net, {"4": 2.0})


# In the fit loop


def test_fit_freezes_and_scales() -> None:
    torch.manual_seed(0)
    before = weights(HierarchicalVAE(CONFIG))
    records: list[dict[str, Any]] = []
    scales = {"prior_heads": 0, "stem": 1e-6}
    options = settings(20, scales=scales, average_decay=0.0)
    after = weights(fit(TRAIN, VALID, CONFIG, options, observers=(records.append,)).model)
    for name, p in after.items():
        assert torch.equal(p, before[name]) == name.startswith("prior_heads"), name
    moved = {name: float((p - before[name]).abs().max()) for name, p in after.items()}
    assert moved["stem.weight"] < 1e-7 < 1e-4 < moved["up.0.0.first.weight"]
    assert records[0]["learning_rate"] == options.schedule.rate(0.0, 0)  # the log states the rate of scale 1


def test_resume_with_scales_is_exact_and_rejects_others(tmp_path: Path) -> None:
    options = settings(30, scales={"prior_heads": 0, "decoder": 0.5})
    whole, state = fit(TRAIN, VALID, CONFIG, options), tmp_path / "state"

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 13:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="step 13"):
        fit(TRAIN, VALID, CONFIG, options, state_path=state, observers=(stop,))
    for scales in ({}, {"prior_heads": 0.0}, {"prior_heads": 0.0, "decoder": 0.6}):
        with pytest.raises(UsageError, match="another scaling of rates"):
            fit(TRAIN, VALID, CONFIG, settings(30, scales=scales), state_path=state, resume=True)
    resumed = fit(TRAIN, VALID, CONFIG, options, state_path=state, resume=True)
    for name, p in weights(whole.model).items():
        assert torch.equal(p, weights(resumed.model)[name]), name
