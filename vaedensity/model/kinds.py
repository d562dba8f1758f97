"""The kinds of networks there are, of images and of sequences: how one is made from its configuration, and its cost."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from vaedensity.model.config import VAEConfig
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.integer_conv import IntegerLayer, blank_weights, without_weights
from vaedensity.model.integer_sequence import SymbolTable
from vaedensity.model.sequence import SequenceVAE
from vaedensity.model.sequence_config import SequenceConfig

Config = VAEConfig | SequenceConfig
Network = HierarchicalVAE | SequenceVAE


def build_network(config: Config) -> Network:
    """A network of random weights, drawn from torch's common generator."""
    return SequenceVAE(config) if isinstance(config, SequenceConfig) else HierarchicalVAE(config)


def untrained(config: Config) -> Network:
    """A network whose weights are to be overwritten: draws no random numbers."""
    with blank_weights():
        return build_network(config)


def outline(config: Config) -> Network:
    """A network whose layers have shapes and no memory of their own: a file's few bytes can ask for gigabytes."""
    with without_weights():
        return build_network(config)


def to_device(model: Network, device: torch.device | str) -> Network:
    """``model`` on ``device``, in the memory layout that its convolutions are fast in."""
    model = model.to(device)
    return model if isinstance(model, SequenceVAE) else model.to(memory_format=torch.channels_last)


def config_from_json(record: dict[str, Any]) -> Config:
    """The configuration that a model file holds. Raises ValueError, TypeError or KeyError."""
    kind = record["kind"]
    if kind == SequenceConfig.kind:
        return SequenceConfig.from_json(record)
    if kind != VAEConfig.kind:
        raise ValueError(f"a network of kind {kind!r}; expected image or sequence; update vaedensity")
    return VAEConfig.from_json(record)


def multiplications(config: Config) -> int:
    """Multiplications of all convolutions to push or pop one item, encoder and decoder once each. Tables cost none.

    Examples
    --------
    >>> from vaedensity.model.config import preset_config
    >>> multiplications(preset_config("fast", (1, 28, 28), 256))
    4465664
    """
    total = 0

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        places = output[0, 0].numel() if output.ndim == 4 else output.shape[1]
        total += cast(IntegerLayer, layer).weight.numel() * places

    with torch.no_grad():
        network = untrained(config)
        for layer in network.integer_convs().values():
            if not isinstance(layer, SymbolTable):
                layer.register_forward_hook(count)
        item = torch.zeros(1, *config.item_shape, dtype=torch.uint8)
        network.elbo_terms(item, torch.zeros(1, network.noise_dim))
    return total
