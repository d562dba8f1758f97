"""A hierarchical convolutional VAE with top-down inference and a likelihood in sub-images.

The same forward code serves twice. In real mode it trains and scores; after ``to_exact`` every tensor holds whole
numbers in float32 and every operation is exact, which is what the coder needs.
"""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.model.config import VAEConfig
from vaedensity.model.integer_conv import Grid, IntegerConv, IntegerKernel, blocks
from vaedensity.model.latent_model import Gaussian, LatentModel, LogWeight
from vaedensity.model.likelihood import NUMBERS_A_VALUE, pixel_grid
from vaedensity.model.quantisable import Quantisable
from vaedensity.model.sub_images import SubImagePixels

LATENT_UNIT = 4  # latents live on the lattice k / 4 ...
LATENT_HALF = 128  # ... with -128 <= k < 128
MEAN_UNIT = 16.0  # means of latents, in sixteenths
SCALE_UNIT = 8.0  # log2 scales, in eighths of an octave
LOW_LOG2_SCALE, HIGH_LOG2_SCALE = -2.0, 3.0
ACTIVATION_RANGE = 8


class HierarchicalVAE(SubImagePixels, Quantisable, LatentModel):
    """A VAE of images with levels of Gaussian latents from coarse to fine.

    Each level's prior and posterior see the same top-down stream (Sonderby et al. 2016); the finest stream, at half
    resolution, predicts the pixels (``sub_images.py``). Latents of all levels are one row (B, noise_dim), coarse first.

    Parameters
    ----------
    config : VAEConfig
        Sizes of the items and of the network. Initial weights come from torch's common generator.

    Examples
    --------
    >>> from vaedensity.model.config import preset_config
    >>> model = HierarchicalVAE(preset_config("fast", (1, 28, 28), 256))
    >>> x = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    >>> log_likelihood, divergences = model.elbo_terms(x, torch.randn(2, model.noise_dim))
    >>> log_likelihood.shape, [kl.shape for kl in divergences]
    (torch.Size([2]), [torch.Size([2])])
    """

    OUTPUT_LAYERS = ("heads", "prior_heads", "posterior_heads", "start")
    """Where names of parameters begin that are no hidden layer's."""

    stores_floats = True
    """Whether a model file holds the real weights beside the integers."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config, self.start_unit = config, float(config.unit)
        self.latent_shapes = config.latent_shapes()
        self.noise_dim = sum(c * h * w for c, h, w in self.latent_shapes)
        self.uniform_dim = NUMBERS_A_VALUE * config.dims
        unit = float(config.unit)
        self.activation = act = Grid(unit, 0, ACTIVATION_RANGE * config.unit - 1)
        pixel = pixel_grid(config.levels)
        latent = Grid(LATENT_UNIT, -LATENT_HALF, LATENT_HALF - 1)
        widths, depth = config.widths, len(config.latents)

        self.stem = IntegerConv(4 * config.channels, widths[-1], 3, pixel, unit)
        self.up = nn.ModuleList([blocks(config.blocks, w, act) for w in widths])
        self.down = nn.ModuleList(
            [IntegerConv(widths[i + 1], widths[i], 3, act, unit, stride=2) for i in range(depth - 1)]
        )
        _, rows, columns = self.latent_shapes[0]
        self.start = nn.Parameter(torch.zeros(1, widths[0], rows, columns, dtype=torch.float32))
        self.prior_heads, self.posterior_heads = nn.ModuleList(), nn.ModuleList()
        self.from_encoder, self.from_decoder = nn.ModuleList(), nn.ModuleList()
        self.latent_in, self.decoder, self.expand = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, (_, channels) in enumerate(config.latents):
            width = widths[i]
            # Separate heads for mean and log2 scale: each has its own fixed-point unit.
            self.prior_heads.append(self._pair(width, channels))
            self.posterior_heads.append(self._pair(width, channels))
            self.from_encoder.append(IntegerConv(width, width, 3, act, unit))
            self.from_decoder.append(IntegerConv(width, width, 1, act, unit, gain=0.5))
            self.latent_in.append(IntegerConv(channels, width, 3, latent, unit))
            self.decoder.append(blocks(config.blocks, width, act))
            if i + 1 < depth:
                self.expand.append(IntegerConv(width, 4 * widths[i + 1], 1, act, unit))
        self.build_sub_images(config, act, pixel)

    def _pair(self, width: int, channels: int) -> nn.ModuleList:
        return nn.ModuleList(
            [IntegerConv(width, channels, 1, self.activation, u, gain=0.1) for u in (MEAN_UNIT, SCALE_UNIT)]
        )

    # --- the network, piece by piece, in the order in which a decoder meets the pieces ---

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the last row and column until the coarsest factor divides both sides."""
        factor = self.config.latents[0][0]
        right, below = -x.shape[3] % factor, -x.shape[2] % factor
        return F.pad(x, (0, right, 0, below), mode="replicate") if right or below else x

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features of (B,C,H,W) integers, one map per latent level, coarse to fine."""
        e = self.stem(F.pixel_unshuffle(self.pad(self.center_pixels(x)), 2))
        features = []
        for i in reversed(range(len(self.up))):
            e = self.up[i](e)
            features.append(self.from_encoder[i](self.relu(e)))
            if i > 0:
                e = self.down[i - 1](self.relu(e))
        return features[::-1]

    def top(self, batch: int) -> Tensor:
        """The stream before any latent is known."""
        return self.start.expand(batch, -1, -1, -1)

    def prior(self, level: int, h: Tensor) -> Gaussian:
        """p(z) of a level, given the stream ``h`` (B,width,h,w) before it."""
        mean, scale = (head(self.relu(h)) for head in cast(nn.ModuleList, self.prior_heads[level]))
        return Gaussian(mean, self._clamp_scale(scale))

    def posterior(self, level: int, h: Tensor, features: Tensor, prior: Gaussian) -> Gaussian:
        """q(z|x) of a level, relative to the prior (Vahdat & Kautz 2020, section 3.2)."""
        joint = self.relu(features + self.from_decoder[level](self.relu(h)))
        mean, scale = (head(joint) for head in cast(nn.ModuleList, self.posterior_heads[level]))
        return Gaussian(prior.mean + mean, self._clamp_scale(prior.log2_scale + scale))

    def _clamp_scale(self, scale: Tensor) -> Tensor:
        unit = SCALE_UNIT if self.exact else 1.0
        return scale.clamp(LOW_LOG2_SCALE * unit, HIGH_LOG2_SCALE * unit)

    def absorb_latent(self, level: int, h: Tensor, z: Tensor) -> Tensor:
        """The stream once the level's latent is known, upsampled to the next level."""
        h = self.decoder[level](h + self.latent_in[level](z))
        if level + 1 < len(self.latent_shapes):
            h = F.pixel_shuffle(self.expand[level](self.relu(h)), 2)
        return h

    # --- readings of the triple ---

    def split_latents(self, flat: Tensor) -> list[Tensor]:
        """Rows (B, noise_dim) as one (B,C,h,w) per level."""
        sizes = [c * h * w for c, h, w in self.latent_shapes]
        return [part.reshape(-1, *shape) for part, shape in zip(flat.split(sizes, 1), self.latent_shapes)]

    def top_down(self, batch: int, choose: Callable[[int, Tensor, Gaussian], Tensor]) -> Tensor:
        """The stream after the last latent, where ``choose(level, stream, prior)`` gives each level's latent."""
        h = self.top(batch)
        for level in range(len(self.latent_shapes)):
            h = self.absorb_latent(level, h, choose(level, h, self.prior(level, h)))
        return h

    def elbo_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(log p(x|z) (B,), KL per level [(B,)]) in nats, z drawn with ``noise`` (B, noise_dim)."""
        context, eps, divergences = self.encode(x), self.split_latents(noise), []

        def draw(level: int, h: Tensor, prior: Gaussian) -> Tensor:
            posterior = self.posterior(level, h, context[level], prior)
            divergences.append(posterior.kl_from(prior))
            return posterior.sample(eps[level])

        return self.log_likelihood(x, self.top_down(x.shape[0], draw)), divergences

    def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
        eps, log_prior, log_posterior = self.split_latents(noise), [], []

        def draw(level: int, h: Tensor, prior: Gaussian) -> Tensor:
            posterior = self.posterior(level, h, context[level], prior)
            z = posterior.sample(eps[level])
            log_prior.append(prior.log_prob(z))
            log_posterior.append(posterior.log_prob(z))
            return z

        h = self.top_down(x.shape[0], draw)
        return LogWeight(self.log_likelihood(x, h), torch.stack(log_prior).sum(0), torch.stack(log_posterior).sum(0))

    def log_likelihood_under_prior(self, x: Tensor, noise: Tensor) -> Tensor:
        eps = self.split_latents(noise)
        return self.log_likelihood(x, self.top_down(x.shape[0], lambda level, h, prior: prior.sample(eps[level])))

    def posterior_noise(self, context: list[Tensor], latents: Tensor) -> Tensor:
        return self._noise_behind(latents, lambda level, h, p: self.posterior(level, h, context[level], p))

    def prior_noise(self, latents: Tensor) -> Tensor:
        return self._noise_behind(latents, lambda level, h, prior: prior)

    def _noise_behind(self, latents: Tensor, under: Callable[[int, Tensor, Gaussian], Gaussian]) -> Tensor:
        z, noise = self.split_latents(latents), []

        def take(level: int, h: Tensor, prior: Gaussian) -> Tensor:
            noise.append(under(level, h, prior).standardise(z[level]).flatten(1))
            return z[level]

        self.top_down(latents.shape[0], take)
        return torch.cat(noise, 1)

    def simulate(self, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        eps, z = self.split_latents(noise), []

        def draw(level: int, h: Tensor, prior: Gaussian) -> Tensor:
            z.append(prior.sample(eps[level]))
            return z[-1]

        h = self.top_down(noise.shape[0], draw)
        draws = self.split_sub_images(
            uniform.view(-1, self.config.channels * NUMBERS_A_VALUE, *self.config.item_shape[1:])
        )
        x = self.fill_sub_images(h, lambda index, parameters: self.likelihood.sample(parameters, draws[index]))
        return x, torch.cat([part.flatten(1) for part in z], 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The model's picture of items (B,C,H,W): posterior means on every level, then the likelihood's expected (of
        two values: likelier) value, sub-image by sub-image."""
        context = self.encode(x)
        h = self.top_down(x.shape[0], lambda i, h, prior: self.posterior(i, h, context[i], prior).mean)
        return self.fill_sub_images(h, lambda index, parameters: self.likelihood.expect(parameters))

    # --- the exact reading ---

    def largest_stream(self, kernels: Mapping[str, IntegerKernel], start: Tensor) -> float:
        """Every stream is ``start`` plus outputs of different layers."""
        layers = self.integer_convs()
        reach = {
            name: float((kernel.worst_sum(layers[name].grid) * torch.exp2(-kernel.shift.double())).max()) + 0.5
            for name, kernel in kernels.items()
        }
        return sum(reach.values()) + float(start.abs().max())
