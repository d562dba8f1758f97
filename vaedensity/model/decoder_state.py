"""The likelihood of a sequence model one position at a time: what a decoder and a sampler do."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vaedensity.model.integer_conv import Grid
from vaedensity.model.integer_sequence import IntegerGatedBlock, SequenceConv, SymbolTable, clamped, product
from vaedensity.model.sequence_config import SequenceConfig

HASH_FACTOR, HASH_PRIME = 1103515245, 2147483647


def context_cells(before: Tensor, contexts: tuple[int, ...], bits: int) -> list[Tensor]:
    """For each n of ``contexts`` the cell in 0..2^bits-1 of the last n values, a hash of them.

    h = 0, then for each value v, nearest first, h = (h 1103515245 + v + 1) mod (2^31 - 1); the cell is h mod 2^bits.
    ``before`` (...,n) int64 holds the values before a position, nearest first; cells are (...).
    """
    h, cells = torch.zeros_like(before[..., 0]), []
    for n in range(1, contexts[-1] + 1 if contexts else 0):
        h = (h * HASH_FACTOR + before[..., n - 1] + 1).remainder(HASH_PRIME)
        if n in contexts:
            cells.append(h % (1 << bits))
    return cells


class DecoderState:
    """A pass over the positions of B series, of which each block keeps the inputs that later positions will see.

    It computes what the pass over all positions at once computes, in whole numbers to the bit. ``tables``: of the value
    before, then of each context. ``condition`` (B,width): what the latents add to every position.
    """

    def __init__(
        self,
        config: SequenceConfig,
        activation: Grid,
        tables: Sequence[SymbolTable],
        blocks: Sequence[IntegerGatedBlock],
        head: SequenceConv,
        condition: Tensor,
    ):
        self.config, self.activation, self.condition, self.exact = config, activation, condition, head.exact
        count, device = len(condition), condition.device
        self.before = torch.full((count, max((1, *config.contexts))), config.levels, device=device)  # no value
        self.tables = [table.rows() for table in tables]
        self.layers = [
            (block, block.convolution.matrix().contiguous(), block.convolution.bias, dilation)
            for block, dilation in zip(blocks, config.dilations)
        ]
        nothing = torch.zeros(count, config.width, dtype=torch.float32, device=device)
        self.past = [[nothing] * (2 * dilation) for dilation in config.dilations]
        self.head = head.matrix().contiguous(), head.bias
        self.position = 0

    def next(self, values: Tensor) -> Tensor:
        """Log2 weights (B,levels) of the next position; ``values`` (B,) int64 of the one before, first ``levels``."""
        config = self.config
        self.before = torch.cat([values[:, None], self.before[:, :-1]], 1)
        h = self.tables[0].index_select(0, values) + self.condition
        for table, cells in zip(self.tables[1:], context_cells(self.before, config.contexts, config.context_bits)):
            h[:, : config.context_width] += table.index_select(0, cells)
        h = clamped(h, self.activation, self.exact)
        for past, (block, matrix, bias, dilation) in zip(self.past, self.layers):
            place = self.position % (2 * dilation)
            earliest, middle = past[place], past[(place + dilation) % (2 * dilation)]
            past[place] = h
            h = block.mix(h, product(torch.cat([earliest, middle, h], 1), matrix, bias, self.exact))
        self.position += 1
        return product(h, *self.head, self.exact)
