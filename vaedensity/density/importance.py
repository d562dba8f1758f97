"""Importance sampling of log p(x) with the inference distribution as proposal (Burda et al. 2016)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaedensity.density.estimate import Estimate, WeightSums
from vaedensity.density.estimator import Estimator
from vaedensity.density.noise import ItemNoise
from vaedensity.model.latent_model import LatentModel


@dataclass(frozen=True)
class ImportanceSampling(Estimator):
    """log p_K(x) = log (1/K) sum_k w_k,  w_k = p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x).

    In expectation a lower bound of log p(x) that rises with K = ``samples``; K = 1 is the ELBO.
    """

    samples: int = 64

    @torch.no_grad()
    def estimate(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Estimate:
        context = model.encode(x)
        sums = WeightSums(len(x))
        chunk = max(1, min(self.samples, batch_size // len(x)))
        for begin in range(0, self.samples, chunk):
            k = min(chunk, self.samples - begin)
            draws = np.stack([source.normal(k, model.noise_dim) for source in noise])
            eps = torch.from_numpy(draws).to(x.device).flatten(0, 1)
            repeated = [part.repeat_interleave(k, 0) for part in context]
            weight = model.log_weight(x.repeat_interleave(k, 0), repeated, eps)
            sums.add(weight.total.double().view(len(x), k).cpu().numpy())
        return sums.estimate()
