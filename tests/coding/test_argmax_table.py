"""Which noisy number is the largest, in integers: against exact arithmetic, and against the float twin."""

import hashlib
from math import isqrt, log, sqrt

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from vaedensity.coding import argmax_table as module
from vaedensity.coding.argmax_table import GAPS, NEVER, ArgmaxTable, argmax_table, rule
from vaedensity.coding.codec import FLOOR, floored
from vaedensity.coding.fixed_log import fixed_power
from vaedensity.coding.integer_math import ONE
from vaedensity.coding.pixel_table import CategoricalTable
from vaedensity.coding.tables import TOTAL
from vaedensity.errors import UsageError
from vaedensity.model.argmax import ArgmaxNoise, Exponential, Gumbel, Normal, Uniform

FLOAT: dict[str, ArgmaxNoise] = {
    "gumbel": Gumbel(),
    "exponential": Exponential(),
    "normal": Normal(),
    "uniform": Uniform(),
}
# Archives depend on every entry: a change here needs a new format version.
DIGESTS = {
    "exponential": "a3c392a0288d05b0d686cbc8f8cb25f10fd287bdced7700fe637226e0dadc527",
    "normal": "cfebc8022ca44b3c6f731e412eec106887e17a595fa6483a3e146bc1fc33ec50",
    "uniform": "235aee66fc21859dc8716c4dbf31d9ac80ff12960323d5882ba2439d2ddf7dce",
}
SIXTEENTH = log(2) / 16  # nats
LIMIT = 2**20
every_noise = pytest.mark.parametrize("noise", FLOAT)
every_rule = pytest.mark.parametrize("noise", DIGESTS)


def logits(k: int, spread: float = 2.0, batch: int = 2, count: int = 50, seed: int = 0) -> Tensor:
    """Whole sixteenths of an octave (B,k,n) float32, of standard deviation ``spread`` nats."""
    normal = torch.randn(batch, k, count, generator=torch.Generator().manual_seed(seed + k))
    steps: Tensor = (normal * (spread / SIXTEENTH)).round()
    return steps


def boundaries(parameters: Tensor, noise: str) -> Tensor:
    """Mass below each of 0..k, (B,n,k+1)."""
    return argmax_table(parameters, noise).cumulative(torch.arange(parameters.shape[1] + 1))


def power(deficit: int) -> int:
    """2^30 * 2^-d, d = ``deficit`` cut to 2^-12 of a bit: square roots of 1/2 in 256 bits, in the order of d's
    digits."""
    cells, value, root = deficit >> 8, 1 << 256, 1 << 255
    for digit in range(11, -1, -1):
        root = isqrt(root << 256)
        if cells >> digit & 1:
            value = value * root >> 256
    return (value >> 226) >> (cells >> 12)


