"""The triple that everything reads: prior, posterior, likelihood."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

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

    @abstractmethod
    def encode(self, x: Tensor) -> Any:
        """What q(z|x) needs to know of ``x`` (B,C,H,W integers), computed once per item:
        a list of tensors with leading dimension B."""

    @abstractmethod
    def log_weight(self, x: Tensor, context: Any, noise: Tensor) -> LogWeight:
        """Draw z ~ q(z|x) from standard normal ``noise`` (B, noise_dim) and weigh it."""
