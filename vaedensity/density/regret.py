"""Likelihood regret: how much better would the ELBO be with a posterior made for this item alone? (Xiao et al. 2020)

The encoder was fitted to normal items; on others it misses by more. In noise coordinates z = T(e; x) (see
density/annealed.py) the item's own posterior is z = T(e'; x) with e' = mu + sigma * e, e ~ N(0, I); mu = 0 and
sigma = 1 give q(z|x) exactly. With one level of latents these are all diagonal Gaussians. With several, each level's
mean and scale move by constants in units of q's scale, and still depend on the levels above. With r the density of e',

    ELBO(mu, sigma) = E_r[ l(e') + log N(e'; 0, I) - log r(e') ],   l = log p(x|z) + log p(z) - log q(z|x)
    log r(mu + sigma * e) = log N(e; 0, I) - sum_d log sigma_d

because z's own Jacobian cancels between p(x, z) and the density of z.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.density.estimate import Floats
from vaedensity.density.estimator import ItemNoise
from vaedensity.density.importance import repeat
from vaedensity.errors import UsageError
from vaedensity.items import plain_array
from vaedensity.model.latent_model import LatentModel
from vaedensity.units import LN2

SMALLEST_GRADIENT = 1e-3
"""Nats per unit of noise; Adam would blow the rounding of latents that do nothing up to full steps."""


@dataclass(frozen=True)
class LikelihoodRegret:
    """ELBO of the item's own posterior minus ELBO of q(z|x) (Xiao et al. 2020, eq. 6), in bits.

    The best posterior's regret is never negative. What is returned is an unbiased measurement for the posterior that
    was found, not clamped: where there is nothing to gain, noise may make it slightly negative.

    Parameters
    ----------
    steps : int
        Steps of Adam (Kingma & Ba 2015) that optimise the item's own posterior.
    rate : float
        Adam's rate in standard deviations of q(z|x); it falls linearly to zero.
    samples : int
        Draws an item and step.
    evaluate : int
        Fresh draws an item that measure the regret, the same for both ELBOs.

    Raises
    ------
    UsageError
        For numbers below 1 and rates that are not positive.

    Examples
    --------
    >>> import vaedensity as vd
    >>> model, digits = vd.load_model("digits").float_model(), vd.load_digits()[-2:, None]
    >>> LikelihoodRegret(steps=3, evaluate=4).score(model, digits).shape
    (2,)
    """

    steps: int = 100
    rate: float = 0.1
    samples: int = 1
    evaluate: int = 16
    name: ClassVar[str] = "regret"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.samples < 1 or self.evaluate < 1 or not self.rate > 0:
            raise UsageError(
                f"regret: found {self.steps} steps of {self.samples} samples at rate {self.rate}, {self.evaluate} to "
                "evaluate; expected at least 1 of each and a rate above 0"
            )

    def score(
        self,
        model: LatentModel,
        items: NDArray[np.generic],
        *,
        model_sha256: str = "",
        seed: int = 0,
        batch_size: int = 256,
        progress: Callable[[int], None] = lambda n: None,
    ) -> Floats:
        """The regret of every item in bits, larger = more anomalous.

        Parameters
        ----------
        model : LatentModel
            Its parameters are not changed.
        items : (N, ...) ndarray
            Items as the model takes them.
        model_sha256, seed
            What the randomness depends on, beside the item's values.
        batch_size : int
            Pairs of item and sample in memory at once.
        progress : callable
            Told after every batch how many items are done.

        Returns
        -------
        (N,) float64
            NaN where an ELBO is undefined. The same for any batch size and order, up to the rounding of float32 sums,
            which the steps let grow.
        """
        items = plain_array(items, "items")
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        per_pass = max(1, batch_size // self.samples)
        regrets = []
        for begin in range(0, len(items), per_pass):
            part = np.ascontiguousarray(items[begin : begin + per_pass])
            noise = [ItemNoise(model_sha256, seed, item) for item in part]
            regrets.append(self.regret_nats(model, torch.from_numpy(part).to(device), noise, batch_size) / LN2)
            progress(len(part))
        return np.concatenate(regrets) if regrets else np.zeros(0)

    def regret_nats(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Floats:
        """Nats (B,) of items ``x`` (B,...), one noise source each."""
        with torch.no_grad():
            context = [part.detach() for part in model.encode(x)]
        amortised = ItemPosterior.amortised(model, x)
        own = self.fit(model, x, context, amortised, noise)
        streams = [source.stream("regret evaluation") for source in noise]
        gained, chunk = np.zeros(len(x)), max(1, min(self.evaluate, batch_size // len(x)))
        for begin in range(0, self.evaluate, chunk):
            eps = _normal(streams, min(chunk, self.evaluate - begin), own.mean)
            with torch.no_grad():
                better, before = (_elbo_terms(model, x, context, p, eps) for p in (own, amortised))
            gained += (better - before).sum(1).cpu().numpy()
        return gained / self.evaluate

    def fit(
        self, model: LatentModel, x: Tensor, context: Any, start: "ItemPosterior", noise: list[ItemNoise]
    ) -> "ItemPosterior":
        """Posteriors of items ``x`` (B,...) with their ELBOs maximised, each on its own: Adam works element by element
        and the items' ELBOs are summed. The model's parameters are not touched."""
        streams = [source.stream("regret") for source in noise]
        posterior = ItemPosterior(*(p.clone().requires_grad_() for p in start))
        adam = torch.optim.Adam(posterior, lr=self.rate, eps=SMALLEST_GRADIENT)
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = self.rate * (1 - step / self.steps)
            eps = _normal(streams, self.samples, posterior.mean)
            with torch.enable_grad():
                loss = -_elbo_terms(model, x, context, posterior, eps, path_only=True).mean(1).sum()
                gradients = torch.autograd.grad(loss, posterior)
            for parameter, gradient in zip(posterior, gradients):
                parameter.grad = gradient
            adam.step()
        return ItemPosterior(*(p.detach() for p in posterior))


class ItemPosterior(NamedTuple):
    """N(mean, exp(log_scale)^2) of each item's noise; both (B, noise_dim)."""

    mean: Tensor
    log_scale: Tensor

    @classmethod
    def amortised(cls, model: LatentModel, x: Tensor) -> "ItemPosterior":
        """q(z|x) itself: N(0, I)."""
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        zero = torch.zeros(len(x), model.noise_dim, dtype=dtype, device=x.device)
        return cls(zero, zero.clone())