def oracle(mu: list[int], noise: str) -> list[int]:
    """Mass below 0..k by Python's unlimited integers, straight from p_i's definition."""
    below, density = (table.tolist() for table in rule(noise))
    gaps = [min(max(mu) - m, GAPS - 1) for m in mu]
    mass = []
    for i in range(len(mu)):
        others = gaps[:i] + gaps[i + 1 :]
        nodes = range(len(below))
        mass.append(sum(power(density[t][gaps[i]] + sum(below[t][g] for g in others)) for t in nodes))
    return [sum(mass[:i]) * TOTAL // sum(mass) for i in range(len(mu) + 1)]


@every_rule
@pytest.mark.parametrize("k", [2, 3, 7, 32])
def test_equals_unlimited_integers(noise: str, k: int) -> None:
    for spread in (0.0, 0.3, 2.0, 20.0):
        mu = logits(k, spread, 1, 3)
        expected = [oracle(column, noise) for column in mu[0].T.long().tolist()]
        assert boundaries(mu, noise)[0].tolist() == expected


@every_rule
def test_masses_fit_in_64_bits(noise: str) -> None:
    below, density = rule(noise)
    assert (below >= 0).all() and (density >= 0).all()
    assert (fixed_power(density).sum(0) < 8 << 30).all()  # 8 * 2^30 * 32 symbols * 2^24 = 2^62


@every_noise
@pytest.mark.parametrize("k", [2, 3, 4, 8, 16, 32])
def test_close_to_the_exact_distribution(noise: str, k: int) -> None:
    """Worst measured: 3.7e-6 nats at k = 32, 1.8e-6 at k = 16; for Gumbel noise, whose weights have 16 bits, 4.8e-4.

    Powers are cut to 2^-12 of a bit, or 1.7e-4 of themselves, which moves p by up to 1.7e-4 p (1 - p)."""
    for spread in (0.0, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0):
        mu = logits(k, spread, 2, 60)
        log_p = FLOAT[noise].log_probs(mu.transpose(1, 2).double() * SIXTEENTH)
        ends = torch.arange(k + 1)
        coded = floored(boundaries(mu, noise), ends, k).diff(dim=-1) / TOTAL
        p = log_p.exp()
        kl = (p * (log_p.where(p > 0, 0.0) - coded.log())).sum(-1)
        assert kl.max() < (2e-3 if noise == "gumbel" else 5e-6)
        assert (coded - p).abs().max() < (1e-3 if noise == "gumbel" else 5e-5)


@every_noise
@pytest.mark.parametrize("k", [2, 5, 32])
@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 1e9])
def test_is_a_distribution_in_the_order_of_mu(noise: str, k: int, spread: float) -> None:
    mu = logits(k, spread).clamp(-LIMIT, LIMIT)
    mu[:, k // 2] = mu[:, 0]
    ends, mass = torch.arange(k + 1), boundaries(mu, noise)
    assert mass.shape == (2, 50, k + 1) and mass.dtype == torch.float64
    assert (mass[..., 0] == 0).all() and (mass[..., -1] == TOTAL).all() and (mass == mass.floor()).all()
    share = mass.diff(dim=-1)
    assert (share >= 0).all() and (floored(mass, ends, k).diff(dim=-1) >= FLOOR).all()
    mu = mu.transpose(1, 2)
    assert (share.gather(-1, mu.argsort(-1)).diff(dim=-1) >= -1).all()  # one: what rounding boundaries down can do
    assert ((share[..., k // 2] - share[..., 0]).abs() <= 1).all()
    if spread == 2.0 and k > 2:
        assert (share.amax(-1) - share.amin(-1) > TOTAL / 100).all()


@every_noise
def test_only_differences_of_mu_count(noise: str) -> None:
    mu = logits(6)
    expected = boundaries(mu, noise)
    for shift in (-LIMIT + 2000, -1, 7, LIMIT - 2000):
        assert (boundaries(mu + shift, noise) == expected).all()
    mu[0, 3] += 1
    assert (boundaries(mu, noise)[1] == expected[1]).all() and (boundaries(mu, noise)[0] != expected[0]).any()


@every_noise
def test_stacks_do_not_mix(noise: str) -> None:
    mu = logits(5, batch=8)
    together = boundaries(mu, noise)
    for b in range(8):
        assert (boundaries(mu[b : b + 1], noise)[0] == together[b]).all()
    assert (boundaries(mu.flip(2), noise) == together.flip(1)).all()
    assert (boundaries(mu.long(), noise) == together).all()


@every_noise
def test_table_protocol(noise: str) -> None:
    table = argmax_table(logits(9, count=4), noise)
    assert (table.size, table.count, table.rows()) == (9, 4, None)
    mass = table.cumulative(torch.arange(10))
    single = torch.randint(0, 10, (2, 4, 3), generator=torch.Generator().manual_seed(1))
    assert (table.cumulative(single) == mass.gather(2, single)).all()
    first = torch.tensor([[0, 1, 2, 9]]).expand(2, 4)
    assert (table.grid(first, 2) == mass.gather(2, (first[..., None] + 2 * torch.arange(17)).clamp(max=9))).all()


def test_gumbel_noise_is_the_categorical_table() -> None:
    mu = logits(12)
    assert (boundaries(mu, "gumbel") == CategoricalTable(mu).cumulative(torch.arange(13))).all()


def test_refuses_what_it_was_not_proven_for() -> None:
    for k in (1, 33):
        with pytest.raises(UsageError, match="symbols"):
            ArgmaxTable(logits(k), "normal")
    with pytest.raises(UsageError, match="cauchy"):
        argmax_table(logits(3), "cauchy")


@every_rule
def test_rules_are_frozen(noise: str) -> None:
    tables = b"".join(table.astype("<i8").tobytes() for table in rule(noise))
    assert hashlib.sha256(tables).hexdigest() == DIGESTS[noise]
    assert not any(table.flags.writeable for table in rule(noise))


@pytest.mark.parametrize("nodes", [2, 16])
def test_gauss_legendre_nodes(nodes: int) -> None:
    found = module._gauss_legendre(nodes)
    for degree in range(2 * nodes):
        integral = sum(weight * x**degree // ONE**degree for x, weight in found)
        assert abs(integral - ONE // (degree + 1)) < 2**16  # of 2^96
    x, weight = leggauss(nodes)
    assert np.allclose(np.array(found, float) / ONE, np.stack([0.5 + 0.5 * x, 0.5 * weight], 1), rtol=1e-12, atol=0)


def test_rules_hold_what_they_say() -> None:
    """Every entry against float64; a logarithm of 24 leading bits errs by 2^-18 of a bit."""
    gap = SIXTEENTH * np.arange(GAPS)
    bits = {noise: (rule(noise).below / 2**20, rule(noise).density / 2**20) for noise in DIGESTS}

    x, weight = leggauss(16)
    s, weight = (0.5 + 0.5 * x)[:, None], (0.5 * weight)[:, None]
    below, density = bits["exponential"]
    assert np.abs(below + np.log2(1 - np.exp(-gap) * s)).max() < 2**-17
    assert np.abs(density - gap / log(2) + np.log2(weight)).max() < 2**-17

    y = 12 * SIXTEENTH * np.arange(-12, 13)[:, None] + gap
    below, density = bits["normal"]
    # Middles of cells an eighth of a sixteenth wide stand for them: the density errs by up to 5e-5 of itself.
    assert np.abs(below + torch.special.log_ndtr(torch.from_numpy(y)).numpy() / log(2)).max() < 1e-4
    assert np.abs(density - y * y / (2 * log(2))).max() < 2**-19

    place = 0.5 + np.array([-0.5, 0.5]) / sqrt(3)
    start = SIXTEENTH * np.arange(24)
    width = np.minimum(SIXTEENTH, 1 - start)
    r, half = (start[:, None] + width[:, None] * place).reshape(-1, 1), np.repeat(width / 2, 2)[:, None]
    below, density = bits["uniform"]
    assert np.abs(below + np.log2(1 - np.maximum(0, r - gap))).max() < 2**-17
    assert np.abs(density - np.where(r > gap, -np.log2(half), NEVER / 2**20)).max() < 2**-17
