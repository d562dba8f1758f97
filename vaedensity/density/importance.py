"""Importance sampling of log p(x) with q(z|x) as proposal (Burda et al. 2016, "Importance weighted autoencoders")."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vaedensity.density.estimate import Estimate, Kind
from vaedensity.density.estimator import Draws, ItemNoise, Sampler, TwoSided, gather
from vaedensity.density.weights import Rows, WeightSums
from vaedensity.errors import UsageError
from vaedensity.model.latent_model import LatentModel


@dataclass(frozen=True)
class ImportanceSampling(TwoSided):
    """log p(x) by importance sampling from the encoder's posterior (Burda et al. 2016, eq. 8).

        log p_K(x) = log (1/K) sum_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    In expectation a lower bound of log p(x) that rises with K (theorem 1); K = 1 is the ELBO.

    Parameters
    ----------
    samples : int
        K, at least 1.

    Raises
    ------
    UsageError
        For another number of samples.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-3:]
    >>> elbo = vd.score("digits", x, estimator=ImportanceSampling(samples=1))
    >>> bool((elbo.log_prob_nats == elbo.elbo_nats).all())
    True
    """

    samples: int = 64
    name: ClassVar[str] = "importance"
    kind = Kind.LOWER_BOUND

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise UsageError(f"importance: found {self.samples} samples, expected a whole number from 1 on")

    def sampler(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Sampler:
        with torch.inference_mode():
            return PosteriorDraws(model, x, noise)

    @torch.inference_mode()
    def upper(
        self, model: LatentModel, x: Tensor, latents: Tensor, noise: list[ItemNoise], batch_size: int
    ) -> Estimate:
        """An upper bound in expectation: the exact draw takes the place of one of the K.

        With z_1 ~ p(z|x) and z_2..z_K ~ q(z|x) the density of all K is that of K proposals times p_K(x) / p(x). So
        E[log p_K(x)] - log p(x) is a Kullback-Leibler divergence and not negative (Domke & Sheldon 2018; Sobolev &
        Vetrov 2019).
        """
        weights = WeightSums(len(x), self.samples, Kind.UPPER_BOUND)
        rows = np.arange(len(x))
        context = model.encode(x)
        exact = model.log_weight(x, context, model.posterior_noise(context, latents)).total
        first = exact.double().cpu().numpy()[:, None]
        weights.add(rows, first, np.full_like(first, np.nan))
        if self.samples > 1:
            gather(PosteriorDraws(model, x, noise, "upper"), weights, rows, self.samples - 1, batch_size)
        return weights.estimate().as_upper_bound()


class PosteriorDraws:
    """Log-weights of draws from q(z|x). The encoder runs once per item."""

    def __init__(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], purpose: str = "posterior"):
        self.model, self.x = model, x
        self.context = model.encode(x)
        self.streams = [source.stream(purpose) for source in noise]

    @torch.inference_mode()
    def __call__(self, rows: Rows, k: int) -> Draws:
        draws = np.stack([self.streams[i].standard_normal((k, self.model.noise_dim), np.float32) for i in rows])
        eps = torch.from_numpy(draws).to(self.x.device).flatten(0, 1)
        x, *context = repeat([self.x, *self.context], rows, k)
        total = self.model.log_weight(x, context, eps).total
        log_weights = total.double().view(len(rows), k).cpu().numpy()
        return Draws(log_weights, log_weights)


def repeat(tensors: list[Tensor], rows: Rows, k: int) -> Iterator[Tensor]:
    """Each tensor's ``rows``, each of them k times in a row."""
    index = torch.from_numpy(np.repeat(rows, k))
    for tensor in tensors:
        yield tensor[index.to(tensor.device)]
