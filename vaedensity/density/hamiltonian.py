"""Hamiltonian Monte Carlo for many chains at once (Duane et al. 1987; Neal 2011, figure 2)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LogRatio = Callable[[Tensor], Tensor]
"""l(e) in nats (B,) at positions e (B,D); differentiable."""


class Chains(NamedTuple):
    """Positions (B,D) with the log-ratio there (B,) and its gradient (B,D)."""

    position: Tensor
    log_ratio: Tensor
    gradient: Tensor


def evaluate(log_ratio: LogRatio, position: Tensor) -> Chains:
    """Chains at the positions (B,D)."""
    with torch.enable_grad():
        position = position.detach().requires_grad_()
        value = log_ratio(position)
        (gradient,) = torch.autograd.grad(value.sum(), position)
    return Chains(position.detach(), value.detach().double(), gradient)


def transition(
    chains: Chains,
    log_ratio: LogRatio,
    beta: Tensor,
    step: Tensor,
    leapfrog_steps: int,
    momentum: Tensor,
    log_uniform: Tensor,
) -> tuple[Chains, Tensor]:
    """One transition that leaves N(position; 0, I) * exp(beta * log_ratio(position)) invariant (Neal 2011, figure 2).

    Parameters
    ----------
    chains : Chains
        B chains in D dimensions, evaluated under ``log_ratio``.
    log_ratio : callable
    beta, step : (B,) Tensor
        Each chain's inverse temperature and step size.
    leapfrog_steps : int
    momentum : (B, D) Tensor
        Standard normal numbers.
    log_uniform : (B,) Tensor
        Logarithms of uniform numbers; they decide about acceptance.

    Returns
    -------
    chains : Chains
    acceptance : (B,) Tensor
        Their probabilities of acceptance. A trajectory that ends nowhere finite is rejected.

    Examples
    --------
    >>> def flat(e):
    ...     return 0 * e.sum(1)
    >>> one = torch.ones(1)
    >>> _, acceptance = transition(evaluate(flat, torch.zeros(1, 2)), flat, one, 0.1 * one, 3, torch.ones(1, 2), -one)
    >>> bool(acceptance > 0.99)
    True
    """
    beta_, step_ = beta[:, None].to(momentum), step[:, None].to(momentum)

    def force(at: Chains) -> Tensor:
        return beta_ * at.gradient - at.position

    def energy(at: Chains, p: Tensor) -> Tensor:
        return 0.5 * (at.position.double().square().sum(1) + p.double().square().sum(1)) - beta * at.log_ratio

    at, p = chains, momentum
    for _ in range(leapfrog_steps):
        p = p + 0.5 * step_ * force(at)
        at = evaluate(log_ratio, at.position + step_ * p)
        p = p + 0.5 * step_ * force(at)
    drop = energy(chains, momentum) - energy(at, p)
    drop = torch.where(torch.isfinite(drop), drop, -torch.inf)
    accept = log_uniform < drop
    wide = accept[:, None]
    kept = Chains(
        torch.where(wide, at.position, chains.position),
        torch.where(accept, at.log_ratio, chains.log_ratio),
        torch.where(wide, at.gradient, chains.gradient),
    )
    return kept, drop.clamp(max=0).exp()
