"""A likelihood whose values are drawn from a reshaped distribution: sharpened, flattened, cut."""

from collections.abc import Callable

import torch
from torch import Tensor

from vaedensity.model.likelihood import PixelLikelihood

MOST_VALUES = 1 << 13  # whose distributions are in memory at once
Reshape = Callable[[Tensor], Tensor]
"""Log-probabilities (...,levels) in nats to others of the same shape."""


class Reshaped(PixelLikelihood):
    """``likelihood`` where :meth:`sample` draws every value from ``reshape`` of its distribution. All else is unchanged.

    >>> from vaedensity.model.likelihood import Bernoulli
    >>> coin = Reshaped(Bernoulli(), lambda log_p: torch.log_softmax(2 * log_p, -1))
    >>> coin.log_pmf(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0).exp()
    tensor([[[[0.5000, 0.5000]]]])
    """

    def __init__(self, likelihood: PixelLikelihood, reshape: Reshape):
        self.likelihood, self.reshape, self.levels = likelihood, reshape, likelihood.levels

    def log_pmf(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        """log-probability in nats (B,h,w,levels) of every value of ``channel``, given the channels before it in
        ``x`` (B,C,h,w), under parameters (B,P,C,h,w)."""
        x, masses = x.clone(), []
        for value in range(self.levels):
            x[:, channel] = value
            masses.append(self.likelihood.log_prob(parameters, x)[:, channel])
        return torch.stack(masses, -1)

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """As the likelihood's; a few rows at a time, since every value has ``levels`` probabilities."""
        rows = max(1, MOST_VALUES // max(1, uniform.shape[0] * uniform.shape[3] * (uniform.shape[1] // 2)))
        parts = [
            self._sample_rows(parameters[..., r : r + rows, :], uniform[..., r : r + rows, :])
            for r in range(0, uniform.shape[2], rows)
        ]
        return torch.cat(parts, 2) if parts else torch.zeros_like(uniform[:, ::2]).to(torch.uint8)

    def _sample_rows(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        x = torch.zeros(*uniform.shape[:1], uniform.shape[1] // 2, *uniform.shape[2:], device=uniform.device)
        for channel in range(x.shape[1]):
            log_q = self.reshape(self.log_pmf(parameters, x, channel).double())
            below = log_q.exp().cumsum(-1)[..., :-1]
            x[:, channel] = (uniform[:, channel, ..., None] >= below).sum(-1).float()
        return x.to(torch.uint8)

    def outputs(self, neighbours: int = 0) -> list[tuple[float, list[float]]]:
        return self.likelihood.outputs(neighbours)

    def complete(self, outputs: Tensor, neighbours: Tensor | None, exact: bool) -> Tensor:
        return self.likelihood.complete(outputs, neighbours, exact)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self.likelihood.log_prob(parameters, x)

    def expect(self, parameters: Tensor) -> Tensor:
        return self.likelihood.expect(parameters)
