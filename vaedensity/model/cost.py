"""What a network costs to run."""

from typing import Any

import torch
from torch import Tensor, nn

from vaedensity.model.config import VAEConfig
from vaedensity.model.hierarchical import HierarchicalVAE


def multiplications(config: VAEConfig) -> int:
    """Multiplications of all convolutions for one item, encoder and decoder once each: what pushing it or popping it takes.

    >>> from vaedensity.model.config import preset_config
    >>> multiplications(preset_config("fast", (1, 28, 28), 256))
    4465664
    """
    total = 0

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * output.shape[2] * output.shape[3]  # type: ignore[union-attr, operator]

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = HierarchicalVAE(config)
        for layer in network.lattice_convs().values():
            layer.register_forward_hook(count)
        item = torch.zeros(1, *config.item_shape, dtype=torch.uint8)
        network.elbo_terms(item, torch.zeros(1, network.noise_dim))
    return total
