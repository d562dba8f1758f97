"""The model whose log p(x) is known in closed form."""

import numpy as np
import torch
from torch import Tensor

from vaedensity.model.latent_model import Gaussian, LatentModel, LogWeight

OBSERVED, LATENT, NOISE_SCALE = 30, 5, 0.5


class LinearGaussian(LatentModel):
    """p(z) = N(0, I), p(x|z) = N(W z, s^2 I); q(z|x) has the exact mean plus ``shift`` of its scales, and
    diagonal scales ``widen`` times the exact marginal ones."""

    noise_dim, uniform_dim = LATENT, OBSERVED

    def __init__(self, seed: int = 0, widen: float = 1.3, shift: float = 0.0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(OBSERVED, LATENT, generator=g).double() * 0.5)
        precision = torch.eye(LATENT) + self.weight.T @ self.weight / NOISE_SCALE**2
        self.covariance = torch.linalg.inv(precision).detach()
        scale = self.covariance.diagonal().sqrt()
        self.log2_scale = torch.log2(widen * scale)
        self.shift = shift * scale
        self.marginal = torch.distributions.MultivariateNormal(
            torch.zeros(OBSERVED).double(),
            (self.weight @ self.weight.T + NOISE_SCALE**2 * torch.eye(OBSERVED)).detach(),
        )

    def encode(self, x: Tensor) -> list[Tensor]:
        return [x.double() @ self.weight @ self.covariance.T / NOISE_SCALE**2 + self.shift]

    def posterior(self, context: list[Tensor]) -> Gaussian:
        return Gaussian(context[0], self.log2_scale.expand_as(context[0]))

    def likelihood(self, z: Tensor) -> Gaussian:
        return Gaussian(z @ self.weight.T, torch.full((len(z), OBSERVED), np.log2(NOISE_SCALE)).double())

    def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
        posterior = self.posterior(context)
        z = posterior.sample(noise.double())
        prior = Gaussian(torch.zeros_like(z), torch.zeros_like(z))
        return LogWeight(self.likelihood(z).log_prob(x.double()), prior.log_prob(z), posterior.log_prob(z))

    def log_likelihood_under_prior(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.likelihood(noise.double()).log_prob(x.double())

    def simulate(self, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        return self.likelihood(noise.double()).sample(torch.special.ndtri(uniform)), noise.double()

    def posterior_noise(self, context: list[Tensor], latents: Tensor) -> Tensor:
        return self.posterior(context).standardise(latents)

    def prior_noise(self, latents: Tensor) -> Tensor:
        return latents

    def data(self, n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Items (n, OBSERVED) and their log p (n,)."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            x = self.marginal.sample((n,))
        return x.numpy(), self.marginal.log_prob(x).numpy()
