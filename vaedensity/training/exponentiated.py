"""Exponentiated gradient: steps that multiply (Kivinen & Warmuth 1997)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from vaedensity.errors import UsageError


class ExponentiatedGradient(Optimizer):
    """Descent for parameters that must not be negative, or that are probabilities, by steps that multiply.

    With eta = ``lr`` and g the gradient:

        theta <- theta * exp(-eta g)                                   (EGU, Kivinen & Warmuth 1997)
        p     <- p * exp(-eta g) / sum along dim of p * exp(-eta g)    (EG, with ``simplex=True``)

    Both are mirror descent: the first with the unnormalised relative entropy, the second with the KL divergence from
    the old p. Neither needs a softmax or a projection. A component that is zero stays zero, which is what a sparse
    mixture wants: start with all components positive.

    The simplex form works on logarithms, relative to the smallest gradient among positive components, so it stays on
    the simplex whatever the size of finite gradients; what then underflows becomes zero. In the other form a value
    that would overflow stays at the largest finite one. There is no state beyond the options.

    Parameters
    ----------
    params : iterable of parameters or of groups
        Finite and not negative; with ``simplex`` their slices along ``dim`` sum to one.
    lr : float
        Finite, at least 0.
    simplex : bool
        Whether each slice is one distribution. Can be set per group.
    dim : int
        The dimension of the slices. Can be set per group.

    Raises
    ------
    UsageError
        For parameters or options out of range.
    RuntimeError
        For sparse gradients.

    Examples
    --------
    >>> p = torch.tensor([0.5, 0.5], requires_grad=True)
    >>> optimizer = ExponentiatedGradient([p], lr=math.log(3), simplex=True)
    >>> p.grad = torch.tensor([0.0, 1.0])
    >>> optimizer.step()
    >>> p.detach()
    tensor([0.7500, 0.2500])
    """

    def __init__(self, params: ParamsT, lr: float, *, simplex: bool = False, dim: int = -1):
        super().__init__(params, {"lr": lr, "simplex": simplex, "dim": dim})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except UsageError:
            del self.param_groups[-1]
            raise

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient. ``closure`` recomputes loss and gradients; its value
        is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.layout != torch.strided:
                    raise RuntimeError(
                        "ExponentiatedGradient does not take sparse gradients; make the layer with sparse=False"
                    )
                with torch.no_grad():
                    if group["simplex"]:
                        p.copy_(_on_the_simplex(p, p.grad, group["lr"], group["dim"]))
                    else:
                        p.copy_(_not_negative(p, p.grad, group["lr"]))
        return loss


def _not_negative(theta: Tensor, g: Tensor, lr: float) -> Tensor:
    """theta * exp(-lr * g), saturating."""
    largest = torch.finfo(theta.dtype).max
    # A finite factor, for 0 * inf is not 0. The largest power of e is a little below it, in any rounding.
    factor = torch.exp((-lr * g).clamp(max=math.floor(math.log(largest))))
    return (theta * factor).clamp(max=largest)


def _on_the_simplex(p: Tensor, g: Tensor, lr: float, dim: int) -> Tensor:
    """p * exp(-lr * g), normalised along ``dim``."""
    positive = p > 0
    # A shift of g along dim cancels in the quotient. This one keeps the exponents at or below zero, and the best one
    # at zero, even where lr * g alone would overflow.
    best = torch.where(positive, g, math.inf).amin(dim, keepdim=True)
    logits = torch.where(positive, p.log() - lr * (g - best), -math.inf)
    return torch.softmax(logits, dim)


def _check(group: dict[str, Any]) -> None:
    if not 0 <= group["lr"] < math.inf:
        raise UsageError(f"ExponentiatedGradient: lr is {group['lr']}, expected a finite number of at least 0")
    for p in group["params"]:
        values = p.detach()
        if not p.is_floating_point() or not bool(((values >= 0) & (values < math.inf)).all()):
            raise UsageError(
                f"ExponentiatedGradient: a parameter {tuple(p.shape)} has negative or non-finite values; "
                "begin with finite ones of at least 0"
            )
        if not group["simplex"]:
            continue
        if not -p.dim() <= group["dim"] < p.dim():
            raise UsageError(f"ExponentiatedGradient: dim is {group['dim']}, a parameter is {tuple(p.shape)}")
        off = float((values.sum(group["dim"]) - 1).abs().max()) if p.numel() else 0.0
        if off > 1e-5 + p.shape[group["dim"]] * torch.finfo(p.dtype).eps:
            raise UsageError(
                f"ExponentiatedGradient: a parameter {tuple(p.shape)} misses the simplex by {off:.2g} along dim "
                f"{group['dim']}; divide it by its sum first"
            )
