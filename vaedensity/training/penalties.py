"""Why a finite learning rate: the gradient penalty that steps imply, and ways to have more or less of it.

Write g for the gradient of L and H for its Hessian, so that H g is the gradient of ||g||^2 / 2. Gradient top_down at
rate gamma moves along the flow

    d theta / dt = -grad (L + gamma/4 ||g||^2) + O(gamma^2)

rather than along that of L (Barrett & Dherin 2021): a step overshoots where g changes quickly, and that favours
flat places. Su (Scientific Spaces, 2020) reads flooding and unequal steps up and down as doses of this penalty.

Nothing here knows the rest of the package; every part works with any torch module and loss.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from vaedensity.errors import UsageError


@dataclass(frozen=True)
class GradientPenalty:
    """``weight * ||gradient of the loss||^2``, a term to add to the loss; it has gradients itself (double backward).

    ``on="parameters"``: the loss is a scalar, and the squared norm runs over all tensors together. ``weight=gamma/4``
    adds what top_down at rate gamma implies; ``weight=-gamma/4`` cancels that to first order, so that top_down follows
    the flow of L alone (Barrett & Dherin 2021).

    ``on="inputs"``: the loss is (N,), one value an item, the tensors are (N, ...), and the penalty is the mean over
    items of ||d loss_i / d x_i||^2 (Drucker & LeCun 1992). Items must not see each other, as in batch normalisation
    they do. A mean over items would have shrunk each gradient by N, so a scalar loss is refused.

    Tensors that the loss does not depend on count as zero; it must depend on one of them.

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
        """A scalar. ``loss`` must come from ``tensors``, which require gradients."""
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

    ``loss`` is the mean over a batch (any shape is taken elementwise). At the level itself the gradient is zero.
    Around the level steps of rate eps go down and up in turn, and a pair of them moves by -eps^2 H g + O(eps^3):
    top_down of the gradient's norm at rate eps^2 / 2 while the loss stays where it is.

    >>> flood(torch.tensor(0.25), level=1.0).item()
    1.75
    """
    if not math.isfinite(level):
        raise UsageError(f"flood: level is {level}, expected a finite number")
    return (loss - level).abs() + level


def implicit_penalty(tensors: Tensor | Iterable[Tensor], rate: float) -> float:
    """gamma/4 ||g||^2, what gradient top_down at ``rate`` gamma adds to the loss (Barrett & Dherin 2021), for logs.

    ``tensors`` are gradients, or parameters whose ``.grad`` is set (a leaf that requires gradients counts as a
    parameter; those without a gradient are left out). The unit is the loss's. With Adam or momentum it remains
    plain gradient top_down's figure at that rate: a measure of the gradient, not what that optimiser implies.
    """
    if not (math.isfinite(rate) and rate >= 0):
        raise UsageError(f"implicit_penalty: rate is {rate}, expected a finite number of at least 0")
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    gradients = [t.grad if t.requires_grad and t.is_leaf else t for t in given]
    found = [g.detach() for g in gradients if g is not None]
    if not found:
        raise UsageError("implicit_penalty: no gradients; call it after backward() and before zero_grad()")
    return rate / 4 * float(torch.nn.utils.get_total_norm(found)) ** 2


def alternation_weight(top_down: float, ascent: float) -> float:
    """eps1 eps2 / (2 (eps1 - eps2)): the ``GradientPenalty`` weight that :class:`TwoRateAlternation` amounts to.

    A pair of steps, theta' = theta - eps1 g(theta) and theta'' = theta' + eps2 g(theta'), gives with
    g(theta') = g - eps1 H g + O(eps1^2)

        theta'' = theta - (eps1 - eps2) g - eps1 eps2 H g + O(eps^3)
                = theta - (eps1 - eps2) grad (L + eps1 eps2 / (2 (eps1 - eps2)) ||g||^2) + O(eps^3),

    one *top_down step* of rate eps1 - eps2 on the penalised loss. As a *flow* the pair has that step's own
    (eps1 - eps2)/4 ||g||^2 on top, together (eps1^2 + eps2^2) / (4 (eps1 - eps2)) ||g||^2.
    """
    if not 0 < ascent < top_down < math.inf:
        raise UsageError(f"alternation_weight: top_down {top_down}, ascent {ascent}; expected 0 < ascent < top_down")
    return top_down * ascent / (2 * (top_down - ascent))


class TwoRateAlternation(Optimizer):
    """Descend at eps1 = ``lr``, ascend at eps2 = ``ratio * lr``, in turn: a gradient penalty without double backward.

    Two calls of ``step``, each after its own backward pass, are one round: top_down at rate eps1 - eps2 on
    L + eps1 eps2 / (2 (eps1 - eps2)) ||g||^2 (:func:`alternation_weight`; Su, Scientific Spaces, 2020).
    With the same batch in both halves the batches' penalties are averaged; with two independent batches the
    expected round has the penalty of the full gradient. Read the weights after an even number of steps.

    A round is stable on a curvature lambda while (eps1 - eps2) lambda + eps1 eps2 lambda^2 < 2. The ascent is a
    ratio of ``lr`` so that a schedule of ``lr`` moves both and cannot turn the round into an ascent.

    Whose turn it is lies in each parameter's state, so it is saved with ``state_dict``, and a parameter that had no
    gradient for a step still never ascends before it descended. Errors: UsageError unless lr > 0 and 0 < ratio < 1.

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
