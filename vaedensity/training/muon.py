"""Muon: momentum whose matrix has been made orthogonal, for hidden layers; Adam for everything else."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
ADAM_RMS = 0.2  # what Adam's steps measure, root mean square, at rate 1


def orthogonalised(matrix: Tensor) -> Tensor:
    """Nearly U V^T for ``matrix`` (m,n) = U S V^T: singular values between about 0.7 and 1.2.

    Five rounds of a quintic Newton-Schulz iteration whose coefficients were chosen for speed, not for
    convergence to 1 (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def split_matrices(groups: list[dict[str, Any]], outputs: Collection[str] = ()) -> list[dict[str, Any]]:
    """Parameter groups with ``names``, each cut in two: weights of hidden layers, marked ``orthogonal``, and the rest.

    A weight is a parameter of at least two dimensions greater than 1 whose name begins with none of ``outputs``:
    rows of an output layer mean different things, and making them orthogonal would mix their scales.
    """
    cut = []
    for group in groups:
        both: dict[bool, dict[str, Any]] = {
            wanted: {**group, "params": [], "names": [], "orthogonal": wanted} for wanted in (True, False)
        }
        for name, p in zip(group["names"], group["params"]):
            matrix = p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 1 and not name.startswith(tuple(outputs))
            both[matrix]["params"].append(p)
            both[matrix]["names"].append(name)
        cut += [part for part in both.values() if part["params"]]
    return cut


class Muon(torch.optim.Optimizer):
    """Steps along :func:`orthogonalised` momentum in groups marked ``orthogonal``, Adam's steps in others.

    A convolution's weight (O,I,h,w) counts as a matrix (O, I h w). Steps are scaled by 0.2 sqrt(max(m, n)), so
    that their root mean square is that of Adam's and one learning rate serves both (Liu et al. 2025, "Muon is
    scalable for LLM training", eq. 4). Momentum is Nesterov's. Sparse gradients raise RuntimeError.

    >>> net = torch.nn.Linear(3, 2)
    >>> names, parameters = zip(*net.named_parameters())
    >>> optimizer = Muon(split_matrices([{"params": parameters, "names": names}]), lr=1e-3)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ):
        if not (lr >= 0 and 0 <= momentum < 1 and all(0 <= b < 1 for b in betas) and eps > 0):
            raise ValueError(
                f"Muon: expected lr >= 0, momentum and betas in [0, 1), eps > 0; found {lr}, {momentum}, {betas}, {eps}"
            )
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("Muon does not take sparse gradients")
                (self._orthogonal_step if group["orthogonal"] else self._adam_step)(p, group)
        return loss

    def _orthogonal_step(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - group["momentum"])
        assert p.grad is not None
        ahead = p.grad.lerp(state["momentum"], group["momentum"])
        update = orthogonalised(ahead.reshape(p.shape[0], -1))
        p.add_(update.view(p.shape), alpha=-group["lr"] * ADAM_RMS * max(update.shape) ** 0.5)

    def _adam_step(self, p: Tensor, group: dict[str, Any]) -> None:
        """Kingma & Ba 2015, algorithm 1."""
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        assert p.grad is not None
        state["step"] += 1
        t = float(state["step"])
        state["exp_avg"].lerp_(p.grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
        denominator = (state["exp_avg_sq"] / (1 - beta2**t)).sqrt_().add_(group["eps"])
        p.addcdiv_(state["exp_avg"], denominator, value=-group["lr"] / (1 - beta1**t))
