"""A learning rate for each part of a network.

Two ways to the same trajectories (Su Jianlin 2019, "Let Keras be cooler: layer-wise learning rates and free
gradients", https://spaces.ac.cn/archives/6418): parameter groups, where one owns the optimiser, and a
reparametrisation, which asks nothing of the optimiser at all.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vaedensity.errors import UsageError
from vaedensity.training.patterns import assign, matching


def param_groups(module: nn.Module, scales: Mapping[str, float], *, lr: float) -> list[dict[str, Any]]:
    """Groups for any torch optimiser: one for each distinct scale, with the rate ``lr * scale``.

    ``scales`` maps patterns of parameter names (see :mod:`~vaedensity.training.patterns`) to factors; later
    patterns win, what none matches has 1. Scale 0 freezes: such parameters are in no group, need no gradient
    and get no optimiser state. Parameters that are frozen already stay so. A group keeps its ``scale`` and
    ``names``, so that :func:`set_rate` preserves the ratios; torch's schedulers do by themselves.

    Raises UsageError for a pattern that matches nothing, a scale that is negative or not finite, and where
    nothing is left to train; the module is then as it was.

    >>> net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    >>> [(g["names"], g["lr"]) for g in param_groups(net, {"0": 0, "*.bias": 2.0}, lr=0.1)]
    [(['0.bias', '1.bias'], 0.2), (['1.weight'], 0.1)]
    """
    for pattern, scale in scales.items():
        if not (math.isfinite(scale) and scale >= 0):
            raise UsageError(f"learning-rate scale {pattern}={scale}: expected a finite number, at least 0")
    parameters = dict(module.named_parameters())
    assigned = assign(parameters, {pattern: float(scale) for pattern, scale in scales.items()}, 1.0)
    trained = [name for name, p in parameters.items() if p.requires_grad and assigned[name] > 0]
    if not trained:
        raise UsageError("learning-rate scales: all parameters are frozen, nothing is left to train")
    for name, p in parameters.items():
        if assigned[name] == 0:
            p.requires_grad_(False)
    groups: dict[float, dict[str, Any]] = {}
    for name in trained:
        scale = assigned[name]
        group = groups.setdefault(scale, {"params": [], "lr": lr * scale, "scale": scale, "names": []})
        group["params"].append(parameters[name])
        group["names"].append(name)
    return list(groups.values())


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the learning rate ``rate`` times its ``scale`` (1 where it has none)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def parse_scales(specs: Iterable[str]) -> dict[str, float]:
    """The ``scales`` that ``PATTERN=SCALE`` texts mean, in order. Raises UsageError for any other text.

    >>> parse_scales(["encoder.*=0.1", "start=0"])
    {'encoder.*': 0.1, 'start': 0.0}
    """
    scales: dict[str, float] = {}
    for spec in specs:
        pattern, equals, number = spec.rpartition("=")
        try:
            scale = float(number)
        except ValueError:
            scale = math.nan
        if not pattern or not equals or not (math.isfinite(scale) and scale >= 0):
            raise UsageError(f"learning-rate scale {spec!r}: expected PATTERN=SCALE, for example encoder.*=0.1")
        scales.pop(pattern, None)  # given again, it counts where it came last
        scales[pattern] = scale
    return scales


@dataclass(frozen=True)
class ScaledParametrization:
    """What :func:`scaled_parametrization` has changed; ``remove`` undoes it."""

    module: nn.Module
    scales: dict[str, float]

    def remove(self) -> None:
        """Make the parameters ordinary again with the values they have now. The Parameter objects stay the
        same, but an optimiser's moments for them are in the units of phi: begin with fresh ones."""
        for name in self.scales:
            owner, leaf = _owner(self.module, name)
            parametrize.remove_parametrizations(owner, leaf, leave_parametrized=True)


def scaled_parametrization(module: nn.Module, factors: Mapping[str, float]) -> ScaledParametrization:
    """Write each matched parameter as theta = lambda * phi and train phi: layer-wise rates for any optimiser.

    The network computes what it did (up to the rounding of theta / lambda; exactly for powers of two), the
    gradient of phi is lambda times that of theta, and a step of phi moves theta lambda times as far. So under
    SGD, with or without momentum, the rate alpha becomes lambda^2 alpha; under Adam and RMSprop, whose steps
    do not depend on the gradient's scale, lambda alpha, with their ``eps`` acting as eps / lambda. Weight decay
    and gradient clipping see phi, hence act otherwise than on theta.

    ``factors`` maps patterns to lambda > 0; later patterns win. Call it before the optimiser is made: phi is
    then the parameter, under the name ``parametrizations.<name>.original`` of its module.

    Raises UsageError for a pattern that matches nothing, a factor that is not positive and finite, and a
    parameter that is parametrised already or shared between modules; the module is then as it was.
    """
    for pattern, factor in factors.items():
        if not (math.isfinite(factor) and factor > 0):
            raise UsageError(f"parametrisation {pattern}={factor}: expected a finite number above 0")
    names = [name for name, _ in module.named_parameters()]
    scales: dict[str, float] = {}
    for pattern, factor in factors.items():
        scales |= dict.fromkeys(matching(names, pattern), float(factor))
    everywhere = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    for name in scales:
        owner, leaf = _owner(module, name)
        if ".parametrizations." in f".{name}":
            raise UsageError(f"parametrisation of {name}: it is parametrised already; remove that first")
        if everywhere.count(id(getattr(owner, leaf))) > 1:
            raise UsageError(f"parametrisation of {name}: modules share it, which a parametrisation would undo")
    for name, scale in scales.items():
        owner, leaf = _owner(module, name)
        parametrize.register_parametrization(owner, leaf, _Scale(scale))
    return ScaledParametrization(module, scales)


class _Scale(nn.Module):
    """theta = scale * phi."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, phi: Tensor) -> Tensor:
        return self.scale * phi

    def right_inverse(self, theta: Tensor) -> Tensor:
        return theta / self.scale


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds parameter ``name``, and the parameter's name there."""
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
