"""Chains: round trips, their heads, and the bits they take."""

import numpy as np
import pytest
import torch
from networks import codecs, random_items, random_network

from vaedensity.api.choose import open_model
from vaedensity.coding import chains
from vaedensity.coding.quantise import coded_bits
from vaedensity.data.named import load_digits


@pytest.mark.parametrize("kind", ["grey", "rgb", "odd", "binary"])
@pytest.mark.parametrize("particles", [1, 3])
def test_round_trip_in_any_grouping(kind: str, particles: int) -> None:
    network, lists = random_network(kind), 1 if particles == 1 else 2
    both = codecs(network, particles)
    items = random_items(network.config, 47).numpy()
    parts = [items[:12], items[12:24], items[24:36], items[36:]]
    coded = chains.encode_chains(both, parts)
    parsed = [chains.parse_plan(block, len(part), lists) for block, part in zip(coded.blocks, parts)]
    groups = chains.in_lockstep([plan for plan, _ in parsed], [len(p) for p in parts])
    alone = [[i] for i in range(4)]
    for grouping in (groups, alone):
        seen = 0
        for group in grouping:
            words, lengths = [parsed[i][1] for i in group], [len(parts[i]) for i in group]
            back = chains.decode_chains(both, words, lengths, parsed[group[0]][0], network.config.item_shape)
            assert all((b == parts[i]).all() for b, i in zip(back, group))
            seen += len(group)
        assert seen == 4


def test_blocks_take_the_bits_of_the_model() -> None:
    model = open_model("digits")
    items = load_digits()[1500:, None]
    coded = chains.encode_chains(model.codecs(), [items[:150], items[150:]])
    bits = coded.best_bits.sum() + coded.fallback_bits.sum()
    size = sum(len(b) for b in coded.blocks)
    assert 0 <= size - bits / 8 < 2 * 24
    assert coded.fallback_items == list(range(len(coded.fallback_items)))
    rest = np.concatenate([part[len(coded.fallback_items) :] for part in (items[:150], items[150:])])
    expected = coded_bits(model.integers, torch.from_numpy(rest)) * len(rest)
    assert abs(coded.best_bits.sum() / expected - 1) < 0.02


def test_one_item_is_a_chain() -> None:
    network = random_network("grey")
    item = random_items(network.config, 1).numpy()
    coded = chains.encode_chains(codecs(network), [item])
    plan, words = chains.parse_plan(coded.blocks[0], 1, 1)
    assert plan == ((0,),)
    assert (chains.decode_chains(codecs(network), [words], [1], plan, network.config.item_shape)[0] == item).all()


@pytest.mark.parametrize("steps", [[0], [0, 1, 2], [0, 1, 5, 6, 200]])
def test_runs_round_trip(steps: list[int]) -> None:
    runs, rest = chains.parse_runs(chains._runs_header(steps) + b"words", 300)
    assert list(runs) == steps and rest == b"words"


@pytest.mark.parametrize(
    "block", [b"", b"\0", b"\1", b"\1\0", b"\1\0\0", b"\1\0\x7f", b"\1\1\1", b"\xff" * 12, b"\1\x80\0\1"]
)
def test_bad_runs_are_refused(block: bytes) -> None:
    with pytest.raises(ValueError):
        chains.parse_plan(block, 5, 1)


def test_an_item_coded_in_two_ways_is_refused() -> None:
    assert chains.parse_plan(chains.plan_header([[0], [1, 2]]), 5, 2)[0] == ((0,), (1, 2))
    with pytest.raises(ValueError, match="two ways"):
        chains.parse_plan(chains.plan_header([[0, 1], [1, 2]]), 5, 2)


def test_particles_begin_once_a_stack_is_deep() -> None:
    model = open_model("digits")
    items = load_digits()[1500:, None]
    one = chains.encode_chains(model.codecs(), [items])
    many = chains.encode_chains(model.codecs(8), [items])
    direct, single = chains.parse_plan(many.blocks[0], len(items), 2)[0]
    assert len(direct) == len(one.fallback_items) and 0 < len(single) < 60
    assert len(many.blocks[0]) < len(one.blocks[0])


def test_left_over_bits_are_refused() -> None:
    network = random_network("grey")
    items = random_items(network.config, 6).numpy()
    coded = chains.encode_chains(codecs(network), [items])
    plan, words = chains.parse_plan(coded.blocks[0], 6, 1)
    extended = np.arange(1, 9, dtype="<u4").tobytes() + words
    with pytest.raises(ValueError, match="left over"):
        chains.decode_chains(codecs(network), [extended], [6], plan, network.config.item_shape)


def test_a_tick_can_stop_the_work() -> None:
    network = random_network("grey")

    class Stop(Exception):
        pass

    def tick(count: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        chains.encode_chains(codecs(network), [random_items(network.config, 3).numpy()], tick)
    assert torch.is_grad_enabled()
