"""What fit minimises: the negative ELBO in bits per dimension."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vaedensity.units import LN2


class Loss(NamedTuple):
    """``value`` to minimise; ``rate`` and ``distortion`` in bits per dimension, for the log."""

    value: Tensor
    rate: Tensor
    distortion: Tensor


class TrainableModel(Protocol):
    """What an objective needs of a model: ``elbo_terms`` as in HierarchicalVAE."""

    def elbo_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]: ...


def negative_elbo(
    model: TrainableModel, x: Tensor, noise: Tensor, kl_weight: float, free_bits_per_dim: float = 0.0
) -> Loss:
    """-(E_q log p(x|z) - kl_weight * KL(q || p)) per dimension (Kingma & Welling 2014, eq. 3).

    With ``free_bits_per_dim`` a level whose mean KL is below it is pushed up to it: free bits after
    Kingma et al. 2016, appendix C.8. While ``kl_weight`` is below 1 that is a push, at 1 it pardons the level's KL.
    """
    log_likelihood, divergences = model.elbo_terms(x, noise)
    unit = x[0].numel() * LN2
    distortion = -log_likelihood.mean() / unit
    rates = [d.mean() / unit for d in divergences]
    rate = sum(rates)
    assert isinstance(rate, Tensor)
    value = distortion + kl_weight * rate
    if free_bits_per_dim > 0:
        value = value + sum(torch.relu(free_bits_per_dim - r) for r in rates)
    return Loss(value, rate, distortion)
