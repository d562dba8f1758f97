"""A VAE over sequences: categorical latents of a whole series, and a causal gated convolutional likelihood.

As in ``hierarchical.py`` the same forward code serves in real numbers and, after ``to_exact``, in whole ones.
"""

import math
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.errors import UsageError
from vaedensity.model.argmax import ArgmaxNoise, Exponential, Gumbel, Normal, Uniform, floored
from vaedensity.model.decoder_state import DecoderState, context_cells
from vaedensity.model.integer_conv import EXACT_LIMIT, Grid, IntegerKernel, one_hot
from vaedensity.model.integer_sequence import IntegerGatedBlock, SequenceConv, SymbolTable, clamped
from vaedensity.model.latent_model import LatentModel, LogWeight
from vaedensity.model.quantisable import Quantisable
from vaedensity.model.sequence_config import SequenceConfig
from vaedensity.units import LN2

PASS_POSITIONS = 1 << 15  # that go through the network at once, where no gradient is asked for
PATCH = 16  # positions that the inference network takes together
PATCH_WIDTH = 16
ENCODER_DILATIONS = (1, 2, 5)
MOST_OCTAVES = 8.0  # by which a posterior's weights differ from the prior's
LOGIT_UNIT = 16.0  # logits count in sixteenths of an octave
ACTIVATION_RANGE = 8
LOWEST_PROBABILITY = 2.0**-16  # of a category, times their number
TEMPERATURE = 0.67  # of relaxed categories (Maddison et al. 2017, appendix C.4)
NOISES: dict[str, type[ArgmaxNoise]] = {
    "gumbel": Gumbel,
    "exponential": Exponential,
    "normal": Normal,
    "uniform": Uniform,
}


