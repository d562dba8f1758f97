"""Coupled particles: both laws, the promised rate against independent particles, and initial bits that do not grow."""

import math

import numpy as np
import pytest
import torch
from networks import SHAPES, random_items, random_network
from test_laws import BATCH, check_laws

from vaedensity.coding.ans import Stacks
from vaedensity.coding.bits_back import TooShallow
from vaedensity.coding.coupled import (
    ByWeight,
    CoupledBitsBack,
    EqualCells,
    QuantileCodec,
    Quantiles,
    UniformCodec,
    rotations,
)
from vaedensity.coding.integer_math import LOG_BITS
from vaedensity.coding.quantise import IntegerNetwork
from vaedensity.coding.tables import TOTAL


def same(a: object, b: object) -> bool:
    return bool((np.asarray(a) == np.asarray(b)).all())


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("ends_first", [False, True])
def test_laws(kind: str, ends_first: bool) -> None:
    network = random_network(kind)
    check_laws(network.bits_back(3, ends_first), random_items(network.config, BATCH, seed=4), same)


@pytest.mark.parametrize("particles", [2, 16, 40, 256])
def test_laws_with_many_particles(particles: int) -> None:
    network = random_network("binary")
    check_laws(network.bits_back(particles), random_items(network.config, BATCH, seed=4), same)


def naive_bits(network: IntegerNetwork, items: torch.Tensor, particles: int) -> np.ndarray:
    """What K independent particles take for each item: bits-back from K stacks of random bits, each push being worth
    -log2 of one weight. Coding so would need K times the initial bits; it only says what the rate should be."""
    pushes = []
    for k in range(particles):
        stacks = Stacks.random(len(items), 2000, 100 + k)
        network.bits_back().push(stacks, items)
        pushes.append(stacks.information)
    bits = np.stack(pushes)
    return bits.min(0) - np.log2(np.exp2(bits.min(0) - bits).mean(0))


@pytest.mark.parametrize(
    ("kind", "particles", "ends_first"), [("grey", 4, False), ("grey", 4, True), ("binary", 16, False)]
)
def test_rate_is_that_of_independent_particles(kind: str, particles: int, ends_first: bool) -> None:
    network, count = random_network(kind), 400
    items = random_items(network.config, count, seed=7)
    one, many = Stacks.random(count, 2000, 1), Stacks.random(count, 2000, 1)
    network.bits_back().push(one, items)
    network.bits_back(particles, ends_first).push(many, items)
    naive = naive_bits(network, items, particles)
    gain, difference = one.information - many.information, many.information - naive
    error = difference.std() / math.sqrt(count)
    assert gain.mean() > 5 * error, "particles gain nothing here, so that this test says nothing"
    assert abs(difference.mean()) < 4 * error + 0.002 * naive.mean()


def test_information_is_what_leaves_and_enters_the_stacks() -> None:
    network = random_network("grey")
    stacks = Stacks.random(BATCH, 4000, 5)
    before = stacks.depth_bits()
    network.bits_back(8).push(stacks, random_items(network.config, BATCH, seed=4))
    assert (
        np.abs(stacks.depth_bits() - before - stacks.information).max() < 40
    )  # a word, and what depth_bits leaves out


def test_initial_bits_do_not_grow_with_particles() -> None:
    network = random_network("grey")
    item = random_items(network.config, 1, seed=4)
    least = {}
    for particles in (2, 64):
        for words in range(1, 200):
            try:
                network.bits_back(particles).push(Stacks.random(1, words, 0), item)
            except TooShallow:
                continue
            least[particles] = words
            break
    assert least[2] == least[64] <= 24 * network.bits_back(2).latents // 32 + 8


def test_bits_are_never_invented() -> None:
    network = random_network("grey")
    with pytest.raises(TooShallow):
        network.bits_back(4).push(Stacks(BATCH), random_items(network.config, BATCH))


@pytest.mark.parametrize("particles", [0, 1, 257])
def test_senseless_numbers_of_particles(particles: int) -> None:
    with pytest.raises(ValueError, match="expected 2 to 256"):
        CoupledBitsBack(particles, 10, lambda items, copies: None)  # type: ignore[arg-type, return-value]


def test_places_in_intervals() -> None:
    rng = np.random.default_rng(0)
    room = rng.integers(1, TOTAL + 1, (BATCH, 300))
    room[:, :100] = rng.integers(1, 100, (BATCH, 100))
    room[:, :6] = [1, 2, 16, 17, TOTAL - 1, TOTAL]
    symbol = rng.integers(0, room)
    stacks = Stacks.random(BATCH, 4000, seed=5)
    start = stacks.to_bytes()
    UniformCodec(room).push(stacks, symbol)
    assert np.abs(stacks.information - np.log2(room).sum(1)).max() < 0.01
    assert same(UniformCodec(room).pop(stacks), symbol) and stacks.to_bytes() == start


