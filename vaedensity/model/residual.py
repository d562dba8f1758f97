"""The residual block of every stream."""

from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.model.integer_conv import Grid, IntegerConv


class ResidualBlock(nn.Module):
    """h + conv(relu(conv(relu(h)))), activations clamped to the range that integers cover."""

    def __init__(self, width: int, grid: Grid):
        super().__init__()
        self.grid = grid
        self.first = IntegerConv(width, width, 3, grid, grid.unit)
        self.second = IntegerConv(width, width, 3, grid, grid.unit, gain=0.3)
        self.top = grid.high / grid.unit

    def forward(self, h: Tensor) -> Tensor:
        top = self.grid.high if self.first.exact else self.top
        return h + self.second(F.hardtanh(self.first(F.hardtanh(h, 0, top)), 0, top))


def blocks(count: int, width: int, grid: Grid) -> nn.Sequential:
    return nn.Sequential(*[ResidualBlock(width, grid) for _ in range(count)])
