"""The likelihood of a sequence model one position at a time: what a decoder and a sampler do."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaedensity.model.integer_sequence import product

if TYPE_CHECKING:
    from vaedensity.model.sequence import SequenceVAE


HASH_FACTOR, HASH_PRIME = 1103515245, 2147483647


def context_cells(before: Tensor, contexts: tuple[int, ...], bits: int) -> list[Tensor]:
    """The cell in 0..2^bits-1 of the last n values for each n of ``contexts``: a hash of ``before`` (...,n) int64, values
    before a position with the nearest first.

    h = 0, then for each value v, nearest first, h = (h 1103515245 + v + 1) mod (2^31 - 1); the cell is h mod 2^bits.
    """
    h, cells = torch.zeros_like(before[..., 0]), []
    for n in range(1, contexts[-1] + 1 if contexts else 0):
        h = (h * HASH_FACTOR + before[..., n - 1] + 1).remainder(HASH_PRIME)
        if n in contexts:
            cells.append(h % (1 << bits))
    return cells


class DecoderState:
    """A pass over the positions of B series with latents ``chosen`` (B,variables,categories), one-hot.

    Each block keeps the inputs that later positions will see; what it computes is what the pass over all positions at once
    computes, in whole numbers to the bit.
    """

    def __init__(self, network: "SequenceVAE", chosen: Tensor):
        self.network = network
        config, self.exact = network.config, network.exact
        self.condition = network.condition(chosen)[:, 0]
        count, device = len(chosen), chosen.device
        self.before = torch.full((count, max((1, *config.contexts))), network.nothing, device=device)
        self.tables = [table.rows() for table in (network.value_table, *network.context_tables)]  # type: ignore[operator]
        self.layers = [
            (block, block.convolution.matrix().contiguous(), block.convolution.bias, dilation)  # type: ignore[union-attr,operator]
            for block, dilation in zip(network.blocks, config.dilations)
        ]
        nothing = torch.zeros(count, config.width, dtype=torch.float32, device=device)
        self.past = [[nothing] * (2 * dilation) for dilation in config.dilations]
        self.head = (network.head.matrix().contiguous(), network.head.bias)
        self.position = 0

    def next(self, values: Tensor) -> Tensor:
        """Log2 weights (B,levels) of the next position; ``values`` (B,) int64 of the one before (of none: ``nothing``)."""
        config = self.network.config
        self.before = torch.cat([values[:, None], self.before[:, :-1]], 1)
        h = self.tables[0].index_select(0, values) + self.condition
        for table, cells in zip(self.tables[1:], context_cells(self.before, config.contexts, config.context_bits)):
            h[:, : config.context_width] += table.index_select(0, cells)
        h = self._clamped(h)
        for past, (block, matrix, bias, dilation) in zip(self.past, self.layers):
            place = self.position % (2 * dilation)
            earliest, middle = past[place], past[(place + dilation) % (2 * dilation)]
            past[place] = h
            h = block.mix(h, product(torch.cat([earliest, middle, h], 1), matrix, bias, self.exact))  # type: ignore[operator]
        self.position += 1
        return product(h, *self.head, self.exact)

    def _clamped(self, h: Tensor) -> Tensor:
        grid = self.network.activation
        unit = 1.0 if self.exact else grid.unit
        return h.clamp_(grid.low / unit, grid.high / unit)
