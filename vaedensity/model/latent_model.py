"""The triple that everything reads, prior, posterior and likelihood; and the Gaussians of its latents."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaedensity.units import LN2

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """A diagonal Gaussian N(mean, 2^log2_scale); both tensors have the latent's shape (B, ...).

    >>> unit = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    >>> Gaussian(torch.ones(1, 2), torch.zeros(1, 2)).kl_from(unit)
    tensor([1.])
    """

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
        """KL(self || prior) in nats per item (B,), in closed form (Kingma & Welling 2014, appendix B)."""
        ratio = torch.exp2(2 * (self.log2_scale - prior.log2_scale))
        shift = ((self.mean - prior.mean) * torch.exp2(-prior.log2_scale)).square()
        nats = 0.5 * (ratio + shift - 1) + LN2 * (prior.log2_scale - self.log2_scale)
        return nats.flatten(1).sum(1)


class LogWeight(NamedTuple):
    """The terms of an importance weight in nats, each (B,): log p(x|z), log p(z), log q(z|x)."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor

    @property
    def total(self) -> Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x)  (Burda et al. 2016, eq. 7)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


class LatentModel(nn.Module, ABC):
    """A model p(x|z) p(z) of integer items with an inference distribution q(z|x).

    The log-weight log w = log p(x|z) + log p(z) - log q(z|x) has three readings: averaged it trains (the ELBO),
    log-mean-exponentiated it scores (importance sampling), negated in bits it is what one bits-back push costs.

    A subclass gives the methods below; estimators (``vaedensity.density``) know no more of a model. Items are integers
    (B, C, H, W), latents of all levels one row (B, noise_dim), and all randomness is passed in as numbers.
    """

    noise_dim: int
    """Standard normal variables that one sample of all latents consumes."""

    uniform_dim: int
    """Uniform variables that drawing one item from its likelihood consumes."""

    def look_at(self, items: NDArray[np.uint8]) -> None:
        """Set, before training, what follows from the ``items`` to be fitted alone; nothing by default."""

    @abstractmethod
    def encode(self, x: Tensor) -> Any:
        """What q(z|x) needs to know of ``x`` (B,C,H,W), computed once per item: tensors with leading dimension B."""

    @abstractmethod
    def log_weight(self, x: Tensor, context: Any, noise: Tensor) -> LogWeight:
        """Draw z ~ q(z|x) from standard normal ``noise`` (B, noise_dim) and weigh it."""

    @abstractmethod
    def simulate(self, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draw z ~ p(z) from standard normal ``noise`` (B, noise_dim) and x ~ p(x|z) from ``uniform`` (B, uniform_dim)
        in (0, 1): items (B,C,H,W) and latents (B, noise_dim), which are an exact draw from p(z|x) for these items."""

    @abstractmethod
    def posterior_noise(self, context: Any, latents: Tensor) -> Tensor:
        """The noise (B, noise_dim) from which :meth:`log_weight` makes ``latents``."""

    @abstractmethod
    def prior_noise(self, latents: Tensor) -> Tensor:
        """The noise (B, noise_dim) from which :meth:`simulate` makes ``latents``."""

    @abstractmethod
    def log_likelihood_under_prior(self, x: Tensor, noise: Tensor) -> Tensor:
        """log p(x|z) (B,) in nats, z drawn from p(z) with ``noise`` (B, noise_dim); differentiable."""