def _elbo_terms(
    model: LatentModel, x: Tensor, context: Any, posterior: ItemPosterior, eps: Tensor, path_only: bool = False
) -> Tensor:
    """Terms (B,k) float64 in nats whose expectation over ``eps`` (B,k,D) is each item's ELBO.

    ``path_only`` differentiates log r along e' and not in its own parameters: that part's expected gradient is
    zero, and without it the gradient's noise vanishes where r meets p(z|x) (Roeder et al. 2017).
    """
    items, k, _ = eps.shape
    mean, log_scale = (p[:, None] for p in posterior)
    e = mean + log_scale.exp() * eps
    x, *context = repeat([x, *context], np.arange(items), k)
    log_ratio = model.log_weight(x, context, e.flatten(0, 1)).total.double().view(items, k)
    if path_only:
        mean, log_scale = mean.detach(), log_scale.detach()
    standardised = (e - mean) * (-log_scale).exp()
    # log N(e; 0, I) - log r(e); the two constants cancel.
    log_prior_over_posterior = 0.5 * (standardised.double().square() - e.double().square()) + log_scale.double()
    return log_ratio + log_prior_over_posterior.sum(2)


def _normal(streams: list[np.random.Generator], k: int, like: Tensor) -> Tensor:
    """The next ``k`` rows (B,k,D) of standard normal noise of each stream."""
    draws = np.stack([g.standard_normal((k, like.shape[1]), np.float32) for g in streams])
    return torch.from_numpy(draws).to(like)
