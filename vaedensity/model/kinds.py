"""The kinds of networks there are: of images and of sequences."""

from typing import Any

import torch

from vaedensity.model.config import VAEConfig
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.integer_conv import blank_weights, without_weights
from vaedensity.model.sequence import SequenceVAE
from vaedensity.model.sequence_config import SequenceConfig

Config = VAEConfig | SequenceConfig
Network = HierarchicalVAE | SequenceVAE


def build_network(config: Config) -> Network:
    """A network of random weights; torch's state of randomness stays as it was found only within ``fork_rng``."""
    return SequenceVAE(config) if isinstance(config, SequenceConfig) else HierarchicalVAE(config)


def untrained(config: Config) -> Network:
    """A network whose weights are to be overwritten: draws no random numbers."""
    with blank_weights():
        return build_network(config)


def outline(config: Config) -> Network:
    """A network whose layers have shapes and no memory of their own: a file's few bytes can ask for gigabytes of it."""
    with without_weights():
        return build_network(config)


def to_device(model: Network, device: torch.device | str) -> Network:
    """``model`` on ``device``, images' channels where convolutions like them."""
    return model.to(device) if isinstance(model, SequenceVAE) else model.to(device, memory_format=torch.channels_last)


def config_from_json(record: dict[str, Any]) -> Config:
    """The configuration that a model file holds. Raises ValueError, TypeError or KeyError."""
    kind = record["kind"]
    if kind == SequenceConfig.kind:
        return SequenceConfig.from_json(record)
    if kind != VAEConfig.kind:
        raise ValueError(f"a network of kind {kind!r}; expected image or sequence; update vaedensity")
    return VAEConfig.from_json(record)
