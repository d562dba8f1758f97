"""What a network costs to run."""

from typing import Any

import torch
from torch import Tensor, nn

from vaedensity.model.integer_sequence import SymbolTable
from vaedensity.model.kinds import Config, untrained


def multiplications(config: Config) -> int:
    """Multiplications of all convolutions for one item (tables are looked up), encoder and decoder once each: what pushing it or popping it takes.

    >>> from vaedensity.model.config import preset_config
    >>> multiplications(preset_config("fast", (1, 28, 28), 256))
    4465664
    """
    total = 0

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        places = output[0, 0].numel() if output.ndim == 4 else output.shape[1]
        total += layer.weight.numel() * places  # type: ignore[union-attr, operator]

    with torch.no_grad():
        network = untrained(config)
        for layer in network.integer_convs().values():
            if isinstance(layer, SymbolTable):
                continue
            layer.register_forward_hook(count)
        item = torch.zeros(1, *config.item_shape, dtype=torch.uint8)
        network.elbo_terms(item, torch.zeros(1, network.noise_dim))
    return total
