"""Discrete distributions by reparameterisation: which of n noisy numbers is the largest.

    p_i = P[argmax_j (mu_j + eps_j) = i] = integral f(y - mu_i) prod_{j != i} F(y - mu_j) dy

for independent noise eps of density f and cumulative distribution F (Su 2022, kexue.fm/archives/9085; for normal noise
also Karpukhin et al. 2022, "EXACT: How to Train Your Accuracy"). Whatever the noise, p adds up to one, keeps the order
of mu, does not change when a constant is added to mu, and is drawn from by a differentiable map of uniform numbers.
"""

from abc import ABC, abstractmethod
from functools import lru_cache
from math import log, log1p, pi, sqrt

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from vaedensity.errors import UsageError


class ArgmaxNoise(ABC):
    """The distribution of the largest of n noisy numbers mu + eps, given the noise's distribution.

    A subclass names the noise; ``mu`` (..., n) is float32 or float64, finite, and each of its rows one distribution.

    Examples
    --------
    >>> mu = torch.tensor([0.0, 1.0, 3.0])
    >>> Exponential().log_probs(mu).exp()
    tensor([0.0238, 0.0665, 0.9097])
    >>> Exponential().sample(mu, torch.rand(1000, 3)).shape
    torch.Size([1000])
    """

    @abstractmethod
    def log_probs(self, mu: Tensor) -> Tensor:
        """log p (...,n) in nats, in the dtype of ``mu``."""

    @abstractmethod
    def quantile(self, uniform: Tensor) -> Tensor:
        """Noise F^-1(u), elementwise, for u in (0, 1)."""

    def noisy(self, mu: Tensor, uniform: Tensor) -> Tensor:
        """mu + eps for ``uniform`` in [0, 1) that broadcasts against ``mu`` (...,n); 0 counts as the least float."""
        limits = torch.finfo(uniform.dtype)
        return mu + self.quantile(uniform.clamp(limits.tiny, 1 - limits.eps / 2))

    def sample(self, mu: Tensor, uniform: Tensor) -> Tensor:
        """Indices (...,) int64 drawn from p with ``uniform`` (...,n), as :meth:`noisy` takes it."""
        return self.noisy(mu, uniform).argmax(-1)

    def relaxed(self, mu: Tensor, uniform: Tensor, temperature: float) -> Tensor:
        """softmax((mu + eps) / temperature) (...,n): differentiable in ``mu``, one-hot draws of p as the temperature
        goes to 0 (for Gumbel noise Jang et al. 2017, eq. 2; Maddison et al. 2017, eq. 10). Raises UsageError unless it
        is above 0."""
        if not temperature > 0:
            raise UsageError(f"found a temperature of {temperature}; expected more than 0")
        return torch.softmax(self.noisy(mu, uniform) / temperature, -1)


class Gumbel(ArgmaxNoise):
    """F(x) = exp(-exp(-x)): p = softmax(mu), a closed form."""

    def log_probs(self, mu: Tensor) -> Tensor:
        return torch.log_softmax(-_gaps(mu), -1)

    def quantile(self, uniform: Tensor) -> Tensor:
        return -torch.log(-torch.log(uniform))


