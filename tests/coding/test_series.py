"""The codecs of series: both laws, bits that add up, and results that depend on nothing but the integers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import codecs
from sequences import NOISES, all_latents, config, random_latents, random_network, random_series
from test_laws import BATCH, ENGINES, check_laws
from torch import Tensor
from torch.nn import functional as F

from vaedensity.coding import chains
from vaedensity.coding import quantise as quantise_module
from vaedensity.coding import sequence as sequence_coding
from vaedensity.coding.ans import Stacks
from vaedensity.coding.bits_back import TooShallow
from vaedensity.coding.compiled import fastest_stacks
from vaedensity.coding.quantise import build, coded_bits, quantise
from vaedensity.coding.sequence import SequenceCodec, ValuesCodec
from vaedensity.model import integer_conv, integer_sequence
from vaedensity.model import sequence as sequence_model
from vaedensity.model.integer_conv import IntegerKernel
from vaedensity.model.sequence import SequenceVAE

LEVELS = (2, 20, 33, 256)


def equal(a: object, b: object) -> bool:
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("levels", LEVELS)
def test_laws_of_series(noise: str, levels: int) -> None:
    integers = random_network(noise=noise, levels=levels, length=19)
    items = random_series(integers.config, BATCH, seed=4)
    check_laws(integers.bits_back(), items, equal)
    for engine in ENGINES:
        stacks = engine(BATCH)
        integers.direct().push(stacks, items)
        assert equal(integers.direct().pop(stacks), items)
        assert stacks.is_empty().all()
        assert np.abs(stacks.information).max() < 1e-6


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("length", [1, 16, 40])
def test_laws_of_values(levels: int, length: int) -> None:
    integers = random_network(levels=levels, length=length)
    chosen = random_latents(integers.config, BATCH)
    check_laws(ValuesCodec(integers.network, chosen), random_series(integers.config, BATCH), equal)


def test_bits_are_never_invented() -> None:
    integers = random_network()
    with pytest.raises(TooShallow):
        integers.bits_back().push(Stacks(2), random_series(integers.config, 2))
    with pytest.raises(ValueError, match="particles"):
        integers.bits_back(2)


# Rates


@pytest.mark.parametrize("noise", NOISES)
@torch.no_grad()
def test_bits_are_minus_the_elbo_of_the_integers(noise: str) -> None:
    """Of every draw to a hundredth of a bit, and so on average, by enumeration of the latents."""
    count = 400
    spread = 0.1 if noise == "uniform" else 1.0  # so that the table's floor costs nothing
    integers = random_network(noise=noise, spread=spread, variables=2, categories=3, length=12, levels=20)
    network, c = integers.network, integers.config
    assert isinstance(network, SequenceVAE)
    item = random_series(c, 1)
    mu = (network.encode(item)[0].double() / 16 * np.log(2)).view(2, 3)
    log_q = network.noise.log_probs(mu)
    log_p = torch.log_softmax(integers.start.double().view(2, 3) / 16 * np.log(2), 1)
    z = all_latents(c)
    values = item.flatten(1).long().expand(len(z), -1)
    logits = network.logits(values, F.one_hot(z, 3).float()).double() / 16 * np.log(2)
    likelihood = -F.cross_entropy(logits.transpose(1, 2), values, reduction="none").sum(1)
    rows = torch.arange(2)
    q = log_q[rows, z].sum(1)
    bits = (q - log_p[rows, z].sum(1) - likelihood) / np.log(2)  # of each z
    elbo, spread = float((q.exp() * bits).sum()), float(bits.std())
    assert spread > 0.05 and float(q.exp().sum()) == pytest.approx(1)

    stacks = fastest_stacks().random(count, 200, 1)
    codec = integers.bits_back()
    assert isinstance(codec, SequenceCodec)
    items = item.expand(count, -1, -1, -1)
    drawn = codec._posterior(items).pop(fastest_stacks().random(count, 200, 1))
    codec.push(stacks, items)
    expected = bits[drawn[:, 0] * 3 + drawn[:, 1]].numpy()
    assert np.abs(stacks.information - expected).max() < 0.01
    assert stacks.information.mean() == pytest.approx(elbo, abs=4.5 * expected.std() / count**0.5 + 0.01)


def test_quantising_chooses_the_smaller_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    from sequences import quantised, random_model

    model = random_model(noise="normal")
    items = random_series(model.config, 24)
    integers = quantise(model, items)
    rates = {unit: coded_bits(quantised(model, unit), items) for unit in (128, 256)}
    assert integers.is_sequence and integers.direct_steps == []
    assert coded_bits(integers, items) == min(rates.values())
    with torch.no_grad():
        log_likelihood, (divergence,) = model.elbo_terms(items, torch.randn(24, model.noise_dim))
    real = float((divergence - log_likelihood).mean()) / np.log(2)
    assert coded_bits(integers, items) == pytest.approx(real, rel=0.05)


# What must not matter


@pytest.mark.parametrize("length", [1, 40])
def test_slices_and_batches_do_not_matter(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    integers = random_network(length=length, levels=33)
    parts = list(random_series(integers.config, 11).numpy().reshape(11, 1, 1, 1, length))
    whole = chains.encode_chains(codecs(integers), parts)
    assert [chains.encode_chains(codecs(integers), [part]).words[0] for part in parts] == whole.words
    for positions in (4, 28, 120):  # a position at a time, seven, three series
        monkeypatch.setattr(sequence_coding, "PASS_POSITIONS", positions)
        monkeypatch.setattr(sequence_model, "PASS_POSITIONS", positions)
        assert chains.encode_chains(codecs(integers), parts).words == whole.words
    back = chains.decode_chains(codecs(integers), whole.words[:3], [1] * 3, whole.plan, integers.config.item_shape)
    assert all(np.array_equal(a, b) for a, b in zip(back, parts))


def test_without_exact_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    integers = random_network()
    network, items = integers.network, random_series(integers.config, 5)
    assert isinstance(network, SequenceVAE)
    values, chosen = items.flatten(1).long(), random_latents(network.config, 5)

    def results() -> list[Tensor]:
        with torch.no_grad():
            steps = network.steps(chosen)
            first = steps.next(torch.full((5,), network.config.levels))
            return [network.logits(values, chosen), first, steps.next(values[:, 0]), *network.encode(items)]

    usual, seen = results(), []
    assert all(integer_conv._trusted.values())
    linear = F.linear
    monkeypatch.setattr(integer_sequence, "trusted", lambda kind, test: False)
    monkeypatch.setattr(F, "linear", lambda x, w, b=None: seen.append(x.dtype) or linear(x, w, b))
    assert all(torch.equal(a, b) for a, b in zip(usual, results(), strict=True))
    assert set(seen) == {torch.float64}


def test_inexact_matrix_products_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = F.linear

    def coarse(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return linear(x.bfloat16(), w.bfloat16()).float() if x.dtype == torch.float32 else linear(x, w, b)

    x, matrix, bias = (torch.randint(-999, 999, shape).float() for shape in ((3, 7), (5, 7), (5,)))
    usual = integer_sequence.product(x, matrix, bias, True)
    monkeypatch.setattr(F, "linear", coarse)
    monkeypatch.setattr(integer_conv, "_trusted", {})
    assert torch.equal(integer_sequence.product(x, matrix, bias, True), usual)
    assert list(integer_conv._trusted.values()) == [False]


# The proof that guards the integers


def test_integers_beyond_the_bound_are_rejected() -> None:
    integers = random_network()
    good = integers.kernels

    def rebuild(name: str, **changes: Tensor) -> None:
        build(integers.config, good | {name: replace(good[name], **changes)}, integers.start, [])

    wide = torch.full_like(good["blocks.0.convolution"].weight, 32767)
    with pytest.raises(ValueError, match=r"blocks\.0\.convolution: a partial sum"):
        rebuild("blocks.0.convolution", weight=wide)
    with pytest.raises(ValueError, match="a stream can reach"):
        rebuild(
            "latent_in",
            shift=torch.full_like(good["latent_in"].shift, -4),
            weight=wide[:12, :1, :, :1].expand(good["latent_in"].weight.shape) // 8,
            bias=torch.full_like(good["latent_in"].bias, 2**20),
        )
    with pytest.raises(ValueError, match="out of range"):
        rebuild("head", shift=torch.full_like(good["head"].shift, 21))
    with pytest.raises(ValueError, match="head: integer weights of shape"):
        rebuild("head", weight=good["head"].weight[:-1])
    with pytest.raises(ValueError, match="start map"):
        build(integers.config, dict(good), integers.start[:, :-1], [])
    with pytest.raises(ValueError, match="start map"):
        build(integers.config, dict(good), torch.full_like(integers.start, 2**20), [])
    with pytest.raises(ValueError, match=r"layers \['head'\] do not match"):
        build(integers.config, {name: k for name, k in good.items() if name != "head"}, integers.start, [])
    with pytest.raises(ValueError, match="direct steps"):
        build(integers.config, dict(good), integers.start, [[1]])


def test_sums_over_latents_are_bounded_together() -> None:
    """Each alone would be below 2^24."""
    c = config(variables=256, categories=2)
    kernels = {name: layer.quantise() for name, layer in SequenceVAE(c).integer_convs().items()}
    start = torch.zeros(1, 512, 1, 1, dtype=torch.int32)
    latent = kernels["latent_in"]
    extreme = IntegerKernel(torch.full_like(latent.weight, 32767), latent.bias.fill_(2**23 - 1), latent.shift.fill_(20))
    build(c, kernels | {"latent_in": extreme}, start, [])  # 256 * 32767 + 2^23 - 1 is the most that fits
    beyond = replace(extreme, bias=torch.full_like(latent.bias, 2**23 + 300))
    with pytest.raises(ValueError, match="a sum over latents"):
        build(c, kernels | {"latent_in": beyond}, start, [])


def test_tables_are_bytes() -> None:
    integers = random_network(spread=5.0)
    tables = {name for name, k in integers.kernels.items() if k.weight.dtype == torch.int8}
    assert tables == {"patch_table", "value_table", "context_tables.0", "context_tables.1"}
    assert all(int(integers.kernels[name].weight.abs().max()) > 63 for name in tables)  # else a finer shift would fit
    assert quantise_module.words_enough(integers.bits_back()) == 64 + 3 // 2
