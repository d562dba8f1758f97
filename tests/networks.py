"""Small networks with random weights, quantised, for tests of coding."""

from functools import lru_cache

import torch

from vaedensity.coding.chains import ChainCodecs
from vaedensity.coding.quantise import IntegerNetwork, quantise
from vaedensity.model.config import VAEConfig
from vaedensity.model.hierarchical import HierarchicalVAE

SHAPES = {
    "grey": dict(height=8, width=8, channels=1, levels=256),
    "rgb": dict(height=8, width=12, channels=3, levels=256),
    "odd": dict(height=7, width=5, channels=1, levels=17),
    "line": dict(height=1, width=9, channels=1, levels=33),
    "binary": dict(height=6, width=6, channels=1, levels=2),
    "hundred": dict(height=5, width=6, channels=3, levels=100),
    "copying": dict(height=8, width=8, channels=1, levels=256, neighbours=8),
    "seven": dict(height=8, width=12, channels=3, levels=256, neighbours=8, sub_images=7),
    "seven odd": dict(height=7, width=5, channels=1, levels=17, neighbours=3, sub_images=7),
    "categories": dict(height=7, width=8, channels=1, levels=17, likelihood="categorical"),
    "many categories": dict(height=4, width=6, channels=3, levels=40, sub_images=7, likelihood="categorical"),
    "seven two-valued": dict(height=9, width=1, channels=1, levels=2, neighbours=8, sub_images=7),
}


def config(kind: str, **changes: object) -> VAEConfig:
    sizes = dict(latents=((4, 3), (2, 2)), widths=(12, 8), blocks=1, sub_image_blocks=1, components=3)
    return VAEConfig(**(SHAPES[kind] | sizes | changes))  # type: ignore[arg-type]


def random_items(c: VAEConfig, count: int, seed: int = 0) -> torch.Tensor:
    """Items with structure: smooth ramps with noise, over the whole range of levels."""
    g = torch.Generator().manual_seed(seed)
    base = torch.rand(count, c.channels, 1, 1, generator=g) * c.levels
    ramp = torch.linspace(0, 1, c.height)[:, None] * torch.linspace(0, c.levels, c.width)
    noise = torch.randn(count, *c.item_shape, generator=g) * c.levels / 8
    return (base + ramp + noise).clamp(0, c.levels - 1).to(torch.uint8)


def random_model(kind: str, seed: int = 0, spread: float = 1.0, **changes: object) -> HierarchicalVAE:
    torch.manual_seed(seed)
    model = HierarchicalVAE(config(kind, **changes))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "head" in name:
                p.add_(torch.randn_like(p) * 0.3 * spread)
        model.start.add_(torch.randn_like(model.start) * spread)
    return model.eval()


@lru_cache
def random_network(kind: str, seed: int = 0) -> IntegerNetwork:
    """Shared by tests, which change nothing of it."""
    model = random_model(kind, seed)
    return quantise(model, random_items(model.config, 16, seed))


def codecs(integers: IntegerNetwork, particles: int = 1) -> ChainCodecs:
    coupled = integers.bits_back(particles) if particles > 1 else None
    return ChainCodecs(integers.bits_back(), integers.direct(), coupled)
