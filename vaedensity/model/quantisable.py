"""A network with two readings: real numbers to train and to score, whole numbers to code."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from vaedensity.model.integer_conv import EXACT_LIMIT, IntegerKernel, IntegerLayer

LARGEST_START = 2**20


class Quantisable(nn.Module, ABC):
    """A network of integer layers and of ``start``, the numbers before any latent is known.

    ``exact``: whether it holds whole numbers, as :meth:`to_exact` leaves it.
    """

    start: nn.Parameter
    start_unit: float
    """The integer k of the quantised start stands for k / start_unit."""
    exact = False

    def integer_convs(self) -> dict[str, IntegerLayer]:
        """The integer layers by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, IntegerLayer)}

    def fake_quantise(self, on: bool) -> None:
        """Whether the real network rounds as its quantised form does."""
        for layer in self.integer_convs().values():
            layer.fake_quantising = on

    @abstractmethod
    def largest_stream(self, kernels: Mapping[str, IntegerKernel], start: Tensor) -> float:
        """The largest magnitude that a sum of layers' outputs can reach with these integers."""

    def to_exact(self, kernels: Mapping[str, IntegerKernel], start: Tensor) -> Self:
        """Turn this instance into the integer network given by ``kernels`` and the integers ``start``.

        Raises
        ------
        ValueError
            Where the integers do not fit the network, or a sum could leave what float32 holds exactly.
        """
        layers = self.integer_convs()
        if set(layers) != set(kernels):
            raise ValueError(f"integer network: layers {sorted(set(layers) ^ set(kernels))[:3]} do not match")
        for name, layer in layers.items():
            layer.load_integers(kernels[name], name)
        if start.shape != self.start.shape or int(start.long().abs().max()) >= LARGEST_START:
            raise ValueError("integer network: the start map does not fit")
        if not (largest := self.largest_stream(kernels, start)) < EXACT_LIMIT:
            raise ValueError(f"integer network: a stream can reach {largest:.0f}, the exact limit is 2^24")
        with torch.no_grad():
            self.start.copy_(start.float())
        self.start.requires_grad_(False)
        self.exact = True
        return self.eval()
