"""A hierarchical convolutional VAE with top-down inference and a likelihood in four phases.

Latents go from coarse to fine; each level's prior and posterior see the same top-down stream
(Sonderby et al. 2016). The finest stream, at half resolution, predicts the pixels in four
sub-pixel phases, each seeing the phases before it: four parallel passes, whatever the size.

The same forward code serves twice. In real mode it trains and scores; after ``to_exact`` every
tensor holds whole numbers in float32 and every operation is exact, which is what the coder needs.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.model.config import VAEConfig
from vaedensity.model.gaussian import Gaussian
from vaedensity.model.latent_model import LatentModel, LogWeight
from vaedensity.model.lattice_conv import EXACT_LIMIT, Grid, IntegerKernel, LatticeConv
from vaedensity.model.likelihood import NUMBERS_A_VALUE, likelihood_for
from vaedensity.model.residual import blocks

LATENT_UNIT = 4  # latents live on the lattice k / 4 ...
LATENT_HALF = 128  # ... with -128 <= k < 128
MEAN_UNIT = 16.0  # means of latents, in sixteenths
SCALE_UNIT = 8.0  # log2 scales, in eighths of an octave
LOW_LOG2_SCALE, HIGH_LOG2_SCALE = -2.0, 3.0
ACTIVATION_RANGE = 8
PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # rows and columns of each 2x2 square, in coding order


class HierarchicalVAE(LatentModel):
    """See the module's docstring; sizes come from ``config``."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.likelihood = likelihood_for(config.levels, config.components, config.channels)
        self.latent_shapes = config.latent_shapes()
        self.noise_dim = sum(c * h * w for c, h, w in self.latent_shapes)
        self.uniform_dim = NUMBERS_A_VALUE * config.dims
        self.exact = False
        exponent = getattr(self.likelihood, "exponent", 0)
        self.center = config.levels // 2
        self.pixel_scale = 2.0**-exponent
        unit = float(config.unit)
        self.activation = act = Grid(unit, 0, ACTIVATION_RANGE * config.unit - 1)
        pixel = Grid(2.0**exponent, -self.center, config.levels - 1 - self.center)
        latent = Grid(LATENT_UNIT, -LATENT_HALF, LATENT_HALF - 1)
        widths, depth = config.widths, len(config.latents)

        self.stem = LatticeConv(4 * config.channels, widths[-1], 3, pixel, unit)
        self.up = nn.ModuleList([blocks(config.blocks, w, act) for w in widths])
        self.down = nn.ModuleList(
            [LatticeConv(widths[i + 1], widths[i], 3, act, unit, stride=2) for i in range(depth - 1)]
        )
        _, rows, columns = self.latent_shapes[0]
        self.start = nn.Parameter(torch.zeros(1, widths[0], rows, columns))
        self.prior_heads, self.posterior_heads = nn.ModuleList(), nn.ModuleList()
        self.from_encoder, self.from_decoder = nn.ModuleList(), nn.ModuleList()
        self.latent_in, self.decoder, self.expand = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, (_, channels) in enumerate(config.latents):
            width = widths[i]
            # Separate heads for mean and log2 scale: each has its own fixed-point unit.
            self.prior_heads.append(self._pair(width, channels))
            self.posterior_heads.append(self._pair(width, channels))
            self.from_encoder.append(LatticeConv(width, width, 3, act, unit))
            self.from_decoder.append(LatticeConv(width, width, 1, act, unit, gain=0.5))
            self.latent_in.append(LatticeConv(channels, width, 3, latent, unit))
            self.decoder.append(blocks(config.blocks, width, act))
            if i + 1 < depth:
                self.expand.append(LatticeConv(width, 4 * widths[i + 1], 1, act, unit))
        width = widths[-1]
        outputs = self.likelihood.parameters_per_value
        units = self.likelihood.units()
        self.phase_blocks = nn.ModuleList([blocks(config.phase_blocks, width, act) for _ in PHASES])
        self.pixel_in = nn.ModuleList([LatticeConv(config.channels, width, 3, pixel, unit) for _ in PHASES[1:]])
        self.groups = [(u, units.count(u)) for u in dict.fromkeys(units)] if units == _grouped(units) else None
        assert self.groups is not None, "likelihood units must come in runs"
        self.heads = nn.ModuleList()
        for _ in PHASES:
            heads = nn.ModuleList(
                [LatticeConv(width, n * config.channels, 1, act, u, gain=0.1) for u, n in self.groups]
            )
            self.heads.append(heads)
        bias = torch.tensor(self.likelihood.initial_bias()).repeat_interleave(config.channels)
        with torch.no_grad():
            for heads in self.heads:
                for head, part in zip(heads, bias.split([n * config.channels for _, n in self.groups])):
                    head.bias.copy_(part)
        assert outputs == sum(n for _, n in self.groups)

    def _pair(self, width: int, channels: int) -> nn.ModuleList:
        return nn.ModuleList(
            [LatticeConv(width, channels, 1, self.activation, u, gain=0.1) for u in (MEAN_UNIT, SCALE_UNIT)]
        )

    # --- the network, piece by piece, in the order in which a decoder meets the pieces ---

    def relu(self, h: Tensor) -> Tensor:
        # hardtanh is clamp with a backward pass in one kernel instead of three.
        return F.hardtanh(h, 0, self.activation.high if self.exact else self.activation.high / self.activation.unit)

    def center_pixels(self, x: Tensor) -> Tensor:
        """Integers 0..levels-1 to what the network reads: whole numbers around 0, or their real values."""
        x = x.float() - self.center
        return x if self.exact else x * self.pixel_scale

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
        mean, scale = (head(self.relu(h)) for head in self.prior_heads[level])
        return Gaussian(mean, self._clamp_scale(scale))

    def posterior(self, level: int, h: Tensor, features: Tensor, prior: Gaussian) -> Gaussian:
        """q(z|x), relative to the prior (Vahdat & Kautz 2020, section 3.2)."""
        joint = self.relu(features + self.from_decoder[level](self.relu(h)))
        mean, scale = (head(joint) for head in self.posterior_heads[level])
        return Gaussian(prior.mean + mean, self._clamp_scale(prior.log2_scale + scale))

    def _clamp_scale(self, scale: Tensor) -> Tensor:
        unit = SCALE_UNIT if self.exact else 1.0
        return scale.clamp(LOW_LOG2_SCALE * unit, HIGH_LOG2_SCALE * unit)

    def absorb_latent(self, level: int, h: Tensor, z: Tensor) -> Tensor:
        """The stream once level's latent is known, upsampled to the next level."""
        h = self.decoder[level](h + self.latent_in[level](z))
        if level + 1 < len(self.latent_shapes):
            h = F.pixel_shuffle(self.expand[level](self.relu(h)), 2)
        return h

    def phase(self, index: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """(stream, parameters (B,P,C,h,w)) of pixel phase ``index``."""
        h = self.phase_blocks[index](h)
        parts = []
        with torch.autocast(h.device.type, enabled=False):  # a mean to half a level needs more than bfloat16
            active = self.relu(h.float())
            for head, (_, n) in zip(self.heads[index], self.groups):
                out = head(active)
                parts.append(out.view(out.shape[0], n, self.config.channels, *out.shape[2:]))
        return h, torch.cat(parts, 1)

    def absorb_phase(self, index: int, h: Tensor, x: Tensor) -> Tensor:
        """The stream once the visible integers (B,C,r,c) of phase ``index`` are known."""
        x = self.center_pixels(x)
        below, right = h.shape[2] - x.shape[2], h.shape[3] - x.shape[3]
        if below or right:
            # Padding repeats the phase's own edge: the image's may belong to a phase not known yet.
            mode = "replicate" if x.shape[2] and x.shape[3] else "constant"
            x = F.pad(x, (0, right, 0, below), mode=mode)
        return h + self.pixel_in[index](x)

    def split_phases(self, x: Tensor) -> list[Tensor]:
        """The four phases (B,C,r,c) of items (B,C,H,W)."""
        return [x[:, :, row::2, column::2] for row, column in PHASES]

    def join_phases(self, parts: list[Tensor]) -> Tensor:
        """Undoes :meth:`split_phases`."""
        x = parts[0].new_empty(parts[0].shape[0], *self.config.item_shape)
        for (row, column), part in zip(PHASES, parts):
            x[:, :, row::2, column::2] = part
        return x

    def walk_phases(self, x: Tensor, h: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(parameters (B,P,C,r,c), integers (B,C,r,c)) of every phase, cut to the visible part."""
        parts = self.split_phases(x)
        for index, part in enumerate(parts):
            h, parameters = self.phase(index, h)
            yield parameters[..., : part.shape[2], : part.shape[3]], part
            if index + 1 < len(parts):
                h = self.absorb_phase(index, h, part)

    # --- readings of the triple ---

    def log_likelihood(self, x: Tensor, h: Tensor) -> Tensor:
        """log p(x|z) in nats (B,), given the stream after the last latent."""
        total: Tensor | float = 0.0
        for parameters, part in self.walk_phases(x, h):
            total = total + self.likelihood.log_prob(parameters, part).flatten(1).sum(1)
        assert isinstance(total, Tensor)
        return total

    def split_latents(self, flat: Tensor) -> list[Tensor]:
        """Rows (B, noise_dim) as one (B,C,h,w) per level."""
        sizes = [c * h * w for c, h, w in self.latent_shapes]
        return [part.reshape(-1, *shape) for part, shape in zip(flat.split(sizes, 1), self.latent_shapes)]

    def descend(self, batch: int, choose: Callable[[int, Tensor, Gaussian], Tensor]) -> Tensor:
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

        return self.log_likelihood(x, self.descend(x.shape[0], draw)), divergences

    def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
        eps, log_prior, log_posterior = self.split_latents(noise), [], []

        def draw(level: int, h: Tensor, prior: Gaussian) -> Tensor:
            posterior = self.posterior(level, h, context[level], prior)
            z = posterior.sample(eps[level])
            log_prior.append(prior.log_prob(z))
            log_posterior.append(posterior.log_prob(z))
            return z

        h = self.descend(x.shape[0], draw)
        return LogWeight(self.log_likelihood(x, h), torch.stack(log_prior).sum(0), torch.stack(log_posterior).sum(0))

    def log_likelihood_under_prior(self, x: Tensor, noise: Tensor) -> Tensor:
        eps = self.split_latents(noise)
        return self.log_likelihood(x, self.descend(x.shape[0], lambda level, h, prior: prior.sample(eps[level])))

    def posterior_noise(self, context: list[Tensor], latents: Tensor) -> Tensor:
        return self._noise_behind(latents, lambda level, h, p: self.posterior(level, h, context[level], p))

    def prior_noise(self, latents: Tensor) -> Tensor:
        return self._noise_behind(latents, lambda level, h, prior: prior)

    def _noise_behind(self, latents: Tensor, under: Callable[[int, Tensor, Gaussian], Gaussian]) -> Tensor:
        z, noise = self.split_latents(latents), []

        def take(level: int, h: Tensor, prior: Gaussian) -> Tensor:
            noise.append(under(level, h, prior).standardise(z[level]).flatten(1))
            return z[level]

        self.descend(latents.shape[0], take)
        return torch.cat(noise, 1)

    def simulate(self, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        eps, z = self.split_latents(noise), []

        def draw(level: int, h: Tensor, prior: Gaussian) -> Tensor:
            z.append(prior.sample(eps[level]))
            return z[-1]

        h = self.descend(noise.shape[0], draw)
        draws = self.split_phases(uniform.view(-1, self.config.channels * NUMBERS_A_VALUE, *self.config.item_shape[1:]))
        x = self.fill_phases(h, lambda index, parameters: self.likelihood.sample(parameters, draws[index]))
        return x, torch.cat([part.flatten(1) for part in z], 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The model's picture of items (B,C,H,W): posterior means on every level, then the likelihood's
        expected (of two values: likelier) value, phase by phase."""
        context = self.encode(x)
        h = self.descend(x.shape[0], lambda i, h, prior: self.posterior(i, h, context[i], prior).mean)
        return self.fill_phases(h, lambda index, parameters: self.likelihood.expect(parameters))

    def fill_phases(self, h: Tensor, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Items (B,C,H,W) uint8 whose values ``choose(phase, parameters)`` gives, each seeing those before."""
        template = torch.empty(1, *self.config.item_shape, dtype=torch.uint8)
        parts: list[Tensor] = []
        for index, (_, _, rows, columns) in enumerate(part.shape for part in self.split_phases(template)):
            h, parameters = self.phase(index, h)
            parts.append(choose(index, parameters[..., :rows, :columns]))
            if index + 1 < len(PHASES):
                h = self.absorb_phase(index, h, parts[-1])
        return self.join_phases(parts)

    # --- the exact reading ---

    def lattice_convs(self) -> dict[str, LatticeConv]:
        return {name: module for name, module in self.named_modules() if isinstance(module, LatticeConv)}

    def to_exact(self, kernels: dict[str, IntegerKernel], start: Tensor) -> "HierarchicalVAE":
        """Turn this instance into the integer network given by ``kernels`` and the integer ``start`` map."""
        layers = self.lattice_convs()
        if set(layers) != set(kernels):
            raise ValueError(f"integer network: layers {sorted(set(layers) ^ set(kernels))[:3]} do not match")
        for name, layer in layers.items():
            layer.load_integers(kernels[name], name)
        if start.shape != self.start.shape or int(start.long().abs().max()) >= 2**20:
            raise ValueError("integer network: the start map does not fit")
        # Every stream is a sum of outputs of different layers: their bounds together stay exact too.
        largest = sum(
            float((k.worst_sum(layers[n].grid) * torch.exp2(-k.shift.double())).max()) + 0.5 for n, k in kernels.items()
        )
        if not largest + float(start.abs().max()) < EXACT_LIMIT:
            raise ValueError(f"integer network: a stream can reach {largest:.0f}, the exact limit is 2^24")
        with torch.no_grad():
            self.start.copy_(start.float())
        self.start.requires_grad_(False)
        self.exact = True
        return self.eval()


def _grouped(units: list[float]) -> list[float]:
    return [u for u in dict.fromkeys(units) for _ in range(units.count(u))]
