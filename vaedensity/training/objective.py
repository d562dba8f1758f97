"""What fit minimises: the negative ELBO in bits per dimension."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.model.kinds import Network
from vaedensity.units import LN2


class Loss(NamedTuple):
    """``value`` to minimise; ``rate`` and ``distortion`` in bits per dimension, for the log."""

    value: Tensor
    rate: Tensor
    distortion: Tensor


def negative_elbo(model: Network, x: Tensor, noise: Tensor, kl_weight: float, free_bits_per_dim: float = 0.0) -> Loss:
    """The negative ELBO per dimension, -(E_q log p(x|z) - kl_weight KL(q || p)) (Kingma & Welling 2014, eq. 3).

    Parameters
    ----------
    model : HierarchicalVAE or SequenceVAE
    x : Tensor of integers, shape (B, C, H, W)
    noise : Tensor, shape (B, model.noise_dim)
        Standard normal; one draw of the latents an item.
    kl_weight : float
        Weight of the KL term, 1 for the bound itself.
    free_bits_per_dim : float
        Floor of every level's mean KL, in bits per dimension. What is missing to it is added to the value: free bits
        after Kingma et al. 2016, appendix C.8. With ``kl_weight`` below 1 that pushes the level up, with 1 it no
        longer pushes it down.

    Returns
    -------
    Loss
        Scalars, in bits per dimension.
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


def elbo_bits_per_dim(model: Network, items: NDArray[np.uint8], *, batch_size: int = 256, seed: int = 0) -> float:
    """Mean -ELBO of integers (N,C,H,W) in bits per dimension, with one noise draw an item."""
    device = model.start.device
    generator = torch.Generator(device).manual_seed(seed)
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(items), batch_size):
            x = torch.from_numpy(np.ascontiguousarray(items[begin : begin + batch_size])).to(device)
            noise = torch.randn(len(x), model.noise_dim, generator=generator, dtype=torch.float32, device=device)
            total += float(negative_elbo(model, x, noise, 1.0).value) * len(x)
    return total / len(items)
