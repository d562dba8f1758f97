"""Small sequence networks with random weights, for tests of the model and of its coder."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vaedensity.coding.quantise import IntegerNetwork, build
from vaedensity.model.checkpoint import save_model
from vaedensity.model.config import with_unit
from vaedensity.model.kinds import untrained
from vaedensity.model.sequence import SequenceVAE
from vaedensity.model.sequence_config import SequenceConfig

NOISES = ("gumbel", "exponential", "normal", "uniform")
SMALL = SequenceConfig(
    length=40,
    levels=256,
    variables=3,
    categories=4,
    width=12,
    encoder_width=8,
    dilations=(1, 2, 5),
    contexts=(2, 3),
    context_bits=5,
    context_width=6,
)


def config(**changes: object) -> SequenceConfig:
    return SequenceConfig.from_json(SMALL.to_json() | changes)


def random_model(seed: int = 0, spread: float = 1.0, **changes: object) -> SequenceVAE:
    """Of weights that make latents and values before matter, and probabilities uneven."""
    torch.manual_seed(seed)
    model = SequenceVAE(config(**changes))
    with torch.no_grad():
        model.start.copy_(torch.randn_like(model.start) * spread)
        for layer in model.integer_convs().values():
            layer.bias.add_(torch.randn_like(layer.bias) * 0.1 * spread)
        for layer in (model.posterior_head, model.head):
            layer.weight.add_(torch.randn_like(layer.weight) * 0.5 * spread)
    return model.eval()


def random_series(c: SequenceConfig, count: int, seed: int = 0) -> Tensor:
    """Items (count,1,1,T) that repeat themselves now and then."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, c.levels, (count, 1, 1, c.length), generator=g)
    again = torch.rand(x.shape, generator=g) < 0.5
    return torch.where(again, x.roll(2, 3), x).to(torch.uint8)


def quantised(model: SequenceVAE, unit: int = 128) -> IntegerNetwork:
    c = with_unit(model.config, unit)
    shell = untrained(c)
    shell.load_state_dict(model.state_dict())
    kernels = {name: layer.quantise() for name, layer in shell.integer_convs().items()}
    return build(c, kernels, torch.round(shell.start.detach() * 16).to(torch.int32), [])


def random_network(seed: int = 0, unit: int = 128, **changes: object) -> IntegerNetwork:
    return quantised(random_model(seed, **changes), unit)


def save(path: Path, model: SequenceVAE, unit: int = 128, values: list[int] | None = None) -> Path:
    """A model file of ``model``, quantised."""
    integers, card = quantised(model, unit), {"name": path.stem, "integer_bits_per_dim": 4.0}
    save_model(path, model, values, card, integers.kernels, integers.start, unit, [], overwrite=True)
    return path


def random_latents(c: SequenceConfig, count: int, seed: int = 0) -> Tensor:
    """One-hot latents (count,variables,categories)."""
    g = torch.Generator().manual_seed(seed)
    return F.one_hot(torch.randint(0, c.categories, (count, c.variables), generator=g), c.categories).float()


def all_latents(c: SequenceConfig) -> Tensor:
    """Every index (categories^variables, variables) that latents can have."""
    return torch.tensor(list(product(range(c.categories), repeat=c.variables)))


def all_series(c: SequenceConfig) -> Tensor:
    """Every series (levels^length,1,1,length)."""
    values: Iterator[tuple[int, ...]] = product(range(c.levels), repeat=c.length)
    return torch.tensor(list(values), dtype=torch.uint8)[:, None, None]