class SequenceVAE(Quantisable, LatentModel):
    """A VAE of series with categorical latents: p(x, z) = prod_i p(z_i) prod_t p(x_t | x_<t, z).

    The likelihood's backbone is the gated convolution of DGCNN (Su 2018), causal. Training and encoding see all
    positions at once; a decoder takes one position of many series at a time (:meth:`steps`).

    Parameters
    ----------
    config : SequenceConfig
        Sizes of the items and of the network. Items are integers (B, 1, 1, T). Initial weights come from torch's
        common generator.

    Examples
    --------
    >>> from vaedensity.model.sequence_config import sequence_config
    >>> model = SequenceVAE(sequence_config("tiny", length=20, levels=4))
    >>> log_likelihood, (kl,) = model.elbo_terms(torch.zeros(2, 1, 1, 20, dtype=torch.uint8), torch.randn(2, 64))
    >>> log_likelihood.shape, kl.shape
    (torch.Size([2]), torch.Size([2]))
    """

    OUTPUT_LAYERS = ("value_table", "context_tables", "patch_table", "head", "latent_in", "posterior_head", "start")
    """Where names of parameters begin that are no hidden layer's."""

    stores_floats = False
    """Whether a model file holds the real weights beside the integers."""

    start_unit = LOGIT_UNIT

    def __init__(self, config: SequenceConfig):
        super().__init__()
        self.config = config
        self.latent_shapes: list[tuple[int, int, int]] = []  # none on a lattice
        self.kinds = config.variables * config.categories
        self.noise_dim = self.kinds
        self.uniform_dim = config.length
        self.reshape: Callable[[Tensor], Tensor] | None = None  # of log p (B,levels), when drawing
        self.noise = NOISES[config.noise]()
        unit, dropout = float(config.unit), config.dropout_percent / 100
        self.activation = act = Grid(unit, -ACTIVATION_RANGE * config.unit, ACTIVATION_RANGE * config.unit - 1)
        self.nothing = config.levels  # the value before the first

        wide = config.encoder_width
        self.patch_table = SymbolTable(config.levels + 1, PATCH_WIDTH, unit)
        self.patch_in = SequenceConv(PATCH * PATCH_WIDTH, wide, 1, act, unit)
        self.encoder = nn.ModuleList(
            [IntegerGatedBlock(wide, r, act, causal=False, dropout=dropout) for r in ENCODER_DILATIONS]
        )
        self.posterior_head = SequenceConv(wide, self.kinds, 1, act, LOGIT_UNIT, gain=0.1)
        # Log2 weights of the prior's categories.
        self.start = nn.Parameter(torch.zeros(1, self.kinds, 1, 1, dtype=torch.float32))

        self.latent_in = SequenceConv(self.kinds, config.width, 1, one_hot(), unit)
        self.value_table = SymbolTable(config.levels + 1, config.width, unit, gain=0.5)
        self.context_tables = nn.ModuleList(
            [SymbolTable(1 << config.context_bits, config.context_width, unit, gain=0.1) for _ in config.contexts]
        )
        self.blocks = nn.ModuleList(
            [IntegerGatedBlock(config.width, r, act, causal=True, dropout=dropout) for r in config.dilations]
        )
        self.head = SequenceConv(config.width, config.levels, 1, act, LOGIT_UNIT, gain=0.1)

    @torch.no_grad()
    def look_at(self, items: NDArray[np.uint8]) -> None:
        """Begin with each value's frequency, which short runs would spend themselves on."""
        counts = np.bincount(items.ravel(), minlength=self.config.levels) + 0.5
        self.head.bias.copy_(torch.from_numpy(np.log2(counts / counts.max())))

    # --- inference: logits (B,kinds) of the posterior, in octaves ---

    def encode(self, x: Tensor) -> list[Tensor]:
        """Log2 weights (B,kinds) of the posterior's categories, up to a constant a latent.

        The network gives them relative to the prior's, as in Vahdat & Kautz 2020, section 3.2.
        """
        values = x.flatten(1).long()
        values = F.pad(values, (0, -values.shape[1] % PATCH), value=self.nothing)
        patches = clamped(self.patch_table(values), self.activation, self.exact).unflatten(1, (-1, PATCH)).flatten(2)
        h = clamped(self.patch_in(patches), self.activation, self.exact)
        for block in self.encoder:
            h = block(h)
        mean = h.double().sum(1).div(h.shape[1]).add(0.5).floor().float() if self.exact else h.float().mean(1)
        with torch.autocast(h.device.type, enabled=False):
            relative = self.posterior_head(mean[:, None])[:, 0]
            most = MOST_OCTAVES * (LOGIT_UNIT if self.exact else 1.0)
            return [self.start.flatten(1) + relative.clamp(-most, most)]

    def _log_posterior(self, context: list[Tensor]) -> Tensor:
        """log q (B,variables,categories) in nats."""
        mu = context[0].float().unflatten(1, (self.config.variables, self.config.categories)) * LN2
        return floored(self.noise.log_probs(mu), LOWEST_PROBABILITY * self.config.categories)

    def _log_prior(self) -> Tensor:
        """log p (variables,categories) in nats."""
        return torch.log_softmax(self.start.view(self.config.variables, self.config.categories) * LN2, 1)

    # --- likelihood ---

    def condition(self, chosen: Tensor) -> Tensor:
        """What latents (B,variables,categories), one-hot, add to every position: (B,1,width)."""
        added: Tensor = self.latent_in(chosen.flatten(1)[:, None])
        return added

    def embed(self, before: Tensor, condition: Tensor) -> Tensor:
        """The stream (B,T,width) before the first block, from the values ``before`` each position (B,T,n), nearest
        first."""
        h = self.value_table(before[..., 0]) + condition
        all_cells = context_cells(before, self.config.contexts, self.config.context_bits)
        for table, cells in zip(self.context_tables, all_cells):
            h = h + F.pad(table(cells), (0, self.config.width - self.config.context_width))
        return clamped(h, self.activation, self.exact)

    def values_before(self, values: Tensor) -> Tensor:
        """(B,T,n) int64: of every position of ``values`` (B,T) the last n before it, nearest first."""
        n = max((1, *self.config.contexts))
        framed = F.pad(values, (n, 0), value=self.nothing)
        return torch.stack([framed[:, n - 1 - j : framed.shape[1] - 1 - j] for j in range(n)], 2)

    def logits(self, values: Tensor, chosen: Tensor) -> Tensor:
        """Log2 weights (B,T,levels) of each value given those before it; int64 ``values`` (B,T)."""
        h = self.embed(self.values_before(values), self.condition(chosen))
        for block in self.blocks:
            h = block(h)
        with torch.autocast(h.device.type, enabled=False):  # bfloat16 is too coarse for a logarithm
            logits: Tensor = self.head(h.float())
            return logits

    def log_likelihood(self, x: Tensor, chosen: Tensor) -> Tensor:
        """log p(x|z) in nats (B,)."""
        if not torch.is_grad_enabled() and x.numel() > PASS_POSITIONS and len(x) > 1:
            size = max(1, PASS_POSITIONS // self.config.length)
            return torch.cat([self.log_likelihood(a, b) for a, b in zip(x.split(size), chosen.split(size))])
        values = x.flatten(1).long()
        logits = self.logits(values, chosen).float() * LN2
        return -F.cross_entropy(logits.flatten(0, 1), values.flatten(), reduction="none").view_as(values).sum(1)

    def steps(self, chosen: Tensor) -> DecoderState:
        """The likelihood of series with latents ``chosen`` (B,variables,categories), one position at a time."""
        return DecoderState(
            self.config,
            self.activation,
            [self.value_table, *cast(list[SymbolTable], list(self.context_tables))],
            cast(list[IntegerGatedBlock], list(self.blocks)),
            self.head,
            self.condition(chosen)[:, 0],
        )

    # --- readings of the triple ---

    def elbo_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(log p(x|z) (B,), [KL (B,)]) in nats, z drawn with ``noise`` (B, noise_dim).

        A category is the greatest of noisy numbers; its gradient is that of the softmax that relaxes the choice (Jang
        et al. 2017, section 2.2, "straight-through").
        """
        context = self.encode(x)
        mu = context[0].float().unflatten(1, (self.config.variables, self.config.categories)) * LN2
        uniform = torch.special.ndtr(noise.double()).float().view_as(mu)
        soft = self.noise.relaxed(mu, uniform, TEMPERATURE)
        hard = F.one_hot(soft.argmax(2), self.config.categories).to(soft.dtype)
        log_q = self._log_posterior(context)
        divergence = (log_q.exp() * (log_q - self._log_prior())).sum((1, 2))
        return self.log_likelihood(x, hard + soft - soft.detach()), [divergence]

    def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
        if noise.requires_grad:
            raise _continuous_only()
        log_q = self._log_posterior(context)
        index = self._draw(log_q, noise)
        pick = index[..., None]
        log_prior = self._log_prior().expand_as(log_q).gather(2, pick).sum((1, 2))
        chosen = F.one_hot(index, self.config.categories).float()
        return LogWeight(self.log_likelihood(x, chosen), log_prior, log_q.gather(2, pick).sum((1, 2)))

    def _draw(self, log_p: Tensor, noise: Tensor) -> Tensor:
        """Categories (B,variables) of log p (B,variables,categories), by the first of each latent's normal numbers."""
        uniform = torch.special.ndtr(noise.double()).view(-1, *log_p.shape[-2:])[..., :1]
        below = log_p.double().exp().cumsum(2)
        index: Tensor = (below[..., :-1] / below[..., -1:] <= uniform).sum(2)
        return index

    def simulate(self, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        log_p = self._log_prior()[None].expand(noise.shape[0], -1, -1)
        index = self._draw(log_p, noise)
        steps = self.steps(F.one_hot(index, self.config.categories).float())
        values = torch.full((noise.shape[0],), self.nothing, device=noise.device)
        out = []
        for t in range(self.config.length):
            log_next = torch.log_softmax(steps.next(values).double() * LN2, 1)
            below = (self.reshape(log_next) if self.reshape else log_next).exp().cumsum(1)
            values = (below[:, :-1] / below[:, -1:] <= uniform[:, t : t + 1]).sum(1)
            out.append(values)
        x = torch.stack(out, 1).to(torch.uint8)[:, None, None]
        return x, self._latents_as_noise(index)

    def _latents_as_noise(self, index: Tensor) -> Tensor:
        return F.one_hot(index, self.config.categories).float().flatten(1)

    def posterior_noise(self, context: list[Tensor], latents: Tensor) -> Tensor:
        raise _continuous_only()

    def prior_noise(self, latents: Tensor) -> Tensor:
        raise _continuous_only()

    def log_likelihood_under_prior(self, x: Tensor, noise: Tensor) -> Tensor:
        raise _continuous_only()

    # --- the exact reading ---

    def largest_stream(self, kernels: Mapping[str, IntegerKernel], start: Tensor) -> float:
        """The stream before the first block is a sum of outputs, one category of each latent among them."""
        layers, latent = self.integer_convs(), kernels["latent_in"]
        picked = latent.weight.double().abs().flatten(2)[..., 0]
        picked = picked.unflatten(1, (self.config.variables, self.config.categories)).amax(2).sum(1)
        sums = {name: kernel.worst_sum(layers[name].grid) for name, kernel in kernels.items()}
        sums["latent_in"] = picked + latent.bias.double().abs()
        if not float(sums["latent_in"].max()) < EXACT_LIMIT:
            raise ValueError("layer latent_in: a sum over latents goes beyond the exact limit, 2^24")
        return math.fsum(
            float((worst * torch.exp2(-kernels[name].shift.double())).max()) + 0.5
            for name, worst in sums.items()
            if name in ("latent_in", "value_table") or name.startswith("context_tables")
        )


def _continuous_only() -> UsageError:
    return UsageError(
        "a sequence model's latents are categories: annealing, regret and self-tests need continuous ones; "
        "use importance or jackknife"
    )
