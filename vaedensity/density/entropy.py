"""Powers of a distribution with a given entropy (Su 2021, "Entropy Normalization", kexue.fm/archives/8829).

    q_i = p_i^gamma / sum_j p_j^gamma,   dH(q) / d log gamma = -Var_q(log q)

The entropy falls as gamma climbs, from log s at 0 (s: entries that are not zero) to log m at infinity (m: entries
that share the maximum), so every entropy between has one gamma. The root is sought in t = log gamma, between two
bounds that hold for every p. Newton's method by itself, as in the source, leaves for infinity on many inputs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vaedensity.errors import UsageError

TOLERANCE = 1e-13  # nats
MOST_STEPS = 300  # every third step halves a bracket of at most about 1500, so it is never used up


def power_entropy(log_weights: Tensor, exponent: Tensor) -> Tensor:
    """Entropy (B,) in nats of the distributions proportional to w^exponent, for log w (B,n), exponent (B,)."""
    log_p = torch.log_softmax(exponent[:, None] * log_weights, 1)
    entropy: Tensor = torch.special.entr(log_p.exp()).sum(1)
    return entropy


def exponent_for_entropy(log_weights: Tensor, entropy: Tensor, highest: Tensor) -> Tensor:
    """The exponents (B,) in [0, highest] at which w^exponent, normalised, has the given entropy in nats.

    ``log_weights`` (B,n) float64, finite; ``entropy`` (B,) below log n; ``highest`` (B,). Where even
    ``highest`` leaves more entropy, ``highest`` it is.
    """
    return torch.minimum(_log_exponent(_gaps(log_weights), entropy).exp(), highest)


def normalise_entropy(log_p: Tensor, entropy: Tensor | float) -> Tensor:
    """The power of a distribution that has the given entropy.

    Differentiable once in both arguments, by the implicit function theorem. Zeros, and rows at a limit, have zero
    gradient.

    Parameters
    ----------
    log_p : (..., n) float Tensor
        Log-probabilities in nats, normalised or not; -inf is a probability of zero and stays one.
    entropy : float or Tensor
        In nats: one number, or a tensor that broadcasts to (...,).

    Returns
    -------
    (..., n) Tensor
        Log-probabilities of ``log_p``'s dtype, computed in float64; the entropy is met to 1e-10 nats. Where no power
        has it, the limit: at most log m gives the uniform distribution over the m largest entries (equal to the bit),
        at least log s the uniform distribution over the s entries that are not zero.

    Raises
    ------
    UsageError
        For NaN, for +inf in ``log_p`` and for a row without any probability.

    Examples
    --------
    >>> p = torch.tensor([0.7, 0.2, 0.1])
    >>> normalise_entropy(p.log(), 1.0).exp()
    tensor([0.5408, 0.2726, 0.1866])
    """
    if not log_p.is_floating_point() or log_p.ndim < 1:
        raise UsageError(
            f"found log-probabilities of {log_p.dtype}, shape {tuple(log_p.shape)}; expected floats (..., n)"
        )
    target = torch.as_tensor(entropy, dtype=torch.float64, device=log_p.device)
    if bool(target.isnan().any()) or bool(log_p.isnan().any()):
        raise UsageError("found NaN among the log-probabilities or entropies; expected numbers")
    if log_p.shape[-1] == 0 or not bool((log_p.amax(-1).abs() < torch.inf).all()):
        raise UsageError(
            "found a row of log-probabilities whose largest is not finite; expected a finite one in each row"
        )
    powered: Tensor = _NormaliseEntropy.apply(log_p, target.expand(log_p.shape[:-1]))
    return powered


def scale_entropy(log_p: Tensor, fraction: float) -> Tensor:
    """The power of a distribution that has a fraction of its own entropy: below 1 sharper, above 1 flatter.

    Parameters
    ----------
    log_p : (..., n) float Tensor
        As for :func:`normalise_entropy`.
    fraction : float
        At least 0. At 0 only the likeliest entry is left. Where no power has so much entropy, the result is uniform
        over the entries that are not zero.

    Returns
    -------
    (..., n) Tensor
        Log-probabilities in nats.

    Raises
    ------
    UsageError
        For another fraction, and as :func:`normalise_entropy`.

    Examples
    --------
    >>> p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    >>> half, whole = (torch.special.entr(q).sum() for q in (scale_entropy(p.log(), 0.5).exp(), p))
    >>> round(float(half / whole), 9)
    0.5
    """
    if not 0 <= fraction < float("inf"):
        raise UsageError(f"found an entropy fraction of {fraction}; expected a number of at least 0")
    own = torch.special.entr(torch.log_softmax(log_p.double(), -1).exp()).sum(-1)
    return normalise_entropy(log_p, fraction * own)


class _NormaliseEntropy(torch.autograd.Function):
    """With c = log q - E_q[log q] and V = E_q[c^2], a change of p and of the wanted entropy H gives

    d t = -(dH + gamma E_q[c d log p]) / V,    d log q_i = c_i d t + gamma (d log p_i - E_q[d log p]).
    """

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, entropy: Tensor) -> Tensor:
        gaps = _gaps(log_p)
        t = _log_exponent(gaps, entropy)
        log_q = _powered(gaps, t)
        ctx.save_for_backward(log_q, t)
        ctx.dtype = log_p.dtype
        return log_q.to(log_p.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        log_q, t = ctx.saved_tensors
        g = gradients[0].double().where(log_q > -torch.inf, 0.0)
        q, (_, c, variance) = log_q.exp(), _moments(log_q)
        movable = t.isfinite() & (variance > 0)
        along = ((g * c).sum(-1) / variance).where(movable, 0.0)
        gamma = t.exp().clamp(max=torch.finfo(torch.float64).max).where(movable, 0.0)
        pull = g - q * (g.sum(-1, keepdim=True) + along[..., None] * c)
        return (gamma[..., None] * pull).to(ctx.dtype), -along


def _gaps(log_p: Tensor) -> Tensor:
    """How far each entry (...,n) lies below its row's largest: 0 for that one, inf for zeros; float64."""
    log_p = log_p.double()
    return log_p.amax(-1, keepdim=True) - log_p


