"""A convolution that runs in floating point to learn and in exact integers to code.

Both readings are the same sum of products. Once *quantised*, inputs and outputs are whole numbers, weights are whole
multiples of 2^-shift, and every partial sum is a whole multiple of 2^-shift of magnitude below 2^24 in that unit.
Float32 represents each of them exactly, so the result depends on neither summation order, thread count, batch size,
library nor instruction set.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXACT_LIMIT = 2**24  # consecutive integers that float32 holds
LARGEST_WEIGHT = 2**15 - 1
LARGEST_SHIFT = 20
LARGEST_BIAS = 2**23


@dataclass(frozen=True)
class Grid:
    """Whole numbers ``low``..``high`` that stand for the real values k / unit.

    ``one_hot``: of all inputs at one place, one is 1 and the others are 0.
    """

    unit: float
    low: int
    high: int
    one_hot: bool = False


def one_hot() -> Grid:
    """Inputs that name one of several symbols."""
    return Grid(1.0, 0, 1, one_hot=True)


@dataclass(frozen=True)
class IntegerKernel:
    """Weights of one quantised convolution: weight int16 (of tables int8) (O,I,h,w), bias int32 (O,), shift int8 (O,).

    The real-valued multiplier of an integer input is weight * 2^-shift, per output channel.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def worst_sum(self, grid: Grid) -> Tensor:
        """Largest magnitude (O,) float64 that any partial sum over inputs on ``grid`` can reach."""
        w = self.weight.double().flatten(1)
        if grid.one_hot:
            return w.abs().amax(1) + self.bias.double().abs()
        positive, negative = w.clamp(min=0).sum(1), w.clamp(max=0).sum(1)
        top = positive * grid.high + negative * grid.low
        bottom = positive * grid.low + negative * grid.high
        return torch.maximum(top, -bottom) + self.bias.double().abs()

    def prove(self, grid: Grid, name: str) -> None:
        """Raise ValueError unless every partial sum stays an exact float32 integer."""
        worst = float(self.worst_sum(grid).max())
        if not worst < EXACT_LIMIT:
            raise ValueError(f"layer {name}: a partial sum can reach {worst:.0f}, the exact limit is 2^24")


def largest_exact_kernel(
    weight: Tensor, bias: Tensor, grid: Grid, largest_weight: int = LARGEST_WEIGHT
) -> IntegerKernel:
    """Round real weights (acting on integers of ``grid``) as finely as the 2^24 proof permits.

    Each output channel takes the largest power of two whose rounded weights keep every partial sum below 2^24:
    precision is a consequence of the bound, not a setting. Raises ValueError where no scale fits.
    """
    weight, bias = weight.double(), bias.double()
    none = -128
    chosen = IntegerKernel(torch.zeros_like(weight), torch.zeros_like(bias), torch.full_like(bias, none))
    for shift in range(LARGEST_SHIFT, -5, -1):
        scaled = torch.round(weight * 2.0**shift)
        offset = torch.round(bias * 2.0**shift)
        candidate = IntegerKernel(scaled, offset, torch.full_like(bias, shift))
        fits = candidate.worst_sum(grid) < EXACT_LIMIT
        fits &= scaled.abs().flatten(1).amax(1) <= largest_weight
        fits &= offset.abs() < LARGEST_BIAS
        take = fits & (chosen.shift == none)
        chosen.weight[take] = scaled[take]
        chosen.bias[take] = offset[take]
        chosen.shift[take] = shift
    if bool((chosen.shift == none).any()):
        raise ValueError("weights too large for exact integer arithmetic; train with a lower rate or weight decay")
    return IntegerKernel(chosen.weight.to(torch.int16), chosen.bias.to(torch.int32), chosen.shift.to(torch.int8))


PATCH_VALUES = 1 << 20  # of patches, float64, that are in memory at once


