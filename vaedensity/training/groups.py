"""A learning rate for each part of a network, in two ways to the same trajectories.

Parameter groups are for those who make the optimiser; a reparametrisation asks nothing of the optimiser at all (Su
Jianlin 2019, "Let Keras be cooler: layer-wise learning rates and free gradients", https://spaces.ac.cn/archives/6418).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vaedensity.errors import UsageError
from vaedensity.training.patterns import assign, matching


def param_groups(module: nn.Module, scales: Mapping[str, float], *, lr: float) -> list[dict[str, Any]]:
    """Parameter groups for any torch optimiser, so that parts of a network learn at rates of their own.

    Parameters
    ----------
    module : nn.Module
        Parameters that are frozen already stay so and are in no group.
    scales : mapping of str to float
        Factors of the rate by patterns of parameter names (:mod:`~vaedensity.training.patterns`). Later patterns win;
        what none matches has 1. Scale 0 freezes: such parameters are in no group and need no gradient.
    lr : float
        The rate of scale 1.

    Returns
    -------
    list of dict
        One group for each distinct scale, with ``params``, ``lr`` (times the scale), ``scale`` and ``names``, by which
        :func:`set_rate` preserves the ratios; torch's schedulers do by themselves.

    Raises
    ------
    UsageError
        For a pattern that matches nothing, a scale that is negative or not finite, and where nothing is left to
        train; the module is then as it was.

    Examples
    --------
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


@dataclass(frozen=True)
class ScaledParametrization:
    """What :func:`scaled_parametrization` has changed: ``scales`` by parameter names. ``remove`` undoes it."""

    module: nn.Module
    scales: dict[str, float]

    def remove(self) -> None:
        """Make the parameters ordinary again with the values they have now.

        The Parameter objects stay the same, but an optimiser's moments for them are in the units of phi: begin with
        fresh ones.
        """
        for name in self.scales:
            owner, leaf = _owner(self.module, name)
            parametrize.remove_parametrizations(owner, leaf, leave_parametrized=True)


def scaled_parametrization(module: nn.Module, factors: Mapping[str, float]) -> ScaledParametrization:
    """Write each matched parameter as theta = lambda * phi and train phi: rates by part for any optimiser.

    The network computes what it did (up to the rounding of theta / lambda; exactly for powers of two), the gradient of
    phi is lambda times that of theta, and a step of phi moves theta lambda times as far. So under SGD, with or without
    momentum, the rate alpha becomes lambda^2 alpha; under Adam and RMSprop, whose steps do not depend on the gradient's
    scale, lambda alpha, with their ``eps`` acting as eps / lambda. Weight decay and gradient clipping see phi, hence
    act otherwise than on theta.

    Parameters
    ----------
    module : nn.Module
        Call this before the optimiser is made: phi is then the parameter, under the name
        ``parametrizations.<name>.original`` of its module.
    factors : mapping of str to float
        lambda > 0 by patterns of parameter names; later patterns win.

    Returns
    -------
    ScaledParametrization
        Its ``remove`` makes the parameters ordinary again.

    Raises
    ------
    UsageError
        For a pattern that matches nothing, a factor that is not positive and finite, and a parameter that is
        parametrised already or shared between modules; the module is then as it was.

    Examples
    --------
    >>> net = nn.Linear(2, 2, bias=False)
    >>> scaled = scaled_parametrization(net, {"weight": 0.5})
    >>> [name for name, _ in net.named_parameters()]
    ['parametrizations.weight.original']
    >>> scaled.remove()
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
