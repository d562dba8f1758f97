"""From a trained float model to the integer network that codes: the only bridge.

Weights are rounded as finely as the 2^24 proof permits (``model/integer_conv.py``); what remains to
choose is how finely activations are kept and how coarse the latents of a chain's first items are.
Both are chosen by measurement on training items and stored as integers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaedensity.arithmetic import full_precision
from vaedensity.coding.compiled import fastest_stacks
from vaedensity.coding.latent_table import HALF, STEPS, CoarseGaussian
from vaedensity.coding.sequence import SequenceCodec
from vaedensity.coding.top_down import PASS_VALUES, ItemCodec, TopDownPass, gaussian
from vaedensity.model.config import with_unit
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.integer_conv import IntegerKernel
from vaedensity.model.kinds import Config, Network, outline, to_device, untrained
from vaedensity.model.sequence import SequenceVAE

UNITS = (128, 256)
COARSE_STEPS = tuple(2**i for i in range(9))
AnyItemCodec = ItemCodec | SequenceCodec


@dataclass(frozen=True)
class IntegerNetwork:
    """The exact network that codes.

    Attributes
    ----------
    network : HierarchicalVAE or SequenceVAE
        With whole numbers for weights.
    kernels : dict of str to IntegerKernel
        Its layers' integers by name.
    start : torch.Tensor
        Where the top-down pass begins, int32.
    direct_steps : list of list of int
        Per level and channel, lattice steps of latents coded without bits-back; none where latents are categories.
    """

    network: Network
    kernels: dict[str, IntegerKernel]
    start: Tensor
    direct_steps: list[list[int]]

    @property
    def config(self) -> Config:
        return self.network.config

    @property
    def is_sequence(self) -> bool:
        """Whether items are series, whose latents are categories and no numbers on a lattice."""
        return isinstance(self.network, SequenceVAE)

    def bits_back(self, particles: int = 1, ends_first: bool = False) -> AnyItemCodec:
        """The codec of items on stacks with bits to get back."""
        if isinstance(self.network, SequenceVAE):
            if particles > 1:
                raise ValueError(f"{particles} particles of latents that are categories")
            return SequenceCodec(self.network)
        return ItemCodec(self.network, particles=particles, ends_first=ends_first)

    def direct(self, ends_first: bool = False) -> AnyItemCodec:
        """The codec of items on stacks without."""
        if isinstance(self.network, SequenceVAE):
            return SequenceCodec(self.network, direct=True)
        steps = []
        for (c, h, w), per_channel in zip(self.network.latent_shapes, self.direct_steps):
            steps.append(torch.tensor(per_channel).view(c, 1).expand(c, h * w).reshape(1, -1))
        return ItemCodec(self.network, steps, ends_first=ends_first)


@full_precision()
def build(
    config: Config, kernels: dict[str, IntegerKernel], start: Tensor, direct_steps: list[list[int]]
) -> IntegerNetwork:
    """The integer network of stored integers, every bound proved anew.

    Parameters
    ----------
    config : VAEConfig or SequenceConfig
        With the unit of coding.
    kernels : dict of str to IntegerKernel
        By layer.
    start : torch.Tensor
        Where the top-down pass begins, int32.
    direct_steps : list of list of int
        As of :class:`IntegerNetwork`.

    Raises
    ------
    ValueError
        They do not fit each other, or a sum could reach 2^24.
    """
    shapes = require_layers(config, kernels, start).latent_shapes
    if len(direct_steps) != len(shapes) or any(
        len(steps) != c or any(s not in COARSE_STEPS for s in steps) for steps, (c, _, _) in zip(direct_steps, shapes)
    ):
        raise ValueError("integer network: direct steps do not fit the latents")
    network = untrained(config)
    network.to_exact(kernels, start)
    network = to_device(network, "cpu")
    return IntegerNetwork(network, kernels, start, direct_steps)


def require_layers(config: Config, kernels: dict[str, IntegerKernel], start: Tensor) -> Network:
    """The network of ``config`` without its memory. Raises ValueError unless it is one of just these integers: a
    configuration of a few bytes may ask for gigabytes."""
    network = outline(config)
    layers = network.integer_convs()
    if set(layers) != set(kernels):
        raise ValueError(f"integer network: layers {sorted(set(layers) ^ set(kernels))[:3]} do not match")
    for name, layer in layers.items():
        if kernels[name].weight.shape != layer.weight.shape or kernels[name].bias.shape != layer.bias.shape:
            raise ValueError(f"layer {name}: integer weights of shape {tuple(kernels[name].weight.shape)} do not fit")
    if start.shape != network.start.shape:
        raise ValueError("integer network: the start map does not fit")
    return network


@full_precision()
def quantise(model: Network, calibration: Tensor) -> IntegerNetwork:
    """The integer network of a trained model that codes some items smallest.

    Parameters
    ----------
    model : HierarchicalVAE or SequenceVAE
        With float weights.
    calibration : torch.Tensor
        (N,C,H,W) uint8: training items to measure by.

    Returns
    -------
    IntegerNetwork

    Raises
    ------
    ValueError
        Weights are too large for any unit of activations.
    """
    best, best_bits, refusal = None, math.inf, None
    for unit in UNITS:
        try:
            candidate = _quantise_with_unit(model, unit)
        except ValueError as error:  # weights that a finer unit makes too large may fit a coarser one
            refusal = error
            continue
        bits = coded_bits(candidate, calibration)
        if bits < best_bits:
            best, best_bits = candidate, bits
    if best is None:
        raise refusal or ValueError("no unit to try")
    steps = [] if isinstance(best.network, SequenceVAE) else choose_direct_steps(best.network, calibration)
    return IntegerNetwork(best.network, best.kernels, best.start, steps)


def _quantise_with_unit(model: Network, unit: int) -> IntegerNetwork:
    config = with_unit(model.config, unit)
    shell = untrained(config)
    shell.load_state_dict({name: p.detach().cpu() for name, p in model.state_dict().items()})
    kernels = {name: layer.quantise() for name, layer in shell.integer_convs().items()}
    start = torch.round(shell.start.detach() * shell.start_unit).to(torch.int32)
    return build(config, kernels, start, [[1] * c for c, _, _ in shell.latent_shapes])


@full_precision()
@torch.no_grad()
def coded_bits(integers: IntegerNetwork, items: Tensor, *, particles: int = 1, seed: int = 0) -> float:
    """Bits that bits-back takes for an item on average: minus the ELBO of the integer model, one draw per item.

    Parameters
    ----------
    integers : IntegerNetwork
        The model.
    items : torch.Tensor
        (N,C,H,W) uint8.
    particles : int
        More than one are coupled: the K-sample bound takes the ELBO's place.
    seed : int
        Of the random bits that the stacks begin with.

    Returns
    -------
    float
    """
    codec, total = integers.bits_back(particles), 0.0
    batch = max(1, min(64, PASS_VALUES // (integers.config.dims * particles)))
    for begin in range(0, len(items), batch):
        part = items[begin : begin + batch]
        stacks = fastest_stacks().random(len(part), words_enough(codec), seed + begin)
        codec.push(stacks, part)
        total += float(stacks.information.sum())
    return total / len(items)


def words_enough(codec: AnyItemCodec) -> int:
    """32-bit words from which the latents of an item can be popped, with or without particles."""
    return 64 + (codec.latents if codec.particles > 1 else codec.latents // 2)


@full_precision()
@torch.no_grad()
def choose_direct_steps(network: HierarchicalVAE, items: Tensor) -> list[list[int]]:
    """Per latent channel, the power of two that makes direct coding cheapest on ``items``.

    A representative r costs -log2 of its cell's prior mass and (r - m)^2 / (2 s^2) nats of likelihood
    lost, m and s being the posterior's mean and scale.
    """
    batch = max(1, PASS_VALUES // network.config.dims)
    costs = [_direct_costs(network, items[begin : begin + batch]) for begin in range(0, len(items), batch)]
    return [[COARSE_STEPS[i] for i in sum(level).argmin(0).tolist()] for level in zip(*costs)]


def _direct_costs(network: HierarchicalVAE, items: Tensor) -> list[Tensor]:
    """Per level, bits (steps, channels) of all ``items`` for each of COARSE_STEPS."""
    found = []
    top_down, features = TopDownPass(network, len(items)), network.encode(items)
    for level, (channels, rows, columns) in enumerate(network.latent_shapes):
        prior, statistics = gaussian(top_down.prior(level)), top_down.posterior(level, features)
        posterior = gaussian(statistics)
        mean = posterior.mean.double() / STEPS
        scale = torch.exp2((statistics.log2_scale.flatten(1).double()) / 8) * 4
        costs = []
        for step in COARSE_STEPS:
            coarse = CoarseGaussian(prior, torch.tensor([[step]]))
            r = coarse.nearest(posterior.nearest())
            c = coarse.cumulative(torch.stack([r, r + 1], -1))
            bits = 24 - torch.log2((c[..., 1] - c[..., 0]).clamp(min=1))
            bits = bits + (r - HALF - mean).square() / (2 * scale.square() * math.log(2))
            costs.append(bits.sum(0).view(channels, rows * columns).sum(1))
        found.append(torch.stack(costs))
        top_down.absorb(level, posterior.nearest().numpy())
    return found