def patch_conv2d(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolution as a matrix product of patches in float64: exact anywhere, as whole numbers have 29 bits to spare."""
    size = weight.shape[-1]
    rows, columns = ((n - 1) // stride + 1 for n in x.shape[2:])
    matrix, offset = weight.double().flatten(1), bias.double()[:, None]
    parts = []
    for part in x.split(max(1, PATCH_VALUES // max(1, matrix.shape[1] * rows * columns))):
        patches = F.unfold(part.double(), size, padding=size // 2, stride=stride)
        parts.append((matrix @ patches + offset).float().view(len(part), len(weight), rows, columns))
    return torch.cat(parts)


_trusted: dict[Hashable, bool] = {}


def trusted(kind: Hashable, test: Callable[[], bool]) -> bool:
    """Whether an algorithm that a library chooses gives the sum of products, whatever the order.

    Winograd, FFT and numbers cut short do not. ``test`` is asked once a process for every ``kind`` of work, with the
    threads and the library at hand.
    """
    key = kind, torch.get_num_threads(), torch._C._get_mkldnn_enabled()
    if key not in _trusted:
        _trusted[key] = test()
    return _trusted[key]


def straight_through(values: Tensor, step: Tensor | float) -> Tensor:
    """``values`` rounded to multiples of ``step``, with the gradient of ``values``."""
    return values + (torch.round(values / step) * step - values).detach()


_weights: ContextVar[str] = ContextVar("weights", default="drawn")


@contextmanager
def _of_kind(kind: str) -> Iterator[None]:
    token = _weights.set(kind)
    try:
        yield
    finally:
        _weights.reset(token)


def without_weights() -> AbstractContextManager[None]:
    """Layers made meanwhile have weights of the right shape that share one zero: none may be written to."""
    return _of_kind("shared")


def blank_weights() -> AbstractContextManager[None]:
    """Layers made meanwhile have zeros, to be overwritten: nothing is drawn from torch's common generator."""
    return _of_kind("blank")


def draw(std: float, *shape: int) -> Tensor:
    """Normal weights of this standard deviation, to begin with."""
    if _weights.get() == "drawn":
        return torch.randn(shape, dtype=torch.float32) * std
    zero = torch.zeros((), dtype=torch.float32).expand(shape)
    return zero if _weights.get() == "shared" else zero.clone()


class IntegerLayer(nn.Module):
    """Weights (O,I,h,w) and bias (O,) whose quantised form maps integers to integers.

    ``grid`` describes the inputs, ``out_unit`` the outputs: the integer k stands for k / out_unit. Real mode computes
    ordinary float values and ignores both, unless it is ``fake_quantising``: then weights and outputs are rounded
    nearly as the quantised layer rounds them, and gradients pass straight through (Bengio et al. 2013).
    """

    largest_weight = LARGEST_WEIGHT

    def __init__(self, weight: Tensor, grid: Grid, out_unit: float):
        super().__init__()
        self.grid, self.out_unit = grid, out_unit
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight), dtype=torch.float32))
        self.exact = self.fake_quantising = False

    @torch.no_grad()
    def weight_step(self) -> Tensor:
        """Distance (O,1,1,1) of neighbouring weights in the quantised layer, from the bound on unrounded weights."""
        ratio = self.out_unit / self.grid.unit
        w = self.weight.flatten(1) * ratio
        positive, negative = w.clamp(min=0).sum(1), w.clamp(max=0).sum(1)
        top = positive * self.grid.high + negative * self.grid.low
        bottom = positive * self.grid.low + negative * self.grid.high
        worst = torch.maximum(top, -bottom) + self.bias.abs() * self.out_unit
        shift = torch.floor(torch.log2(EXACT_LIMIT * 0.995 / worst.clamp(min=1e-9)))
        if self.grid.one_hot:  # what bounds a table is the size of its entries
            shift = torch.floor(torch.log2(self.largest_weight / w.abs().amax(1).clamp(min=1e-9)))
        shift = shift.clamp(-4, LARGEST_SHIFT)
        return (torch.exp2(-shift) / ratio)[:, None, None, None]

    def quantise(self) -> IntegerKernel:
        """The integer kernel nearest to the trained weights that is provably exact."""
        ratio = self.out_unit / self.grid.unit
        return largest_exact_kernel(
            self.weight.detach() * ratio, self.bias.detach() * self.out_unit, self.grid, self.largest_weight
        )

    def load_integers(self, kernel: IntegerKernel, name: str) -> None:
        """Switch to exact mode with ``kernel``, re-proving its bound and shapes."""
        if kernel.weight.shape != self.weight.shape or kernel.bias.shape != self.bias.shape:
            raise ValueError(f"layer {name}: integer weights of shape {tuple(kernel.weight.shape)} do not fit")
        if (
            kernel.shift.shape != self.bias.shape
            or int(kernel.shift.min()) < -4
            or int(kernel.shift.max()) > LARGEST_SHIFT
        ):
            raise ValueError(f"layer {name}: shifts out of range")
        narrow = self.largest_weight < 2**7
        if kernel.weight.dtype != (torch.int8 if narrow else torch.int16):
            raise ValueError(f"layer {name}: integer weights of {kernel.weight.dtype} do not fit")
        if int(kernel.weight.int().abs().max()) > self.largest_weight:
            raise ValueError(f"layer {name}: an integer weight is beyond {self.largest_weight}")
        kernel.prove(self.grid, name)
        with torch.no_grad():
            self._copy(kernel, 1.0, 1.0)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        self.exact = True

    @torch.no_grad()
    def load_real(self, kernel: IntegerKernel) -> None:
        """Take the real weights that ``kernel`` stands for."""
        self._copy(kernel, self.grid.unit / self.out_unit, 1 / self.out_unit)

    def _copy(self, kernel: IntegerKernel, weight_unit: float, bias_unit: float) -> None:
        unit = torch.pow(2.0, -kernel.shift.double())
        self.weight.copy_(kernel.weight.double() * unit[:, None, None, None] * weight_unit)
        self.bias.copy_(kernel.bias.double() * unit * bias_unit)


