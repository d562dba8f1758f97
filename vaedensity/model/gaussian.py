"""Diagonal Gaussians of the latents, scales carried as log2."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaedensity.units import LN2

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """N(mean, 2^log2_scale) elementwise; both tensors of the latent's shape (B,C,h,w)."""

    mean: Tensor
    log2_scale: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw from standard normal ``noise`` (Kingma & Welling 2014)."""
        return self.mean + torch.exp2(self.log2_scale) * noise

    def standardise(self, z: Tensor) -> Tensor:
        """The noise from which :meth:`sample` makes ``z``."""
        return (z - self.mean) * torch.exp2(-self.log2_scale)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, summed over all but the first dimension: (B,)."""
        residual = self.standardise(z)
        return (-0.5 * residual.square() - LN2 * self.log2_scale - HALF_LOG_2PI).flatten(1).sum(1)

    def kl_from(self, prior: "Gaussian") -> Tensor:
        """KL(self || prior) in nats per item, (B,): closed form (Kingma & Welling 2014, app. B)."""
        ratio = torch.exp2(2 * (self.log2_scale - prior.log2_scale))
        shift = ((self.mean - prior.mean) * torch.exp2(-prior.log2_scale)).square()
        nats = 0.5 * (ratio + shift - 1) + LN2 * (prior.log2_scale - self.log2_scale)
        return nats.flatten(1).sum(1)