class Exponential(ArgmaxNoise):
    """F(x) = 1 - exp(-x), x >= 0. With y = max mu - log s and w_j = exp(mu_j - max mu),

        p_i = w_i integral_0^1 prod_{j != i} (1 - w_j s) ds,

    a polynomial of degree n - 1, which ceil(n / 2) Gauss-Legendre nodes integrate exactly. Memory: n * n / 2 a row.
    """

    def log_probs(self, mu: Tensor) -> Tensor:
        gaps = _gaps(mu)
        s, weight = _gauss_legendre((mu.shape[-1] + 1) // 2, mu)
        log_factor = torch.log1p(-torch.exp(-gaps)[..., None] * s)  # (...,n,nodes)
        log_others = log_factor.sum(-2, keepdim=True) - log_factor
        return torch.log_softmax(torch.logsumexp(weight.log() + log_others, -1) - gaps, -1)

    def quantile(self, uniform: Tensor) -> Tensor:
        return -torch.log1p(-uniform)


class Normal(ArgmaxNoise):
    """F = Phi, by the trapezoid rule, which for integrands as smooth as these errs by rounding alone once its step
    is small enough (Trefethen and Weideman 2014). For two entries p_1 = Phi((mu_1 - mu_2) / sqrt 2).

    This step suits n up to 256 (error 1e-10 at n = 4096), and the nodes hold every p above 1e-270; below that, log p
    stays finite and ordered, but errs downwards. Differences above 10^6 count as 10^6. Memory: 337 n a row.
    """

    STEP, LOWEST, HIGHEST, WIDEST_GAP = 0.125, -32.0, 10.0, 1e6

    def log_probs(self, mu: Tensor) -> Tensor:
        gaps = _gaps(mu).clamp(max=self.WIDEST_GAP)
        nodes = torch.arange(self.LOWEST, self.HIGHEST + self.STEP, self.STEP, dtype=mu.dtype, device=mu.device)
        x = nodes + gaps[..., None]  # y - mu_i, with y counted from the largest mu
        log_below = torch.special.log_ndtr(x)
        log_others = log_below.sum(-2, keepdim=True) - log_below
        log_integral = torch.logsumexp(log_others - 0.5 * x.square(), -1) + log(self.STEP / sqrt(2 * pi))
        return torch.log_softmax(log_integral, -1)

    def quantile(self, uniform: Tensor) -> Tensor:
        noise: Tensor = torch.special.ndtri(uniform)
        return noise


class Uniform(ArgmaxNoise):
    """Uniform on an interval of length 1, here [-1/2, 1/2]. With g_j = max mu - mu_j,

        p_i = integral_0^(1 - g_i) prod_{j != i} min(1, s + g_j) ds,  exactly 0 where g_i >= 1:

    between two neighbours among the breakpoints 1 - g_j a polynomial of degree below n, integrated exactly. A zero, or
    a p too small for the dtype, is log p = -inf with zero gradient; see :func:`floored`. Memory: n^3 / 2 a row.
    """

    def log_probs(self, mu: Tensor) -> Tensor:
        gaps = _gaps(mu)
        s, weight = _gauss_legendre((mu.shape[-1] + 1) // 2, mu)
        right, order = (1 - gaps).clamp(min=0).sort(-1)
        left = torch.cat([torch.zeros_like(right[..., :1]), right[..., :-1]], -1)
        width = (right - left)[..., None]
        y = (left[..., None] + width * s)[..., None, :, :]  # (...,1,pieces,nodes)
        log_factor = (y + gaps[..., None, None]).clamp(torch.finfo(mu.dtype).tiny, 1).log()
        others = (log_factor.sum(-3, keepdim=True) - log_factor).exp()
        # An entry's pieces by rank, not by position: pieces that ties leave empty still carry its gradient.
        piece = torch.arange(mu.shape[-1], device=mu.device)
        below_own_end = (piece <= order.argsort(-1)[..., None])[..., None]
        p = (others * (width * weight)[..., None, :, :] * below_own_end).sum((-2, -1))
        log_p = p.where(p > 0, 1.0).log() - p.sum(-1, keepdim=True).log()
        return log_p.where(p > 0, -torch.inf)

    def quantile(self, uniform: Tensor) -> Tensor:
        return uniform - 0.5


def floored(log_p: Tensor, floor: float) -> Tensor:
    """log((1 - floor) p + floor / n): no entry below floor / n, so that every symbol can be coded.

    It adds at most -log(1 - floor) nats to any symbol's cost.

    Parameters
    ----------
    log_p : Tensor, shape (..., n)
        In nats; may be -inf.
    floor : float
        Between 0 and 1.

    Raises
    ------
    UsageError
        For a floor out of range.

    Examples
    --------
    >>> floored(torch.tensor([1.0, 0.0]).log(), 0.2).exp()
    tensor([0.9000, 0.1000])
    """
    if not 0 < floor < 1:
        raise UsageError(f"found a floor of {floor}; expected a number between 0 and 1")
    return torch.logaddexp(log_p + log1p(-floor), torch.full_like(log_p, log(floor / log_p.shape[-1])))


def _gaps(mu: Tensor) -> Tensor:
    """max mu - mu (...,n): 0 for the largest."""
    if mu.dtype not in (torch.float32, torch.float64) or mu.ndim < 1 or mu.shape[-1] == 0:
        raise UsageError(f"found numbers of {mu.dtype}, shape {tuple(mu.shape)}; expected float32 or float64 (..., n)")
    return mu.amax(-1, keepdim=True) - mu


@lru_cache(maxsize=64)
def _rule(nodes: int) -> tuple[Tensor, Tensor]:
    x, weight = leggauss(nodes)
    return torch.from_numpy(np.ascontiguousarray(0.5 + 0.5 * x)), torch.from_numpy(0.5 * weight)


def _gauss_legendre(nodes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights (nodes,) on [0, 1], exact for polynomials of degree 2 nodes - 1."""
    x, weight = _rule(nodes)
    return x.to(like), weight.to(like)
