"""Layers over sequences (B,T,channels) that learn in floating point and code in exact integers.

As those of ``integer_conv.py`` do: convolutions as one matrix product, tables, and the gated block of ``dgcnn.py``.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.model.integer_conv import Grid, IntegerKernel, IntegerLayer, draw, one_hot, straight_through, trusted

GATE_REACH = 4  # real values beyond which a gate is fully open or shut
GATE_STEPS = 256  # of an integer gate


def product(x: Tensor, matrix: Tensor, bias: Tensor, exact: bool) -> Tensor:
    """x (...,I) times matrix (O,I) plus bias (O,); whole numbers, rounded half to even, where ``exact``."""
    if not exact:
        return F.linear(x, matrix, bias)

    def test() -> bool:
        probe = torch.empty_like(x).random_(-1, 2, generator=torch.Generator().manual_seed(0))
        return torch.equal(F.linear(probe, matrix), F.linear(probe.double(), matrix.double()).float())

    if trusted((x.shape, x.stride(), matrix.shape, matrix.stride()), test):
        return F.linear(x, matrix, bias).round_()
    return F.linear(x.double(), matrix.double(), bias.double()).float().round_()


class SequenceConv(IntegerLayer):
    """1-D convolution of so many ``taps``, ``dilation`` apart, with weight (O,I,1,taps).

    If ``causal`` it sees the position and what comes before it, else both sides.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        taps: int,
        grid: Grid,
        out_unit: float,
        *,
        dilation: int = 1,
        causal: bool = False,
        gain: float = 1.0,
    ):
        std = gain * (1.0 / (inputs * taps)) ** 0.5
        super().__init__(draw(std, outputs, inputs, 1, taps), grid, out_unit)
        self.taps, self.dilation, self.causal = taps, dilation, causal

    def matrix(self) -> Tensor:
        """(O, taps I): weights of the earliest tap's inputs first."""
        weight: Tensor = self.weight
        if self.fake_quantising:
            weight = straight_through(weight, self.weight_step())
        return weight[:, :, 0].transpose(1, 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        reach = (self.taps - 1) * self.dilation
        if reach:
            framed = F.pad(x, (0, 0, reach, 0) if self.causal else (0, 0, reach // 2, reach - reach // 2))
            x = torch.cat([framed[:, i * self.dilation :][:, : x.shape[1]] for i in range(self.taps)], 2)
        y = product(x, self.matrix(), self.bias, self.exact)
        return straight_through(y, 1 / self.out_unit) if self.fake_quantising else y


class SymbolTable(IntegerLayer):
    """A row of numbers for each of ``symbols``: weight (width,symbols,1,1), one byte each once quantised."""

    largest_weight = 127

    def __init__(self, symbols: int, width: int, out_unit: float, *, gain: float = 1.0):
        super().__init__(draw(gain, width, symbols, 1, 1), one_hot(), out_unit)

    def quantise(self) -> IntegerKernel:
        kernel = super().quantise()
        return replace(kernel, weight=kernel.weight.to(torch.int8))

    def rows(self) -> Tensor:
        """(symbols, width)."""
        weight: Tensor = self.weight
        if self.fake_quantising:
            weight = straight_through(weight, self.weight_step())
        rows = weight[:, :, 0, 0].T + self.bias
        return rows.round() if self.exact else rows

    def forward(self, symbols: Tensor) -> Tensor:
        """(B,T,width) for int64 (B,T)."""
        return F.embedding(symbols, self.rows())


class IntegerGatedBlock(nn.Module):
    """The gated block of DGCNN (Su 2018), y = s x + (1 - s) h with [g, h] = conv(x), in numbers that can be whole.

    Its sigmoid is of two parabolas, which whole numbers compute exactly: s(g) = 1/2 + u (1 - |u| / 2), u = g / 4 in
    [-1, 1]. It differs from 1 / (1 + exp(-g)) by at most 0.03.
    """

    def __init__(self, width: int, dilation: int, grid: Grid, *, causal: bool, dropout: float, open_gate: float = 1.0):
        super().__init__()
        self.grid = grid
        self.convolution = SequenceConv(width, 2 * width, 3, grid, grid.unit, dilation=dilation, causal=causal)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.convolution.bias[:width] = open_gate

    def forward(self, x: Tensor) -> Tensor:
        """(B,T,width) from (B,T,width)."""
        return self.mix(x, self.convolution(x))

    def mix(self, x: Tensor, both: Tensor) -> Tensor:
        """y of the block's input x (...,width) and its convolution (...,2 width)."""
        gate, h = both.chunk(2, -1)
        unit, exact = self.grid.unit, self.convolution.exact
        if not exact:
            h = F.hardtanh(h, self.grid.low / unit, self.grid.high / unit)
            u = F.hardtanh(self.dropout(gate) / GATE_REACH)
            y = torch.lerp(h, x.to(h.dtype), 0.5 + u * (1 - 0.5 * u.abs()))
            return straight_through(y, 1 / unit) if self.convolution.fake_quantising else y
        # With whole numbers, unit = 2^k and a = 4 unit u: 256 s = 128 + 8 a (8 unit - |a|) / unit^2, below 2^24.
        h = h.clamp(self.grid.low, self.grid.high)
        a = gate.clamp(-GATE_REACH * unit, GATE_REACH * unit)
        s = (a * (2 * GATE_REACH * unit - a.abs())).mul_(GATE_STEPS / (2 * (GATE_REACH * unit) ** 2)).floor_()
        s += GATE_STEPS // 2
        return (s * (x - h) + h * GATE_STEPS).mul_(1 / GATE_STEPS).add_(0.5).floor_()


def clamped(x: Tensor, grid: Grid, exact: bool) -> Tensor:
    """x within the range of ``grid``, whose integers or real values it holds."""
    return F.hardtanh(x, grid.low, grid.high) if exact else F.hardtanh(x, grid.low / grid.unit, grid.high / grid.unit)
