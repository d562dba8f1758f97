"""Chains: round trips, their heads, and the bits they take."""

import numpy as np
import pytest
import torch
from networks import codecs, random_items, random_network

from vaedensity.api.choose import open_model
from vaedensity.archive.chains import in_lockstep
from vaedensity.coding import chains
from vaedensity.coding.plan import Way
from vaedensity.coding.quantise import coded_bits
from vaedensity.data.named import load_digits


@pytest.mark.parametrize("kind", ["grey", "rgb", "odd", "binary"])
@pytest.mark.parametrize("particles", [1, 3])
def test_round_trip_in_any_grouping(kind: str, particles: int) -> None:
    network = random_network(kind)
    both = codecs(network, particles)
    items = random_items(network.config, 47).numpy()
    parts = [items[:12], items[12:24], items[24:36], items[36:]]
    coded = chains.encode_chains(both, parts)
    plans = [tuple(tuple(t for t in own if t < len(part)) for own in coded.plan) for part in parts]
    groups = in_lockstep(plans, [len(p) for p in parts])
    alone = [[i] for i in range(4)]
    for grouping in (groups, alone):
        seen = 0
        for group in grouping:
            words, lengths = [coded.words[i] for i in group], [len(parts[i]) for i in group]
            back = chains.decode_chains(both, words, lengths, plans[group[0]], network.config.item_shape)
            assert all((b == parts[i]).all() for b, i in zip(back, group))
            seen += len(group)
        assert seen == 4


def test_blocks_take_the_bits_of_the_model() -> None:
    model = open_model("digits")
    items = load_digits()[1500:, None]
    coded = chains.encode_chains(model.codecs(Way()), [items[:150], items[150:]])
    bits = coded.best_bits.sum() + coded.fallback_bits.sum()
    size = sum(map(len, coded.words))
    assert 0 <= size - bits / 8 < 2 * 24
    assert coded.fallback_items == list(range(len(coded.fallback_items)))
    rest = np.concatenate([part[len(coded.fallback_items) :] for part in (items[:150], items[150:])])
    expected = coded_bits(model.integers, torch.from_numpy(rest)) * len(rest)
    assert abs(coded.best_bits.sum() / expected - 1) < 0.02


def test_one_item_is_a_chain() -> None:
    network = random_network("grey")
    item = random_items(network.config, 1).numpy()
    coded = chains.encode_chains(codecs(network), [item])
    assert coded.plan == ((0,),)
    assert (
        chains.decode_chains(codecs(network), coded.words, [1], coded.plan, network.config.item_shape)[0] == item
    ).all()


def test_particles_begin_once_a_stack_is_deep() -> None:
    model = open_model("digits")
    items = load_digits()[1500:, None]
    one = chains.encode_chains(model.codecs(Way()), [items])
    many = chains.encode_chains(model.codecs(Way(8)), [items])
    direct, single = many.plan
    assert len(direct) == len(one.fallback_items) and 0 < len(single) < 60
    assert len(many.words[0]) < len(one.words[0])


def test_left_over_bits_are_refused() -> None:
    network = random_network("grey")
    items = random_items(network.config, 6).numpy()
    coded = chains.encode_chains(codecs(network), [items])
    extended = np.arange(1, 9, dtype="<u4").tobytes() + coded.words[0]
    with pytest.raises(ValueError, match="left over"):
        chains.decode_chains(codecs(network), [extended], [6], coded.plan, network.config.item_shape)


def test_a_tick_can_stop_the_work() -> None:
    network = random_network("grey")

    class Stop(Exception):
        pass

    def tick(count: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        chains.encode_chains(codecs(network), [random_items(network.config, 3).numpy()], tick)
    assert torch.is_grad_enabled()