class IntegerConv(IntegerLayer):
    """2-D convolution, odd ``size``, zero padding."""

    def __init__(
        self, inputs: int, outputs: int, size: int, grid: Grid, out_unit: float, *, stride: int = 1, gain: float = 1.0
    ):
        std = gain * (2.0 / (inputs * size * size)) ** 0.5
        super().__init__(draw(std, outputs, inputs, size, size), grid, out_unit)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.fake_quantising:
            weight = straight_through(self.weight, self.weight_step())
            y = F.conv2d(x, weight, self.bias, self.stride, self.weight.shape[-1] // 2)
            return straight_through(y, 1 / self.out_unit)
        if self.exact and not self._direct(x):
            return patch_conv2d(x, self.weight, self.bias, self.stride).round_()
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2)
        return y.round_() if self.exact else y

    def _direct(self, x: Tensor) -> bool:
        """Whether this machine's conv2d is exact for inputs of just this shape and layout: Winograd depends on both."""

        def test() -> bool:
            probe = torch.empty_like(x).random_(
                self.grid.low, self.grid.high + 1, generator=torch.Generator().manual_seed(0)
            )
            y = F.conv2d(probe, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2)
            return torch.equal(y, patch_conv2d(probe, self.weight, self.bias, self.stride))

        return trusted((self.weight.shape, self.weight.stride(), self.stride, x.shape, x.stride()), test)


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
        change: Tensor = self.second(F.hardtanh(self.first(F.hardtanh(h, 0, top)), 0, top))
        return h + change


def blocks(count: int, width: int, grid: Grid) -> nn.Sequential:
    """So many residual blocks."""
    return nn.Sequential(*[ResidualBlock(width, grid) for _ in range(count)])
