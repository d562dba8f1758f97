"""The integer network against int64 arithmetic, and the proof that guards it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SHAPES, random_items, random_model, random_network
from torch import Tensor
from torch.nn import functional as F

from vaedensity.coding import quantise as quantise_module
from vaedensity.coding.quantise import build, coded_bits, quantise
from vaedensity.model import integer_conv
from vaedensity.model.integer_conv import EXACT_LIMIT, Grid, IntegerConv, IntegerKernel, largest_exact_kernel
from vaedensity.model.kinds import Network
from vaedensity.training.objective import elbo_bits_per_dim


def oracle_conv(kernel: IntegerKernel, x: Tensor, stride: int) -> Tensor:
    """Convolution in int64 by patches, rounded half to even at the layer's shift."""
    size = kernel.weight.shape[-1]
    patches = F.unfold(x.double(), size, padding=size // 2, stride=stride).long()
    sums = torch.einsum("oi,bip->bop", kernel.weight.long().flatten(1), patches) + kernel.bias.long()[:, None]
    shift = kernel.shift.long()[:, None]
    scaled = torch.where(shift < 0, sums << (-shift).clamp(min=0), sums)
    unit = torch.ones_like(scaled) << shift.clamp(min=0)
    below = torch.div(scaled, unit, rounding_mode="floor")
    twice = 2 * (scaled - below * unit)
    up = (twice > unit) | ((twice == unit) & (below % 2 == 1))
    rows = (x.shape[2] - 1) // stride + 1
    return (below + up).view(x.shape[0], -1, rows, (x.shape[3] - 1) // stride + 1).float()


@pytest.mark.parametrize("kind", SHAPES)
def test_network_equals_int64_oracle(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    integers = random_network(kind)
    items = random_items(integers.config, 5, seed=3)
    kernels = {id(layer): integers.kernels[name] for name, layer in integers.network.integer_convs().items()}

    def outputs() -> list[Tensor]:
        network = integers.network
        features, h, found = network.encode(items), network.top(5), []
        for level in range(len(network.latent_shapes)):
            prior = network.prior(level, h)
            posterior = network.posterior(level, h, features[level], prior)
            z = (posterior.mean / 4).round().clamp(-128, 127)
            h = network.absorb_latent(level, h, z)
            found += [*prior, *posterior, h]
        found += [parameters for parameters, _ in network.walk_sub_images(items, h)]
        return [*features, *found]

    with torch.no_grad():
        fast = outputs()
        monkeypatch.setattr(IntegerConv, "forward", lambda self, x: oracle_conv(kernels[id(self)], x, self.stride))
        exact = outputs()
    assert len(fast) == len(exact) > 10
    for a, b in zip(fast, exact):
        assert torch.equal(a, b) and bool((a == a.round()).all())


@pytest.mark.parametrize("grid", [Grid(128, 0, 1023), Grid(64, -128, 127), Grid(4, -128, 127)])
def test_sums_at_the_very_edge_are_exact(grid: Grid) -> None:
    torch.manual_seed(1)
    kernel = largest_exact_kernel(torch.randn(8, 48, 3, 3).double(), torch.randn(8).double(), grid)
    kernel.prove(grid, "test")
    worst = float(kernel.worst_sum(grid).max())
    assert worst < EXACT_LIMIT
    assert worst > 0.4 * EXACT_LIMIT  # otherwise a finer power of two would have fitted
    layer = IntegerConv(48, 8, 3, grid, 128.0)
    layer.load_integers(kernel, "test")
    high = kernel.weight[0].float().sign()  # inputs that drive channel 0 to its largest sum
    x = torch.where(high >= 0, grid.high, grid.low).float()[None]
    for batch in (1, 7):
        for layout in (torch.contiguous_format, torch.channels_last):
            many = x.expand(batch, -1, -1, -1).contiguous(memory_format=layout)
            with torch.no_grad():
                assert torch.equal(layer(many), oracle_conv(kernel, many, 1))


def test_kernels_beyond_the_bound_are_rejected() -> None:
    grid = Grid(128, 0, 1023)
    weight = torch.full((1, 64, 3, 3), 100, dtype=torch.int16)
    kernel = IntegerKernel(weight, torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int8))
    with pytest.raises(ValueError, match="exact limit"):
        IntegerConv(64, 1, 3, grid, 128.0).load_integers(kernel, "layer")
    with pytest.raises(ValueError, match="too large"):
        largest_exact_kernel(torch.full((1, 4, 3, 3), 1e9), torch.zeros(1), grid)


def test_streams_beyond_the_bound_are_rejected() -> None:
    integers = random_network("grey")
    kernels = dict(integers.kernels)
    for name, kernel in kernels.items():
        kernels[name] = IntegerKernel(kernel.weight, kernel.bias, torch.full_like(kernel.shift, -4))
    with pytest.raises(ValueError, match="a stream can reach"):
        build(integers.config, kernels, integers.start, integers.direct_steps)


def test_wrong_layers_shapes_and_steps_are_rejected() -> None:
    integers = random_network("grey")
    missing = {name: kernel for name, kernel in integers.kernels.items() if name != "stem"}
    with pytest.raises(ValueError, match="stem"):
        build(integers.config, missing, integers.start, integers.direct_steps)
    with pytest.raises(ValueError, match="start"):
        build(integers.config, dict(integers.kernels), integers.start[:, :1], integers.direct_steps)
    for steps in ([[1, 1, 1]], [[1, 1, 3], [1, 1]], [[0, 1, 1], [1, 1]]):
        with pytest.raises(ValueError, match="direct steps"):
            build(integers.config, dict(integers.kernels), integers.start, steps)


@pytest.mark.parametrize("kind", ["grey", "rgb", "odd", "binary"])
def test_integer_rate_is_near_the_float_rate(kind: str) -> None:
    model = random_model(kind, seed=2, spread=0.3)
    items = random_items(model.config, 200, seed=5)
    integers = quantise(model, items[:32])
    real = elbo_bits_per_dim(model, items.numpy())
    coded = coded_bits(integers, items) / model.config.dims
    assert abs(coded / real - 1) < 0.03


WITHOUT_ONEDNN = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from networks import codecs, random_items, random_network
from vaedensity.coding import chains
from vaedensity.model import integer_conv

network = random_network("rgb")
parts = list(random_items(network.config, 24).numpy().reshape(8, 3, *network.config.item_shape))
usual = chains.encode_chains(codecs(network), parts).words
asked = len(integer_conv._trusted)
assert asked and all(integer_conv._trusted.values())
with torch.backends.mkldnn.flags(enabled=False):
    assert chains.encode_chains(codecs(network), parts).words == usual
assert len(integer_conv._trusted) > asked and all(integer_conv._trusted.values())
integer_conv.trusted = lambda kind, test: False
assert chains.encode_chains(codecs(network), parts).words == usual
"""


def test_other_convolution_libraries_give_the_same_blocks() -> None:
    """Without oneDNN torch may pick Winograd kernels of NNPACK; and the fallback by patches is the same."""
    folder = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", WITHOUT_ONEDNN, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_convolutions_that_round_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Winograd's do, at some shapes only: exact results all the same."""
    integers, items = random_network("grey"), random_items(random_network("grey").config, 5, seed=3)
    with torch.no_grad():
        usual = integers.network.encode(items)
        convolve, seen = F.conv2d, []

        def rounding(x: Tensor, *rest: Any) -> Tensor:
            y = convolve(x, *rest)
            if len(x) != 5:
                return y
            seen.append(x.shape)
            return y * (1 + 2.0**-23)

        monkeypatch.setattr(F, "conv2d", rounding)
        monkeypatch.setattr(integer_conv, "_trusted", {})
        assert all(torch.equal(a, b) for a, b in zip(usual, integers.network.encode(items), strict=True))
        assert seen and not any(integer_conv._trusted.values())
        integers.network.encode(items[:4])
        assert any(integer_conv._trusted.values())


@pytest.mark.parametrize("batch", [0, 1, 50])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_patches_taken_in_pieces_are_the_whole_convolution(batch: int, size: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 99, (batch, 64, 15, 14), generator=generator)
    weight, bias = torch.randint(-99, 99, (5, 64, size, size), generator=generator), torch.arange(5)
    assert (batch * 576 * 15 * 14 > 2 * integer_conv.PATCH_VALUES) == (batch > 1)  # several pieces
    y = integer_conv.patch_conv2d(x.float(), weight.float(), bias.float(), stride)
    padded = F.pad(x, [size // 2] * 4)
    rows, columns = y.shape[2:]
    wanted = bias[None, :, None, None].expand(batch, 5, rows, columns).clone()
    for i in range(size):
        for j in range(size):
            part = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            wanted += torch.einsum("oc,bcrs->bors", weight[:, :, i, j], part[:, :, :rows, :columns])
    assert y.shape == (batch, 5, -(-15 // stride), -(-14 // stride)) and torch.equal(y.long(), wanted)


def test_weights_too_large_for_one_unit_are_quantised_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(next(iter(SHAPES)))
    calibration = random_items(model.config, 4, seed=0)
    usual = quantise_module._quantise_with_unit

    def too_large(model: Network, unit: int) -> quantise_module.IntegerNetwork:
        if unit == rejected:
            raise ValueError("too large")
        return usual(model, unit)

    monkeypatch.setattr(quantise_module, "_quantise_with_unit", too_large)
    for rejected in (256, 128):
        assert quantise(model, calibration).config.unit != rejected
    monkeypatch.setattr(quantise_module, "UNITS", (128,))
    with pytest.raises(ValueError, match="too large"):
        quantise(model, calibration)
