"""Models of random weights as files, and chains of items that ``coding`` codes by them, for the second decoder."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sequences
from networks import SHAPES, random_items, random_model
from vaedensity.coding.order import SEQUENCE_CODER, order_of

from vaedensity.archive.engine import Items, Plan, Way
from vaedensity.coding import chains
from vaedensity.coding.quantise import IntegerNetwork, build, quantise
from vaedensity.model.checkpoint import load_model, save_model, slim_model
from vaedensity.numpy_decoder.engine import NumpyDecoder, parse_decoder

SERIES: dict[str, dict[str, object]] = {
    **{noise: {"noise": noise} for noise in sequences.NOISES},
    "binary series": {"levels": 2, "length": 33, "categories": 2},
    "no contexts": {"levels": 20, "length": 16, "contexts": ()},
    "many contexts": {"contexts": (2, 5, 16), "length": 50, "noise": "uniform", "categories": 32, "variables": 7},
}
VALUES = {"binary": [7, 200]}


def silent(count: int) -> None:
    """A tick that nobody listens to."""


@cache
def model_file(kind: str) -> bytes:
    """The part of a model file that decoding needs."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "m.safetensors")
        seed = sum(kind.encode())
        if kind in SERIES:
            sequences.save(path, sequences.random_model(seed, **SERIES[kind]), (64, 128, 256)[seed % 3])
        else:
            model = random_model(kind, seed)
            found = quantise(model, random_items(model.config, 8, seed))
            parts = found.kernels, found.start, found.config.unit, found.direct_steps
            save_model(path, model, VALUES.get(kind), {"integer_bits_per_dim": 4.0}, *parts, overwrite=True)
        return slim_model(load_model(path))


@cache
def both(kind: str) -> tuple[IntegerNetwork, NumpyDecoder]:
    """What codes with the model and what decodes with it."""
    data = model_file(kind)
    with TemporaryDirectory() as folder:
        Path(folder, "m.safetensors").write_bytes(data)
        file = load_model(Path(folder, "m.safetensors"))
    integers = build(file.coding_config, file.kernels, file.start, file.direct_steps)
    return integers, parse_decoder(data, kind, Path("a.vdz"))


def items_of(kind: str, count: int) -> Items:
    """(count,C,H,W) levels."""
    c = both(kind)[0].config
    found = sequences.random_series(c, count) if kind in SERIES else random_items(c, count)
    return found.numpy()


def coded(integers: IntegerNetwork, parts: list[Items], way: Way) -> list[tuple[Plan, bytes]]:
    """(plan, words) of each chain of items, longest first."""
    order = order_of(SEQUENCE_CODER if integers.is_sequence else 20 if way.ends_first else 18)
    coupled = integers.bits_back(way.particles, order) if way.particles > 1 else None
    codecs = chains.ChainCodecs(integers.bits_back(1, order), integers.direct(order), coupled)
    found = chains.encode_chains(codecs, parts)
    lists = 2 if way.particles > 1 else 1
    return [chains.parse_plan(block, len(part), lists) for block, part in zip(found.blocks, parts)]


def decoded(decoder: NumpyDecoder, blocks: list[tuple[Plan, bytes]], lengths: list[int], way: Way) -> list[Items]:
    """The items of chains, those of the same plan in lockstep."""
    out: dict[int, Items] = {}
    for group in chains.in_lockstep([plan for plan, _ in blocks], lengths):
        words = [blocks[i][1] for i in group]
        plan, ticks = blocks[group[0]][0], list[int]()
        found = decoder.decode(words, [lengths[i] for i in group], plan, way, ticks.append)
        assert sum(ticks) == sum(lengths[i] for i in group)
        out |= dict(zip(group, found))
    return [out[i] for i in range(len(blocks))]


def same(found: list[Items], expected: list[Items]) -> bool:
    return len(found) == len(expected) and all(
        a.dtype == np.uint8 and np.array_equal(a, b) for a, b in zip(found, expected)
    )


KINDS = [*SHAPES, *SERIES]
