"""The sequence network: causality, one position at a time, whole numbers against int64, gradients, configurations."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sequences import NOISES, config, quantised, random_latents, random_model, random_network, random_series

from vaedensity.coding.quantise import IntegerNetwork
from vaedensity.model.decoder_state import context_cells
from vaedensity.model.integer_conv import Grid, IntegerKernel
from vaedensity.model.integer_sequence import IntegerGatedBlock
from vaedensity.model.kinds import config_from_json
from vaedensity.model.sequence import SequenceVAE
from vaedensity.model.sequence_config import SEQUENCE_PRESETS, SequenceConfig, sequence_config

Ints = NDArray[np.int64]


def network_of(exact: bool, **changes: object) -> SequenceVAE:
    if not exact:
        return random_model(**changes)
    network = random_network(**changes).network
    assert isinstance(network, SequenceVAE)
    return network


# The likelihood


@pytest.mark.parametrize("exact", [False, True])
@torch.no_grad()
def test_a_position_sees_what_is_before_it_and_nothing_else(exact: bool) -> None:
    model = network_of(exact)
    values, chosen = random_series(model.config, 2).flatten(1).long(), random_latents(model.config, 2)
    before = model.logits(values, chosen)
    for t in (0, 1, 15, 16, 38, 39):
        changed = values.clone()
        changed[:, t] = 255 - changed[:, t]
        after = model.logits(changed, chosen)
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
        seen = [t + 1, t + 2, t + 3, t + 10]  # by the table of values, the contexts, and a block of dilation 5
        assert all(not torch.equal(after[:, s], before[:, s]) for s in seen if s < 40)
    assert not torch.equal(model.logits(values, chosen.flip(2))[:, 0], before[:, 0])
    assert not torch.equal(model.logits(values, chosen.flip(2))[:, 39], before[:, 39])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("contexts", [(), (2, 3), (2, 7, 16)])
@pytest.mark.parametrize("levels", [2, 256])
@torch.no_grad()
def test_steps_equal_the_pass_over_all_positions(exact: bool, contexts: tuple[int, ...], levels: int) -> None:
    for length, batch in ((1, 1), (1, 5), (16, 5), (17, 1), (40, 5)):
        model = network_of(exact, contexts=contexts, levels=levels, length=length)
        values, chosen = random_series(model.config, batch).flatten(1).long(), random_latents(model.config, batch)
        steps, last, found = model.steps(chosen), torch.full((batch,), levels), []
        for t in range(length):
            found.append(steps.next(last))
            last = values[:, t]
        whole = model.logits(values, chosen)
        assert whole.shape == (batch, length, levels) and float(whole.std()) > 0.01
        if exact:
            assert torch.equal(torch.stack(found, 1), whole) and torch.equal(whole, whole.round())
        else:
            torch.testing.assert_close(torch.stack(found, 1), whole, atol=1e-4, rtol=1e-4)


def test_context_cells() -> None:
    before = torch.randint(0, 257, (3, 4, 16), generator=torch.Generator().manual_seed(0))
    for contexts, bits in (((2, 3), 12), ((2, 5, 16), 20), ((16,), 2)):
        cells = context_cells(before, contexts, bits)
        assert len(cells) == len(contexts)
        for n, found in zip(contexts, cells):
            for place in np.ndindex(3, 4):
                h = 0
                for v in before[place][:n].tolist():
                    h = (h * 1103515245 + v + 1) % (2**31 - 1)
                assert int(found[place]) == h % 2**bits
    assert context_cells(before, (), 12) == []
    top = torch.full((1, 16), 256)
    assert 0 <= int(context_cells(top, (16,), 20)[0]) < 2**20  # without running over


# Whole numbers


def rounded(sums: Ints, shift: Ints) -> Ints:
    """sums 2^-shift, rounded half to even."""
    whole = sums << np.maximum(0, -shift)
    unit = np.int64(1) << np.maximum(0, shift)
    below, rest = whole // unit, whole % unit
    return below + ((2 * rest > unit) | ((2 * rest == unit) & (below % 2 == 1)))


def parts(kernel: IntegerKernel) -> tuple[Ints, Ints, Ints]:
    weight, bias, shift = (t.numpy().astype(np.int64) for t in (kernel.weight, kernel.bias, kernel.shift))
    return weight[:, :, 0] if kernel.weight.shape[2] == 1 else weight[..., 0], bias, shift


def oracle_conv(kernel: IntegerKernel, x: Ints, dilation: int = 1, causal: bool = False) -> Ints:
    """(B,T,O) of (B,T,I), tap by tap and position by position."""
    (weight, bias, shift), length = parts(kernel), x.shape[1]
    taps, sums = weight.shape[2], np.tile(bias, (*x.shape[:2], 1))
    for tap in range(taps):
        offset = (tap - (taps - 1)) * dilation if causal else (tap - taps // 2) * dilation
        for t in range(length):
            if 0 <= t + offset < length:
                sums[:, t] += x[:, t + offset] @ weight[:, :, tap].T
    return rounded(sums, shift)


def oracle_table(kernel: IntegerKernel, symbols: Ints) -> Ints:
    weight, bias, shift = parts(kernel)
    return rounded(weight[..., 0].T + bias, shift)[symbols]


def oracle_block(kernel: IntegerKernel, x: Ints, unit: int, dilation: int, causal: bool) -> Ints:
    gate, h = np.split(oracle_conv(kernel, x, dilation, causal), 2, -1)
    h = np.clip(h, -8 * unit, 8 * unit - 1)
    a = np.clip(gate, -4 * unit, 4 * unit)
    s = 128 + 8 * a * (8 * unit - abs(a)) // unit**2
    assert s.min() >= 0 and s.max() <= 256
    return (s * x + (256 - s) * h + 128) // 256


def oracle_logits(integers: IntegerNetwork, values: Ints, index: Ints) -> Ints:
    c, kernels = integers.config, integers.kernels
    assert isinstance(c, SequenceConfig)
    count, length = values.shape
    weight, bias, shift = parts(kernels["latent_in"])
    picked = sum(weight[:, v * c.categories + index[:, v], 0] for v in range(c.variables))
    h = np.repeat(rounded(picked.T + bias, shift)[:, None], length, 1)
    for t in range(length):
        past = [values[:, t - 1 - j] if t - 1 - j >= 0 else np.full(count, c.levels) for j in range(16)]
        h[:, t] += oracle_table(kernels["value_table"], past[0])
        for i, n in enumerate(c.contexts):
            cell = np.zeros(count, np.int64)
            for v in past[:n]:
                cell = (cell * 1103515245 + v + 1) % (2**31 - 1)
            h[:, t, : c.context_width] += oracle_table(kernels[f"context_tables.{i}"], cell % 2**c.context_bits)
    h = np.clip(h, -8 * c.unit, 8 * c.unit - 1)
    for i, dilation in enumerate(c.dilations):
        h = oracle_block(kernels[f"blocks.{i}.convolution"], h, c.unit, dilation, causal=True)
    return oracle_conv(kernels["head"], h)


def oracle_encode(integers: IntegerNetwork, values: Ints) -> Ints:
    c, kernels = integers.config, integers.kernels
    low, high = -8 * c.unit, 8 * c.unit - 1
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % 16)), constant_values=c.levels)
    rows = np.clip(oracle_table(kernels["patch_table"], padded), low, high)
    h = np.clip(oracle_conv(kernels["patch_in"], rows.reshape(len(values), -1, 256)), low, high)
    for i, dilation in enumerate((1, 2, 5)):
        h = oracle_block(kernels[f"encoder.{i}.convolution"], h, c.unit, dilation, causal=False)
    mean = (2 * h.sum(1) + h.shape[1]) // (2 * h.shape[1])
    relative = oracle_conv(kernels["posterior_head"], mean[:, None])[:, 0]
    return integers.start.flatten().numpy() + np.clip(relative, -128, 128)


@pytest.mark.parametrize(("unit", "length"), [(64, 17), (128, 40), (256, 33), (256, 5)])
@torch.no_grad()
def test_network_equals_int64_oracle(unit: int, length: int) -> None:
    integers = random_network(unit=unit, length=length, spread=2.0)
    network, c = integers.network, integers.config
    assert isinstance(network, SequenceVAE)
    items, chosen = random_series(c, 4), random_latents(c, 4)
    values, index = items.flatten(1).long().numpy(), chosen.argmax(2).numpy()
    logits, posterior = network.logits(torch.from_numpy(values), chosen), network.encode(items)[0]
    assert np.array_equal(logits.numpy(), oracle_logits(integers, values, index)) and float(logits.std()) > 10
    assert np.array_equal(posterior.numpy(), oracle_encode(integers, values))
    assert not torch.equal(posterior[0], posterior[1])


def test_a_gate_is_nearly_a_sigmoid() -> None:
    block = IntegerGatedBlock(1, 1, Grid(128.0, -1024, 1023), causal=True, dropout=0.0)
    gate = torch.linspace(-12, 12, 4001)[:, None]
    s = block.mix(torch.ones_like(gate), torch.cat([gate, torch.zeros_like(gate)], 1))
    assert 0.02 < float((s - gate.sigmoid()).abs().max()) < 0.03
    assert bool((s.diff(dim=0) >= 0).all()) and float(s[0]) == 0 and float(s[-1]) == 1
    torch.testing.assert_close(s + s.flip(0), torch.ones_like(s))


@pytest.mark.parametrize("unit", [128, 256])
@torch.no_grad()
def test_the_quantised_network_is_near_and_nearer_to_its_fake_quantisation(unit: int) -> None:
    model = random_model(seed=3, unit=unit)
    integers = quantised(model, unit).network
    assert isinstance(integers, SequenceVAE)
    items, chosen = random_series(model.config, 8), random_latents(model.config, 8)
    values = items.flatten(1).long()
    exact, posterior = integers.logits(values, chosen) / 16, integers.encode(items)[0] / 16

    def errors() -> tuple[float, float]:
        distance = (model.logits(values, chosen) - exact).abs().mean()
        return float(distance), float((model.encode(items)[0] - posterior).abs().mean())

    free = errors()
    model.fake_quantise(True)
    fake_quantised = errors()
    model.fake_quantise(False)
    assert max(free) < 0.1 and errors() == free
    assert fake_quantised[0] < free[0] and fake_quantised[1] < 0.05


# Training


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_gradients_are_finite_and_reach_everything(noise: str, spread: float) -> None:
    model = random_model(noise=noise, spread=spread).train()
    items = random_series(model.config, 6)
    log_likelihood, (divergence,) = model.elbo_terms(items, torch.randn(6, model.noise_dim))
    assert log_likelihood.shape == divergence.shape == (6,) and bool((divergence >= -1e-4).all())
    torch.autograd.backward((divergence - log_likelihood).sum())
    for name, p in model.named_parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all()), name
        assert spread > 1 or float(p.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("noise", NOISES)
def test_the_posterior_learns_from_the_likelihood(noise: str) -> None:
    """Straight through the category that was drawn."""
    model = random_model(noise=noise)
    log_likelihood, _ = model.elbo_terms(random_series(model.config, 6), torch.randn(6, model.noise_dim))
    (gradient,) = torch.autograd.grad(log_likelihood.sum(), [model.posterior_head.weight])
    assert float(gradient.abs().sum()) > 1e-3


def test_it_begins_with_the_frequencies_it_looked_at() -> None:
    model, data = SequenceVAE(config(levels=4)), np.array([[[[0, 0, 0, 1, 1, 3]]]], np.uint8)
    model.look_at(data)
    share = torch.softmax(model.head.bias * np.log(2), 0)
    torch.testing.assert_close(share, torch.tensor([3.5, 2.5, 0.5, 1.5]) / 8)


# Configurations


@pytest.mark.parametrize(
    "change",
    [
        {"length": 0},
        {"length": 65537},
        {"length": 40.0},
        {"length": "40"},
        {"length": True},
        {"levels": 1},
        {"levels": 257},
        {"variables": 0},
        {"variables": 257},
        {"categories": 1},
        {"categories": 33},
        {"width": 0},
        {"width": 1025},
        {"encoder_width": 0},
        {"dilations": ()},
        {"dilations": (1,) * 65},
        {"dilations": (0,)},
        {"dilations": (513,)},
        {"dilations": (1.0,)},
        {"noise": "cauchy"},
        {"noise": 3},
        {"contexts": (1,)},
        {"contexts": (17,)},
        {"contexts": (3, 2)},
        {"contexts": (2, 2)},
        {"contexts": (2.0,)},
        {"context_bits": 1},
        {"context_bits": 21},
        {"context_width": 0},
        {"context_width": 13},
        {"dropout_percent": -1},
        {"dropout_percent": 100},
        {"unit": 100},
    ],
)
def test_impossible_configurations_are_rejected(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="model configuration"):
        config(**change)


def test_configurations_as_json() -> None:
    for preset in SEQUENCE_PRESETS:
        c = sequence_config(preset, 100, 20, "uniform")
        assert config_from_json(c.to_json()) == c and c.to_json()["kind"] == "sequence"
        assert (c.dims, c.item_shape, c.noise) == (100, (1, 1, 100), "uniform")
    with pytest.raises(ValueError, match="kind 'film'"):
        config_from_json(c.to_json() | {"kind": "film"})
    with pytest.raises(ValueError, match="'height' is not known"):
        config_from_json(c.to_json() | {"height": 8})
