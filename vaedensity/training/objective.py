"""What fit minimises: the negative ELBO in bits per dimension."""

from typing import NamedTuple, Protocol

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


def negative_elbo(model: TrainableModel, x: Tensor, noise: Tensor, kl_weight: float) -> Loss:
    """-(E_q log p(x|z) - kl_weight * KL(q || p)) per dimension (Kingma & Welling 2014, eq. 3)."""
    log_likelihood, divergences = model.elbo_terms(x, noise)
    dims = x[0].numel()
    distortion = -log_likelihood.mean() / (dims * LN2)
    rate = sum(d.mean() for d in divergences) / (dims * LN2)
    assert isinstance(rate, Tensor)
    return Loss(distortion + kl_weight * rate, rate, distortion)
