"""Bidirectional Monte Carlo: how wrong is an estimator on this model? (Grosse et al. 2015)

On items drawn from the model itself, the latents that made them are an exact draw from p(z|x). From it follows an upper
bound of log p(x), from the estimator as usual a lower bound; log p(x) lies between.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.density.estimate import Estimate, Floats
from vaedensity.density.estimator import ItemNoise, TwoSided
from vaedensity.model.latent_model import LatentModel


@dataclass(frozen=True)
class BDMCBounds:
    """Bounds of log p(x) from both sides, in expectation, for items that were drawn from the model.

    Attributes
    ----------
    x : (n, ...) ndarray
        The items, as the model takes them.
    lower, upper : Estimate
        The bounds of each item.

    Examples
    --------
    >>> import vaedensity as vd
    >>> bounds = vd.self_test("digits", vd.ImportanceSampling(16), items=4)
    >>> bounds.width_nats.shape, str(bounds.upper.kind)
    ((4,), 'upper bound')
    """

    x: NDArray[np.generic]
    lower: Estimate
    upper: Estimate

    @property
    def width_nats(self) -> Floats:
        """Upper minus lower bound (n,) in nats. Noise can make single ones negative; their mean says how wrong the
        estimator may be."""
        return self.upper.log_prob_nats - self.lower.log_prob_nats

    @property
    def mean_width_nats(self) -> float:
        """Mean width over the items."""
        return float(self.width_nats.mean())

    @property
    def standard_error_nats(self) -> float:
        """Standard error of the mean width over items, their differences included; NaN for one item."""
        n = len(self.width_nats)
        return float(self.width_nats.std(ddof=1) / n**0.5) if n > 1 else float("nan")


def simulate(
    model: LatentModel, n: int, *, model_sha256: str = "", seed: int = 0, first: int = 0
) -> tuple[Tensor, Tensor, list[ItemNoise]]:
    """Draw items ``first`` to ``first`` + n - 1 of the model's own stream; item i does not depend on the two numbers.

    Returns
    -------
    x : (n, ...) Tensor
        The items.
    latents : (n, noise_dim) Tensor
        What they were made from: exact draws from p(z|x).
    noise : list of ItemNoise
        Each item's randomness, for what is drawn next.
    """
    p = next(model.parameters(), torch.zeros(()))
    sources = [ItemNoise(model_sha256, seed, np.array(first + i)) for i in range(n)]
    streams = [source.stream("simulate") for source in sources]
    noise = np.stack([g.standard_normal(model.noise_dim, np.float32) for g in streams])
    uniform = np.stack([g.random(model.uniform_dim) for g in streams]).clip(1e-12, 1 - 1e-12)
    with torch.no_grad():
        x, latents = model.simulate(
            torch.from_numpy(noise).to(p.device, p.dtype), torch.from_numpy(uniform).to(p.device, torch.float64)
        )
    return x, latents, sources


def bdmc_bounds(
    model: LatentModel,
    estimator: TwoSided,
    n: int,
    *,
    model_sha256: str = "",
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int], None] = lambda n: None,
) -> BDMCBounds:
    """Both bounds on ``n`` items drawn from the model (Grosse et al. 2015, section 4).

    :func:`vaedensity.self_test` does the same for model files, and explains the options.
    """
    per_pass = max(1, batch_size // estimator.samples)
    items, lower, upper = [], [], []
    for first in range(0, n, per_pass):
        x, latents, noise = simulate(model, min(per_pass, n - first), model_sha256=model_sha256, seed=seed, first=first)
        items.append(x.cpu().numpy())
        lower.append(estimator.estimate(model, x, noise, batch_size))
        upper.append(estimator.upper(model, x, latents, noise, batch_size))
        progress(len(x))
    return BDMCBounds(np.concatenate(items), Estimate.concatenate(lower), Estimate.concatenate(upper))
