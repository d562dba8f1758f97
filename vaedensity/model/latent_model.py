"""The triple that everything reads: prior, posterior, likelihood."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


class LogWeight(NamedTuple):
    """Per-item terms in nats, each (B,): log p(x|z), log p(z), log q(z|x)."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor

    @property
    def total(self) -> Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x)  (Burda et al. 2016, eq. 7)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


class LatentModel(nn.Module, ABC):
    """A model p(x|z) p(z) of integer items with an inference distribution q(z|x).

    The log-weight is the hinge: averaged it trains (the ELBO), log-mean-exponentiated it scores
    (importance sampling), negated in bits it is what one bits-back push costs.
    """

    noise_dim: int
    """Standard normal variables that one sample of all latents consumes."""

    def look_at(self, items: NDArray[np.uint8]) -> None:
        """Set, before training, what follows from the ``items`` to be fitted alone; nothing by default."""

    @abstractmethod
    def encode(self, x: Tensor) -> Any:
        """What q(z|x) needs to know of ``x`` (B,C,H,W integers), computed once per item:
        a list of tensors with leading dimension B."""

    @abstractmethod
    def log_weight(self, x: Tensor, context: Any, noise: Tensor) -> LogWeight:
        """Draw z ~ q(z|x) from standard normal ``noise`` (B, noise_dim) and weigh it."""

    # --- latents of all levels in one row: z (B, noise_dim), coarse to fine ---

    uniform_dim: int
    """Uniform variables that drawing one item from its likelihood consumes."""

    @abstractmethod
    def simulate(self, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draw z ~ p(z) from standard normal ``noise`` (B, noise_dim) and x ~ p(x|z) from ``uniform``
        (B, uniform_dim) in (0, 1): items (B,C,H,W) and latents (B, noise_dim). The latents are an exact draw
        from p(z|x) for these items."""

    @abstractmethod
    def posterior_noise(self, context: Any, latents: Tensor) -> Tensor:
        """The noise (B, noise_dim) from which :meth:`log_weight` makes ``latents``."""

    @abstractmethod
    def prior_noise(self, latents: Tensor) -> Tensor:
        """The noise (B, noise_dim) from which :meth:`simulate` makes ``latents``."""

    @abstractmethod
    def log_likelihood_under_prior(self, x: Tensor, noise: Tensor) -> Tensor:
        """log p(x|z) (B,) in nats, z drawn from p(z) with ``noise`` (B, noise_dim); differentiable."""
