"""Powers of a distribution with a given entropy."""

import torch
from torch import Tensor

ITERATIONS = 60


def power_entropy(log_weights: Tensor, exponent: Tensor) -> Tensor:
    """Entropy (B,) in nats of the distributions proportional to w^exponent, for log w (B,n), exponent (B,)."""
    log_p = torch.log_softmax(exponent[:, None] * log_weights, 1)
    return torch.special.entr(log_p.exp()).sum(1)


def exponent_for_entropy(log_weights: Tensor, entropy: Tensor, highest: Tensor) -> Tensor:
    """The exponents (B,) in [0, highest] at which w^exponent, normalised, has the given entropy in nats.

    ``log_weights`` (B,n) float64, finite; ``entropy`` (B,) below log n; ``highest`` (B,). The entropy does not
    rise with the exponent (its slope is minus the exponent times the variance of log w), so
    bisection always ends; where even ``highest`` leaves more entropy, ``highest`` it is.
    """
    low, high = torch.zeros_like(highest), highest.clone()
    for _ in range(ITERATIONS):
        middle = 0.5 * (low + high)
        enough = power_entropy(log_weights, middle) >= entropy
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.where(power_entropy(log_weights, highest) >= entropy, highest, low)
