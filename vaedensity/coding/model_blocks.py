"""Blocks of items by the model, a group of chains at a time: coded, verified, or given to a fallback codec."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.archive import fallback
from vaedensity.arithmetic import full_precision
from vaedensity.coding import chains
from vaedensity.coding.order import SEQUENCE_CODER, order_of
from vaedensity.coding.quantise import CodingModel, IntegerNetwork, words_enough
from vaedensity.coding.sequence import SequenceCodec
from vaedensity.coding.stacks_choice import fastest_stacks
from vaedensity.coding.top_down import PASS_VALUES, ItemCodec
from vaedensity.errors import VaedensityError, refuse_if_out_of_memory

CHAINS_PER_GROUP = 48
BLOCK_BYTES = 12 << 10  # least coded size of a chain, unless the collection is small
SERIES_POSITIONS = 1 << 14  # of a chain of series at most: they are decoded one by one, those of many chains together
SERIES_CHAINS_PER_GROUP = 128
COUPLED_BLOCK_BYTES = 96 << 10  # with particles, whose gain begins once a stack is deep
OVERHEAD_SHARE, ARCHIVE_BYTES, CHAIN_BYTES = (
    0.0045,
    300,
    29,
)  # what overhead may be, and what it is without initial bits
PROBE_CHAINS, PROBE_ITEMS, SAMPLE_ITEMS = 8, 16, 256
ENDS_SHARE = 0.25  # of values, from which on ends are coded first
WORTH_ASKING = 0.75  # the slow fallback codecs are tried where a fast one comes this near to the model


Value = TypeVar("Value")


@dataclass(frozen=True)
class CodedBlock:
    """One block's payload. ``bits``: information pushed by the model, ``expected_bits``: what it
    would have been had all stacks held bits to begin with (minus the ELBO, or its bound with particles); both 0 for fallback codecs."""

    coder: int
    items: int
    payload: bytes
    bits: float = 0.0
    expected_bits: float = 0.0


def spans(model: CodingModel, count: int, chain_bytes: float, block_bytes: int = BLOCK_BYTES) -> list[tuple[int, int]]:
    """Where ``count`` items are cut into chains, all alike but the last.

    More chains decode faster and give finer access; their fixed cost, ``chain_bytes`` each, stays below
    OVERHEAD_SHARE, but for series, whose chains have at most SERIES_POSITIONS positions.
    """
    coded_bytes = count * max(1.0, model.bits_per_dim * model.integers.config.dims / 8)
    affordable = (OVERHEAD_SHARE * coded_bytes - ARCHIVE_BYTES) / chain_bytes
    longest = chains.LONGEST_CHAIN
    if model.integers.is_sequence:
        longest = max(1, min(longest, SERIES_POSITIONS // model.integers.config.dims))
    blocks = max(1, int(min(coded_bytes / block_bytes, affordable)), -(-count // longest))
    size = max(1, -(-count // blocks))
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def worth_asking(coded: int, quick: float) -> bool:
    """Whether the fallback codecs might take less than ``coded`` bytes where a fast one takes ``quick``."""
    return coded > WORTH_ASKING * quick


def chains_per_group(integers: IntegerNetwork, particles: int = 1) -> int:
    """Chains that move in lockstep: fewer where items are large or particles many, so that memory does not grow."""
    most = SERIES_CHAINS_PER_GROUP if integers.is_sequence else CHAINS_PER_GROUP
    return max(1, min(most, PASS_VALUES // integers.config.dims) // particles)


def evenly(values: Sequence[Value], most: int, multiple: int = 2) -> list[Sequence[Value]]:
    """``values`` in runs of at most ``most``, nearly alike, whose number is a ``multiple`` where there is more than one."""
    count = -(-len(values) // most)
    if count > 1:
        count = min(len(values), -(-count // multiple) * multiple)
    ends = [len(values) * i // count for i in range(count + 1)] if count else [0]
    return [values[begin:end] for begin, end in pairwise(ends)]


class BlockCoder:
    """Codes groups of parts of one array, each (n,...) as stored, with items in ``layout``; ``coder`` by its number in
    an archive, or the one that suits ``array``."""

    def __init__(
        self,
        model: CodingModel,
        layout: str,
        array: NDArray[np.generic],
        verify: bool,
        particles: int = 1,
        coder: int | None = None,
    ):
        self.model, self.layout, self.verify = model, layout, verify
        self.shape, self.particles = model.integers.config.item_shape, particles
        self.series = model.integers.is_sequence
        self.coder = (coder or self._choose_coder(array)) + (particles > 1)
        self.codecs = model.codecs(particles, order_of(self.coder))

    def _choose_coder(self, array: NDArray[np.generic]) -> int:
        """The coder without particles that decodes ``array`` fastest."""
        if self.series:
            return SEQUENCE_CODER
        levels = self.model.integers.config.levels
        sample = items.to_items(array[:: max(1, len(array) // SAMPLE_ITEMS)][:SAMPLE_ITEMS], self.layout)
        values, _ = items.apply_map(sample, levels, self.model.values)
        at_ends = np.count_nonzero((values == 0) | (values == levels - 1))
        return 20 if at_ends >= ENDS_SHARE * values.size else 18

    def spans(self, array: NDArray[np.generic]) -> list[tuple[int, int]]:
        """Where ``array`` is cut into chains."""
        least = COUPLED_BLOCK_BYTES if self.particles > 1 else BLOCK_BYTES
        return spans(self.model, len(array), self.chain_bytes(array), least)

    def code(self, parts: list[NDArray[np.generic]], tick: chains.Tick) -> list[CodedBlock]:
        """The blocks of ``parts``, longest part first; items the model does not know make a fallback block."""
        levels = self.model.integers.config.levels
        mapped = [items.apply_map(items.to_items(part, self.layout), levels, self.model.values) for part in parts]
        good = [x for x, known in mapped if known.all()]
        coded = iter(self._code_known(good, tick) if good else [])
        blocks = []
        for part, (_, known) in zip(parts, mapped):
            raw = np.ascontiguousarray(part).tobytes()
            if not known.all():
                tick(len(part))
                blocks.append(CodedBlock(*_swap(self._fallback(raw), len(part))))
                continue
            block = next(coded)
            if worth_asking(len(block.payload), min(len(fallback.deflate(raw)), len(raw))):
                rival = CodedBlock(*_swap(self._fallback(raw), len(part)))
                block = min(block, rival, key=lambda b: len(b.payload))
            blocks.append(block)
        return blocks

    def chain_bytes(self, array: NDArray[np.generic]) -> float:
        """What a chain costs beyond its items' bits: frame, index, coder's ends, and what the first items of chains all over ``array``
        lose for want of bits to get back."""
        levels, probes = self.model.integers.config.levels, []
        for begin in np.linspace(0, max(0, len(array) - PROBE_ITEMS), PROBE_CHAINS).astype(int):
            part = items.to_items(array[begin : begin + PROBE_ITEMS], self.layout)
            probe, known = items.apply_map(part, levels, self.model.values)
            if known.any():
                probes.append(probe[known])
        if not probes:
            return CHAIN_BYTES
        probes.sort(key=len, reverse=True)
        coded = chains.encode_chains(self.codecs, probes)
        lost = coded.fallback_bits.sum() - self._expected_fallback_bits(probes, coded.fallback_items).sum()
        return CHAIN_BYTES + max(0.0, float(lost) / 8 / len(probes))

    def _fallback(self, raw: bytes) -> tuple[int, bytes]:
        return fallback.encode_verified(raw) if self.verify else fallback.encode(raw)

    def _code_known(self, good: list[NDArray[np.uint8]], tick: chains.Tick) -> list[CodedBlock]:
        coded = chains.encode_chains(self.codecs, good, tick)
        if self.verify:
            self._verify(coded.blocks, good, tick)
        expected = coded.best_bits + self._expected_fallback_bits(good, coded.fallback_items)
        bits = coded.best_bits + coded.fallback_bits
        return [
            CodedBlock(self.coder, len(x), p, float(b), float(e))
            for x, p, b, e in zip(good, coded.blocks, bits, expected)
        ]

    def _verify(self, blocks: list[bytes], good: list[NDArray[np.uint8]], tick: chains.Tick) -> None:
        lists = len(self.codecs.fallback)
        parsed = [chains.parse_plan(block, len(x), lists) for block, x in zip(blocks, good)]
        for alike in chains.in_lockstep([plan for plan, _ in parsed], [len(x) for x in good]):
            words, lengths = [parsed[i][1] for i in alike], [len(good[i]) for i in alike]
            try:
                back = chains.decode_chains(
                    self.codecs, words, lengths, parsed[alike[0]][0], self.shape, lambda n: tick(0)
                )
            except (ValueError, RuntimeError, IndexError) as error:
                refuse_if_out_of_memory(error)
                back = []
            if len(back) != len(alike) or any((b != good[i]).any() for b, i in zip(back, alike)):
                raise VaedensityError(
                    "a block does not decode to what was coded: this machine's arithmetic is not exact; "
                    "nothing was written; run on another machine or without a model"
                )

    @full_precision()
    @torch.no_grad()
    def _expected_fallback_bits(self, good: list[NDArray[np.uint8]], fallback_items: list[int]) -> NDArray[np.float64]:
        """What each chain's ``fallback_items`` would have taken by the best codec, from stacks of random bits."""
        bits, codec = np.zeros(len(good)), self.codecs.best
        assert isinstance(codec, ItemCodec | SequenceCodec)
        for t in fallback_items:
            active = sum(len(x) > t for x in good)
            stacks = fastest_stacks().random(active, words_enough(codec), t)
            codec.push(stacks, torch.from_numpy(np.stack([x[t] for x in good[:active]])))
            bits[:active] += stacks.information
        return bits


def _swap(coded: tuple[int, bytes], count: int) -> tuple[int, int, bytes]:
    return coded[0], count, coded[1]