def _powered(gaps: Tensor, t: Tensor) -> Tensor:
    """log q (...,n) at gamma = e^t. Two products, because e^t itself may be too large for a float."""
    half = torch.exp(0.5 * t)[..., None]
    ordinary = (gaps > 0) & (gaps < torch.inf)  # the others do not move, even where gamma is 0 or inf
    return torch.log_softmax(-(gaps * half * half).where(ordinary, gaps), -1)


def _moments(log_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy (...,) of q, log q - E_q[log q] (...,n), and its variance (...,); zeros take no part."""
    q = log_q.exp()
    entropy = torch.special.entr(q).sum(-1)
    centred = (log_q + entropy[..., None]).where(log_q > -torch.inf, 0.0)
    return entropy, centred, (q * centred.square()).sum(-1)


def _log_exponent(gaps: Tensor, entropy: Tensor) -> Tensor:
    """t = log gamma (...,), -inf to inf, for ``gaps`` (...,n) and ``entropy`` (...,); infinite at the limits."""
    ties, support = (gaps == 0).sum(-1).double(), (gaps < torch.inf).sum(-1).double()
    floor, ceiling = ties.log(), support.log()
    t = torch.full_like(floor, torch.inf).where(entropy <= floor, -torch.inf)
    inside = (entropy > floor) & (entropy < ceiling)
    if bool(inside.any()):
        t[inside] = _root(gaps[inside], entropy[inside], ties[inside], support[inside])
    return t


def _root(gaps: Tensor, entropy: Tensor, ties: Tensor, support: Tensor) -> Tensor:
    """t (R,) for rows (R,n) whose entropy lies inside: Newton's method kept between two bounds.

    With D the widest gap that is not infinite, log s - H = KL(q, uniform) <= (gamma D)^2 / 8 (Hoeffding's lemma). With
    d the narrowest gap that is not 0 and x = gamma d, the entries below the maximum have a mass of at most
    (s - m) e^-x, so H - log m <= (s - m) (1 + x) e^-x <= 1.2131 (s - m) e^(-x/2).
    """
    widest = gaps.where(gaps < torch.inf, 0.0).amax(-1)
    narrowest = gaps.where(gaps > 0, torch.inf).amin(-1)
    low = 0.5 * torch.log(8 * (support.log() - entropy)) - widest.log()
    high = torch.log(2 * torch.log(1.2131 * (support - ties) / (entropy - ties.log()))) - narrowest.log()
    t = 0.5 * (low + high)
    for step in range(MOST_STEPS):
        reached, _, variance = _moments(_powered(gaps, t))
        excess = reached - entropy
        low, high = t.where(excess > 0, low), t.where(excess <= 0, high)
        narrow = high - low <= 4 * torch.finfo(t.dtype).eps * t.abs().clamp(min=1.0)
        found = (excess.abs() <= TOLERANCE) | narrow
        if bool(found.all()):
            break
        newton, middle = t + excess / variance, 0.5 * (low + high)
        trusted = (newton > low) & (newton < high) & (step % 3 < 2)
        t = t.where(found, newton.where(trusted, middle))
    return t
