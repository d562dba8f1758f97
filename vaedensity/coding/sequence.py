"""The codecs of one batch of series under a sequence model: categorical latents, and values one position after the
other."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vaedensity.coding.ans import Stacks
from vaedensity.coding.argmax_table import argmax_table
from vaedensity.coding.bits_back import BitsBack, Direct
from vaedensity.coding.codec import Codec, TableCodec
from vaedensity.coding.integer_math import Ints
from vaedensity.coding.pixel_table import CategoricalTable

PASS_POSITIONS = 1 << 14  # that go through the network at once


class SequenceSteps(Protocol):
    """One pass over positions."""

    def next(self, values: Tensor) -> Tensor: ...


class SequenceNetwork(Protocol):
    """What the codecs ask of an integer network: whole numbers in, whole numbers out."""

    config: Any
    start: Any

    def encode(self, x: Tensor) -> list[Tensor]: ...
    def logits(self, values: Tensor, chosen: Tensor) -> Tensor: ...
    def steps(self, chosen: Tensor) -> SequenceSteps: ...


class SequenceCodec(Codec):
    """Codes series (B,1,1,T), uint8 tensors, one per stack.

    Parameters
    ----------
    network : SequenceNetwork
        With whole numbers for weights.
    direct : bool
        Whether to take each latent's likeliest category, which needs no bits to begin with, instead of bits-back.
    """

    particles = 1

    def __init__(self, network: SequenceNetwork, direct: bool = False):
        self.network, self.direct = network, direct
        self.latents = network.config.variables

    def push(self, stacks: Stacks, symbol: Tensor) -> None:
        self._codec(len(stacks)).push(stacks, symbol)

    def pop(self, stacks: Stacks) -> Tensor:
        x = self._codec(len(stacks)).pop(stacks)
        assert isinstance(x, Tensor)
        return x

    def _codec(self, batch: int) -> Codec:
        prior = TableCodec(CategoricalTable(self._by_category(self.network.start.view(1, -1).expand(batch, -1))))
        if self.direct:
            return Direct(prior, lambda x: self._posterior_logits(x).argmax(1).numpy(), self._likelihood)
        return BitsBack(prior, self._posterior, self._likelihood)

    def _by_category(self, logits: Tensor) -> Tensor:
        """(B,categories,variables) from rows (B,variables categories)."""
        config = self.network.config
        return torch.unflatten(logits, 1, (config.variables, config.categories)).transpose(1, 2)

    def _posterior_logits(self, x: Tensor) -> Tensor:
        items = max(1, PASS_POSITIONS // self.network.config.length)
        return self._by_category(torch.cat([self.network.encode(part)[0] for part in torch.split(x, items)]))

    def _posterior(self, x: Tensor) -> Codec:
        return TableCodec(argmax_table(self._posterior_logits(x), self.network.config.noise))

    def _likelihood(self, z: Ints) -> Codec:
        return ValuesCodec(self.network, F.one_hot(torch.from_numpy(z), self.network.config.categories).float())


class ValuesCodec(Codec):
    """p(x|z): the values of series (B,1,1,T), each given those before it and the latents.

    An encoder knows all values and makes all tables at once; a decoder walks over the positions of all series together.
    Both compute whole numbers, and so the same ones.

    Parameters
    ----------
    network : SequenceNetwork
        With whole numbers for weights.
    chosen : torch.Tensor
        (B,variables,categories) float32: the latents, one-hot.
    """

    def __init__(self, network: SequenceNetwork, chosen: Tensor):
        self.network, self.chosen = network, chosen

    def push(self, stacks: Stacks, symbol: Tensor) -> None:
        values = symbol.flatten(1).long()
        size = max(1, PASS_POSITIONS // values.shape[1])
        parts = [self._intervals(values[i : i + size], self.chosen[i : i + size]) for i in range(0, len(values), size)]
        lower, upper = (np.concatenate(ends) for ends in zip(*parts))
        stacks.push_intervals(lower, upper)

    def _intervals(self, values: Tensor, chosen: Tensor) -> tuple[Ints, Ints]:
        """(lower, upper), each (B, digits T), position after position."""
        logits = self.network.logits(values, chosen)
        digits: list[tuple[list[Ints], list[Ints]]] = []
        for first in range(
            0, values.shape[1], PASS_POSITIONS // 4
        ):  # tables take more memory than what they are made of
            part = slice(first, first + PASS_POSITIONS // 4)
            codec = TableCodec(CategoricalTable(logits[:, part].transpose(1, 2)))
            ends = codec.intervals(values[:, part].numpy())
            digits.append(([lower for lower, _ in ends], [upper for _, upper in ends]))
        lower, upper = (
            np.concatenate([np.stack(one[end], 2).reshape(len(values), -1) for one in digits], 1) for end in (0, 1)
        )
        return lower, upper

    def pop(self, stacks: Stacks) -> Tensor:
        config, steps = self.network.config, self.network.steps(self.chosen)
        values, out = torch.full((len(stacks),), config.levels), []
        for _ in range(config.length):
            table = CategoricalTable(steps.next(values)[:, :, None])
            values = torch.from_numpy(TableCodec(table).pop(stacks)[:, 0])
            out.append(values)
        return torch.stack(out, 1).to(torch.uint8)[:, None, None]
