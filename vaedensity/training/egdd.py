"""Step sizes that adapt themselves multiplicatively (Amid et al. 2022, "Step-size Adaptation Using Exponentiated
Gradient Updates", arXiv 2202.00145)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from vaedensity.errors import UsageError


class EGDD(Optimizer):
    """Momentum with a step size per tensor and a gain per coordinate, both adapted by exponentiated gradient (EGDD).

    One step (Amid et al. 2022), g being the gradient at theta, m and gbar the averages after the step before:

        scale <- clip(scale * exp(scale_rate * cos(g, m)), scale_bounds)
        gain  <- clip(gain * exp(gain_rate * sign(g) * sign(gbar)), gain_bounds)
        m     <- momentum * m + lr * gain * g
        gbar  <- average_decay * gbar + (1 - average_decay) * g
        theta <- theta - scale * m

    The signs follow from the loss: the last step was -scale * m, so the derivative of L(theta - scale * m) by
    scale is -<g, m>, and descent on the scale raises it where the new gradient agrees with the old direction. m
    accumulates +g; the same holds for the gains and gbar. A multiplicative update keeps both positive. cos is 0 where
    g or m is all zero.

    State per parameter: ``scale`` (scalar), ``gain``, ``momentum``, ``average`` (as the parameter), ``step``.

    Parameters
    ----------
    params : iterable of parameters or of groups
        float32 or float64. Each option below can be set per group.
    lr : float
        Enters m, so a schedule acts through the momentum's memory.
    momentum, average_decay : float
        Of m and of gbar, from 0 to below 1.
    scale_rate, gain_rate : float
        Learning rates of the scales and the gains, at least 0.
    scale_bounds, gain_bounds : pair of float
        Between 0 and infinity, around 1, where all scales and gains start.
    signed : bool
        False takes the product itself for the gains, g * gbar / (1 - average_decay^(t-1)) at a parameter's t-th step:
        the average without the bias of its zero start, as in the authors' code. That form depends on the loss's unit.
    weight_decay : float
        Decoupled: theta <- (1 - lr * weight_decay) * theta before the step (Loshchilov & Hutter 2019).
    foreach : bool, optional
        Whether to update a whole group at once; None does where all of its parameters are on CUDA.

    Raises
    ------
    UsageError
        For an option out of range, and for parameters of less than 32 bits, in which 1 + 0.001 is 1.
    RuntimeError
        For sparse gradients.

    Examples
    --------
    >>> x = torch.ones(2, requires_grad=True)
    >>> optimizer = EGDD([x], lr=0.1, momentum=0.0)
    >>> x.grad = torch.tensor([1.0, 0.0])
    >>> optimizer.step()
    >>> x.detach()
    tensor([0.9000, 1.0000])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        *,
        average_decay: float = 0.9,
        scale_rate: float = 0.001,
        gain_rate: float = 0.01,
        scale_bounds: tuple[float, float] = (0.1, 10.0),
        gain_bounds: tuple[float, float] = (0.01, 100.0),
        signed: bool = True,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "average_decay": average_decay,
            "scale_rate": scale_rate,
            "gain_rate": gain_rate,
            "scale_bounds": scale_bounds,
            "gain_bounds": gain_bounds,
            "signed": signed,
            "weight_decay": weight_decay,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        _check(self.defaults | param_group)
        super().add_param_group(param_group)
        dtypes = {p.dtype for p in self.param_groups[-1]["params"]}
        if not dtypes <= {torch.float32, torch.float64}:
            del self.param_groups[-1]
            found = ", ".join(sorted(str(d) for d in dtypes))
            raise UsageError(f"EGDD: parameters are {found}; its factors near 1 need float32 or float64")

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient. ``closure`` recomputes loss and gradients; its value
        is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            if any(g.layout != torch.strided for g in gradients):
                raise RuntimeError("EGDD does not take sparse gradients; make the layer with sparse=False")
            foreach = group["foreach"]
            if foreach is None:
                foreach = all(p.is_cuda for p in parameters)
            with torch.no_grad():
                states = [self._state(p) for p in parameters]
                if foreach and parameters:
                    _update_together(parameters, gradients, states, group)
                else:
                    for p, g, state in zip(parameters, gradients, states):
                        _update(p, g, state, group)
        return loss

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["scale"] = torch.ones((), dtype=p.dtype, device=p.device)
            state["gain"] = torch.ones_like(p, memory_format=torch.preserve_format)
            state["momentum"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["average"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["step"] += 1
        return state


def _update(theta: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    scale, gain, m, gbar = state["scale"], state["gain"], state["momentum"], state["average"]
    lr = group["lr"]

    cosine = _cosine((g * m).sum(), torch.linalg.vector_norm(g), torch.linalg.vector_norm(m))
    scale.mul_(cosine.mul_(group["scale_rate"]).exp_()).clamp_(*group["scale_bounds"])

    agreement = g.sign() * gbar.sign() if group["signed"] else g * gbar
    gain.mul_(agreement.mul_(_gain_rate(state, group)).exp_()).clamp_(*group["gain_bounds"])

    m.mul_(group["momentum"]).add_(gain * g, alpha=lr)
    gbar.lerp_(g, 1 - group["average_decay"])
    theta.mul_(1 - lr * group["weight_decay"]).sub_(scale * m)


def _update_together(
    thetas: list[Tensor], gs: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]
) -> None:
    """:func:`_update` line by line, each operation for all parameters at once."""
    scales, gains, ms, gbars = ([s[key] for s in states] for key in ("scale", "gain", "momentum", "average"))
    lr = group["lr"]

    products = [x.sum() for x in torch._foreach_mul(gs, ms)]
    cosines = [_cosine(*x) for x in zip(products, torch._foreach_norm(gs), torch._foreach_norm(ms))]
    torch._foreach_mul_(cosines, group["scale_rate"])
    torch._foreach_exp_(cosines)
    torch._foreach_mul_(scales, cosines)
    torch._foreach_clamp_min_(scales, group["scale_bounds"][0])
    torch._foreach_clamp_max_(scales, group["scale_bounds"][1])

    if group["signed"]:
        agreements = torch._foreach_mul(torch._foreach_sign(gs), torch._foreach_sign(gbars))
    else:
        agreements = torch._foreach_mul(gs, gbars)
    torch._foreach_mul_(agreements, [_gain_rate(state, group) for state in states])
    torch._foreach_exp_(agreements)
    torch._foreach_mul_(gains, agreements)
    torch._foreach_clamp_min_(gains, group["gain_bounds"][0])
    torch._foreach_clamp_max_(gains, group["gain_bounds"][1])

    torch._foreach_mul_(ms, group["momentum"])
    torch._foreach_add_(ms, torch._foreach_mul(gains, gs), alpha=lr)
    torch._foreach_lerp_(gbars, gs, 1 - group["average_decay"])
    torch._foreach_mul_(thetas, 1 - lr * group["weight_decay"])
    torch._foreach_sub_(thetas, torch._foreach_mul(ms, scales))


def _cosine(product: Tensor, norm: Tensor, other: Tensor) -> Tensor:
    """product / (norm * other) in [-1, 1], and 0 where a norm is 0."""
    # One after the other: the product of two small norms may underflow although neither is zero.
    return torch.where((norm > 0) & (other > 0), product / norm / other, torch.zeros_like(product)).clamp_(-1, 1)


def _gain_rate(state: dict[str, Tensor], group: dict[str, Any]) -> float:
    """What multiplies the agreement: gain_rate, over the average's weight where its size counts."""
    rate, decay = float(group["gain_rate"]), float(group["average_decay"])
    # At the first step the average is zero, whatever divides it.
    return rate if group["signed"] else rate / (1.0 - math.pow(decay, max(int(state["step"]) - 1, 1)))


def _check(options: dict[str, Any]) -> None:
    for key in ("lr", "scale_rate", "gain_rate", "weight_decay"):
        if not 0 <= options[key] < math.inf:
            raise UsageError(f"EGDD: {key} is {options[key]}, expected a finite number of at least 0")
    for key in ("momentum", "average_decay"):
        if not 0 <= options[key] < 1:
            raise UsageError(f"EGDD: {key} is {options[key]}, expected 0 <= {key} < 1")
    for key in ("scale_bounds", "gain_bounds"):
        low, high = options[key]
        if not 0 < low <= 1 <= high < math.inf:
            raise UsageError(f"EGDD: {key} are {low} and {high}, expected 0 < low <= 1 <= high, as all start at 1")