def test_a_popped_uniform_number_is_uniform() -> None:
    stacks = Stacks.random(1, 40_000, seed=5)
    n = 20_000
    numbers = UniformCodec(np.full((1, n), TOTAL)).pop(stacks)[0]
    assert stacks.information[0] == pytest.approx(-24 * n)
    counts = np.bincount(numbers >> 18, minlength=64)
    assert ((counts - n / 64) ** 2 / (n / 64)).sum() < 110  # chi-squared, 63 degrees: above it once in 4000


def test_quantiles_return_to_their_symbols() -> None:
    from vaedensity.coding.latent_table import LatticeGaussian

    rng = np.random.default_rng(0)
    mean, scale = torch.from_numpy(rng.integers(-700, 700, (4, 60))), torch.from_numpy(rng.integers(-20, 30, (4, 60)))
    numbers = rng.integers(0, TOTAL, (4, 60))
    numbers[:, :2] = [0, TOTAL - 1]
    source, codec = Quantiles(numbers), QuantileCodec(LatticeGaussian(mean, scale))
    symbols = codec.pop(source)
    lower, width = source.intervals()
    assert (lower <= numbers).all() and (numbers < lower + width).all()
    again = Quantiles()
    codec.push(again, symbols)
    assert same(again.intervals()[0], lower) and same(again.intervals()[1], width)


def test_rotations_are_spread_and_fixed() -> None:
    turns = rotations(64, 500)
    assert (turns[0] == 0).all() and turns.min() >= 0 and turns.max() < TOTAL
    assert abs(turns[1:].mean() / TOTAL - 0.5) < 0.01
    assert turns[1:4, :3].tolist() == rotations(5, 1000)[1:4, :3].tolist() == PINNED


PINNED = [[4589884, 15204225, 10087859], [12503775, 7407740, 9210322], [12721645, 11487269, 8817730]]


def test_weights_become_probabilities() -> None:
    log_weights = np.array([[0.0, -1.0, -3.5, -80.0], [5.0, 5.0, 5.0, 5.0]])
    table = ByWeight((log_weights * 2**LOG_BITS).astype(np.int64))
    mass = table.cumulative(torch.arange(5)).diff(dim=-1)[:, 0].numpy() / 2**24
    expected = np.exp2(log_weights) / np.exp2(log_weights).sum(1, keepdims=True)
    assert np.abs(mass - expected).max() < 1e-3
    cells = EqualCells(np.full((1, 1), 7), 7, 1)
    assert np.abs(cells.cumulative(torch.arange(8)).diff(dim=-1).numpy() / 2**24 - 1 / 7).max() < 1e-6


def test_a_code_that_is_no_particles_makes_the_item_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 32 particles are coded in two digits, of which some belong to none."""
    codec = random_network("grey").bits_back(40)

    def illegal(self: object, stacks: object) -> None:
        raise ValueError("a symbol lies outside its alphabet")

    monkeypatch.setattr("vaedensity.coding.coupled.TableCodec.pop", illegal)
    numbers = np.zeros((BATCH, codec.latents), np.int64)
    monkeypatch.setattr("vaedensity.coding.coupled.UniformCodec.pop", lambda self, stacks: numbers)
    with pytest.raises(TooShallow):
        codec.push(Stacks.random(BATCH, 4000, 5), random_items(codec.network.config, BATCH, seed=4))


@pytest.mark.parametrize("kind", ["rgb", "seven odd"])
def test_how_many_particles_go_through_at_once_does_not_matter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(kind)
    items, coded, passes = random_items(network.config, BATCH, seed=4), [], []
    encode = type(network.network).begin_sub_images
    monkeypatch.setattr(
        type(network.network), "begin_sub_images", lambda self, h: (passes.append(len(h)), encode(self, h))[1]
    )
    for values in (1, 4 * BATCH * network.config.dims, 1 << 30):
        monkeypatch.setattr("vaedensity.coding.top_down.PASS_VALUES", values)
        stacks = Stacks.random(BATCH, 4000, 5)
        network.bits_back(10).push(stacks, items)
        coded.append(stacks.to_bytes())
    assert coded[0] == coded[1] == coded[2]
    assert passes == [BATCH] * 11 + [4 * BATCH, 4 * BATCH, 2 * BATCH, BATCH] + [10 * BATCH, BATCH]
