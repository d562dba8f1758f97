"""Muon: momentum made orthogonal for hidden layers, Adam for everything else."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
ADAM_RMS = 0.2  # what Adam's steps measure, root mean square, at rate 1


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, nearly: U V^T for M = U S V^T.

    Five rounds of a quintic Newton-Schulz iteration, x <- a x + (b x x^T + c (x x^T)^2) x from x = M / ||M||, whose
    coefficients were chosen for speed, not for convergence to 1 (Jordan et al. 2024, "Muon: An optimizer for hidden
    layers in neural networks").

    Parameters
    ----------
    matrix : Tensor, shape (m, n)

    Returns
    -------
    Tensor, shape (m, n)
        Its singular values lie between about 0.7 and 1.2.

    Examples
    --------
    >>> orthogonalised(torch.tensor([[9.0, 0.0], [0.0, 9.0]])).diagonal()
    tensor([1.1081, 1.1081])
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def split_matrices(groups: list[dict[str, Any]], outputs: Collection[str] = ()) -> list[dict[str, Any]]:
    """Groups for :class:`Muon`: each is cut into weights of hidden layers, marked ``orthogonal``, and the rest.

    A weight is a parameter of at least two dimensions greater than 1 that belongs to no output layer: rows of an
    output layer mean different things, and making them orthogonal would mix their scales.

    Parameters
    ----------
    groups : list of dict
        Parameter groups with ``params`` and ``names``, as ``param_groups`` makes them.
    outputs : collection of str
        Where the names of output layers begin.

    Returns
    -------
    list of dict
        The groups that are not empty.

    Examples
    --------
    >>> net = torch.nn.Linear(3, 2)
    >>> groups = split_matrices([{"params": list(net.parameters()), "names": ["weight", "bias"]}])
    >>> [(g["names"], g["orthogonal"]) for g in groups]
    [(['weight'], True), (['bias'], False)]
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
    """Steps along momentum made orthogonal, for weights of hidden layers; Adam's steps for all else.

    In groups marked ``orthogonal``, for a weight of m rows and n columns (Jordan et al. 2024; the last factor Liu et
    al. 2025, "Muon is scalable for LLM training", eq. 4):

        M     <- momentum * M + (1 - momentum) * g
        O      = orthogonalised((1 - momentum) * g + momentum * M)
        theta <- theta - lr * 0.2 sqrt(max(m, n)) * O

    The last factor gives steps the root mean square of Adam's, so one learning rate serves both. A convolution's
    weight (O,I,h,w) counts as a matrix (O, I h w).

    Parameters
    ----------
    params : iterable of parameters or of groups
        Groups from :func:`split_matrices`; without the mark a group gets Adam's steps.
    lr : float
        At least 0.
    momentum : float
        Nesterov's, from 0 to below 1.
    betas, eps : pair of float, float
        Adam's.

    Raises
    ------
    ValueError
        For an option out of range.
    RuntimeError
        For sparse gradients.

    Examples
    --------
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
        assert p.grad is not None
        state["momentum"].lerp_(p.grad, 1 - group["momentum"])
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
