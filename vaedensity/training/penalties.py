"""The gradient penalty that a finite learning rate implies, and ways to have more or less of it.

Write g for the gradient of the loss L and H for its Hessian, so that H g is the gradient of ||g||^2 / 2. Gradient
descent at rate gamma moves along the flow

    d theta / dt = -grad (L + gamma/4 ||g||^2) + O(gamma^2)

rather than along that of L (Barrett & Dherin 2021, theorem 3.1): a step overshoots where g changes quickly, and that
favours flat places. Su (Scientific Spaces, 2020) reads flooding and unequal steps up and down as doses of this penalty.

Every part works with any torch module and loss.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from vaedensity.errors import UsageError


@dataclass(frozen=True)
class GradientPenalty:
    """The squared norm of the loss's gradient, times a weight: a term to add to the loss, by double backward.

    On parameters, ``weight=gamma/4`` adds what descent at rate gamma implies; ``weight=-gamma/4`` cancels that to
    first order, so that descent follows the flow of L alone (Barrett & Dherin 2021). On inputs it is the mean over
    items of ||d loss_i / d x_i||^2 (Drucker & LeCun 1992), which keeps the network smooth in x; items must not see
    each other, as in batch normalisation they do.

    Parameters
    ----------
    weight : float
        Finite; may be negative.
    on : "parameters" or "inputs"
        What the gradient is with respect to.

    Raises
    ------
    UsageError
        For settings out of range; when called, for a loss of another shape or that depends on none of the tensors.

    Examples
    --------
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> GradientPenalty(weight=0.5)((x**2).sum(), [x]).item()
    18.0
    """

    weight: float
    on: Literal["parameters", "inputs"] = "parameters"

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise UsageError(f"GradientPenalty: weight is {self.weight}, expected a finite number")
        if self.on not in ("parameters", "inputs"):
            raise UsageError(f"GradientPenalty: on is {self.on!r}, expected 'parameters' or 'inputs'")

    def __call__(self, loss: Tensor, tensors: Tensor | Iterable[Tensor]) -> Tensor:
        """The penalty, a scalar that has gradients itself.

        Parameters
        ----------
        loss : Tensor
            Made from ``tensors``: a scalar on parameters; on inputs (N,), one value an item. (A mean over items would
            have shrunk each gradient by N.)
        tensors : Tensor or iterable of Tensor
            Parameters, whose squared norms are added; or inputs (N, ...). They require gradients. Those that the loss
            does not depend on count as zero.
        """
        wanted = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        wanted = [t for t in wanted if t.requires_grad]
        if not wanted or not loss.requires_grad:
            raise UsageError("GradientPenalty: nothing to differentiate; call requires_grad_() before the loss is made")
        if self.on == "parameters" and loss.numel() != 1:
            raise UsageError(f"GradientPenalty on parameters: the loss is {tuple(loss.shape)}, expected a scalar")
        if self.on == "inputs" and (loss.dim() != 1 or any(t.shape[:1] != loss.shape for t in wanted)):
            shapes = [tuple(t.shape) for t in wanted]
            raise UsageError(
                f"GradientPenalty on inputs: the loss is {tuple(loss.shape)}, the inputs are {shapes}; "
                "expected (N,), one value an item, and (N, ...)"
            )
        gradients = torch.autograd.grad(loss.sum(), wanted, create_graph=True, allow_unused=True)
        squares = [g.square() for g in gradients if g is not None]
        if not squares:
            raise UsageError("GradientPenalty: the loss depends on none of the tensors; pass those it was made from")
        items = loss.numel() if self.on == "inputs" else 1
        return self.weight / items * torch.stack([s.sum() for s in squares]).sum()


def flood(loss: Tensor, level: float) -> Tensor:
    """|loss - b| + b with b = ``level`` (Ishida et al. 2020): descend above the level, ascend below it.

    Around the level steps of rate eps go down and up in turn, and a pair of them moves by -eps^2 H g + O(eps^3):
    descent on ||g||^2 at rate eps^2 / 2, while the loss stays where it is.

    Parameters
    ----------
    loss : Tensor
        The mean over a batch; another shape is taken elementwise. At the level itself the gradient is zero.
    level : float
        In the unit of the loss.

    Raises
    ------
    UsageError
        For a level that is not finite.

    Examples
    --------
    >>> flood(torch.tensor(0.25), level=1.0).item()
    1.75
    """
    if not math.isfinite(level):
        raise UsageError(f"flood: level is {level}, expected a finite number")
    return (loss - level).abs() + level


class LossTerm(ABC):
    """A step from the loss to what is minimised, as ``FitSettings.terms`` takes it. Make it a frozen dataclass: by its
    repr a resumed run knows it again."""

    @abstractmethod
    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """A scalar from the scalar ``loss``, which has been made from ``parameters``."""


@dataclass(frozen=True)
class Flood(LossTerm):
    """:func:`flood` as a term of the loss: no batch is pressed below ``level``, in bits per dimension.

    >>> Flood(1.0)(torch.tensor(0.25), []).item()
    1.75
    """

    level: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", float(self.level))  # 1 and 1.0 are the same setting
        flood(torch.zeros(()), self.level)  # refuses what is not finite

    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        return flood(loss, self.level)


@dataclass(frozen=True)
class PenaliseGradient(LossTerm):
    """:class:`GradientPenalty` on the parameters as a term of the loss. A step takes about three times as long.

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> PenaliseGradient(0.5)((x**2).sum(), [x]).item()
    27.0
    """

    weight: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", float(self.weight))
        GradientPenalty(self.weight)  # refuses what is not finite

    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        return loss + GradientPenalty(self.weight)(loss, parameters)


def implicit_penalty(tensors: Tensor | Iterable[Tensor], rate: float) -> float:
    """gamma/4 ||g||^2, what gradient descent at rate gamma adds to the loss (Barrett & Dherin 2021), for logs.

    With Adam or momentum it remains plain descent's figure at that rate: a measure of the gradient, not what that
    optimiser implies.

    Parameters
    ----------
    tensors : Tensor or iterable of Tensor
        Gradients, or parameters whose ``.grad`` is set. A leaf that requires gradients counts as a parameter; those
        without a gradient are left out.
    rate : float
        gamma, finite and at least 0.

    Returns
    -------
    float
        In the unit of the loss.

    Raises
    ------
    UsageError
        For a rate out of range, and where there are no gradients.

    Examples
    --------
    >>> implicit_penalty(torch.tensor([3.0, 4.0]), rate=0.1)
    0.625
    """
    if not (math.isfinite(rate) and rate >= 0):
        raise UsageError(f"implicit_penalty: rate is {rate}, expected a finite number of at least 0")
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    gradients = [t.grad if t.requires_grad and t.is_leaf else t for t in given]
    found = [g.detach() for g in gradients if g is not None]
    if not found:
        raise UsageError("implicit_penalty: no gradients; call it after backward() and before zero_grad()")
    return rate / 4 * float(torch.nn.utils.get_total_norm(found)) ** 2


def alternation_weight(descent: float, ascent: float) -> float:
    """eps1 eps2 / (2 (eps1 - eps2)): the :class:`GradientPenalty` weight that :class:`TwoRateAlternation` amounts to.

    A pair of steps, theta' = theta - eps1 g(theta) and theta'' = theta' + eps2 g(theta'), gives with
    g(theta') = g - eps1 H g + O(eps1^2)

        theta'' = theta - (eps1 - eps2) g - eps1 eps2 H g + O(eps^3)
                = theta - (eps1 - eps2) grad (L + eps1 eps2 / (2 (eps1 - eps2)) ||g||^2) + O(eps^3),

    one descent *step* of rate eps1 - eps2 on the penalised loss. As a *flow* the pair has that step's own
    (eps1 - eps2)/4 ||g||^2 on top, together (eps1^2 + eps2^2) / (4 (eps1 - eps2)) ||g||^2.

    Parameters
    ----------
    descent, ascent : float
        The rates eps1 and eps2, 0 < eps2 < eps1.

    Raises
    ------
    UsageError
        For rates out of range.

    Examples
    --------
    >>> alternation_weight(0.5, 0.25)
    0.25
    """
    if not 0 < ascent < descent < math.inf:
        raise UsageError(f"alternation_weight: descent {descent}, ascent {ascent}; expected 0 < ascent < descent")
    return descent * ascent / (2 * (descent - ascent))


class TwoRateAlternation(Optimizer):
    """Descend at eps1 = ``lr``, ascend at eps2 = ``ratio * lr``, in turn: a gradient penalty without double backward.

    Two calls of ``step``, each after its own backward pass, are one round: descent at rate eps1 - eps2 on
    L + eps1 eps2 / (2 (eps1 - eps2)) ||g||^2 (:func:`alternation_weight`; Su, Scientific Spaces, 2020). With the same
    batch in both halves the batches' penalties are averaged; with two independent batches the expected round has the
    penalty of the full gradient. Read the weights after an even number of steps.

    A round is stable on a curvature lambda while (eps1 - eps2) lambda + eps1 eps2 lambda^2 < 2. The ascent is a ratio
    of ``lr`` so that a schedule of ``lr`` moves both and cannot turn the round into an ascent. Whose turn it is lies in
    each parameter's state, so it is saved with ``state_dict``, and a parameter that had no gradient for a step still
    never ascends before it descended.

    Parameters
    ----------
    params : iterable of parameters or of groups
    lr : float
        eps1, above 0.
    ratio : float
        eps2 / eps1, between 0 and 1.

    Raises
    ------
    UsageError
        For rates out of range.

    Examples
    --------
    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> optimizer = TwoRateAlternation([x], lr=0.5, ratio=0.5)
    >>> for _ in range(2):
    ...     x.grad = x.detach().clone()  # of x^2 / 2
    ...     optimizer.step()
    >>> x.item()  # (1 - 0.5) (1 + 0.25)
    0.625
    """

    def __init__(self, params: ParamsT, lr: float, ratio: float = 0.5):
        super().__init__(params, {"lr": lr, "ratio": ratio})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        lr, ratio = (param_group.get(key, self.defaults[key]) for key in ("lr", "ratio"))
        if not (0 < lr < math.inf and 0 < ratio < 1):
            raise UsageError(f"TwoRateAlternation: lr {lr}, ratio {ratio}; expected lr > 0 and 0 < ratio < 1")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Half a round. ``closure`` recomputes the loss and its gradients; its value is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._half_round([p for p in group["params"] if p.grad is not None], group["lr"], group["ratio"])
        return loss

    @torch.no_grad()
    def _half_round(self, parameters: Sequence[Tensor], lr: float, ratio: float) -> None:
        for p in parameters:
            step = self.state[p].setdefault("step", torch.zeros((), dtype=torch.int64))
            assert p.grad is not None
            p.add_(p.grad, alpha=-lr if int(step) % 2 == 0 else ratio * lr)
            step += 1
