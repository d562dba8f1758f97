"""Blocks of items by the model, a group of chains at a time: coded, verified, or given to a fallback codec."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.archive import chains, fallback
from vaedensity.archive.block import SERIES, Codec, Kind
from vaedensity.archive.engine import Encoder
from vaedensity.coding.plan import LONGEST_CHAIN, Items, Plan, Tick, silent
from vaedensity.errors import VaedensityError, refuse_if_out_of_memory

BLOCK_BYTES = 12 << 10  # least coded size of a chain, unless the collection is small
COUPLED_BLOCK_BYTES = 96 << 10  # with particles, whose gain begins once a stack is deep
SERIES_POSITIONS = 1 << 14  # of a chain of series at most: they are decoded one by one, those of many chains together
OVERHEAD_SHARE = 0.0045  # what overhead may be of an archive
ARCHIVE_BYTES, CHAIN_BYTES = 300, 29  # overhead of an archive and of a chain, without initial bits
PROBE_CHAINS, PROBE_ITEMS, SAMPLE_ITEMS = 8, 16, 256
ENDS_SHARE = 0.25  # of values, from which on ends are coded first
WORTH_ASKING = 0.75  # the slow fallback codecs are tried where a fast one comes this near to the model


@dataclass(frozen=True)
class CodedBlock:
    """One block's payload.

    ``bits``: information pushed by the model; ``expected_bits``: what it would have been had all stacks held bits to
    begin with (minus the ELBO, or its bound with particles); both 0 for fallback codecs."""

    codec: Codec
    items: int
    payload: bytes
    bits: float = 0.0
    expected_bits: float = 0.0


def spans(model: Encoder, count: int, chain_bytes: float, block_bytes: int = BLOCK_BYTES) -> list[tuple[int, int]]:
    """Where ``count`` items are cut into chains, all alike but the last.

    More chains decode faster and give finer access; their fixed cost, ``chain_bytes`` each, stays below
    OVERHEAD_SHARE, but for series, whose chains have at most SERIES_POSITIONS positions.
    """
    dims = int(np.prod(model.item_shape))
    coded_bytes = count * max(1.0, model.bits_per_dim * dims / 8)
    affordable = (OVERHEAD_SHARE * coded_bytes - ARCHIVE_BYTES) / chain_bytes
    longest = max(1, min(LONGEST_CHAIN, SERIES_POSITIONS // dims)) if model.is_series else LONGEST_CHAIN
    blocks = max(1, int(min(coded_bytes / block_bytes, affordable)), -(-count // longest))
    size = max(1, -(-count // blocks))
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def worth_asking(coded: int, quick: float) -> bool:
    """Whether the fallback codecs might take less than ``coded`` bytes where a fast one takes ``quick``."""
    return coded > WORTH_ASKING * quick


class BlockCoder:
    """Codes groups of parts of one array, each (n,...) as stored, with items in ``layout``.

    ``codec``: of the model's blocks; None: the one that decodes ``array`` fastest.
    """

    def __init__(
        self,
        model: Encoder,
        layout: str,
        array: NDArray[np.generic],
        verify: bool,
        particles: int = 1,
        codec: Codec | None = None,
    ):
        self.model, self.layout, self.verify = model, layout, verify
        self.codec = codec or self._choose_codec(array, particles > 1)
        self.way = self.codec.way(particles)

    def _choose_codec(self, array: NDArray[np.generic], coupled: bool) -> Codec:
        if self.model.is_series:
            return SERIES
        sample = array[:: max(1, len(array) // SAMPLE_ITEMS)][:SAMPLE_ITEMS]
        values, _ = self._levels(sample)
        at_ends = np.count_nonzero((values == 0) | (values == self.model.levels - 1))
        return Codec(Kind.MODEL, coupled, bool(at_ends >= ENDS_SHARE * values.size))

    def _levels(self, part: NDArray[np.generic]) -> tuple[Items, NDArray[np.bool_]]:
        """Items of ``part`` as the model's levels, and which of them have only levels that it knows."""
        return items.apply_map(items.to_items(part, self.layout), self.model.levels, self.model.values)

    def spans(self, array: NDArray[np.generic]) -> list[tuple[int, int]]:
        """Where ``array`` is cut into chains."""
        least = COUPLED_BLOCK_BYTES if self.way.coupled else BLOCK_BYTES
        return spans(self.model, len(array), self.chain_bytes(array), least)

    def code(self, parts: list[NDArray[np.generic]], tick: Tick) -> list[CodedBlock]:
        """The blocks of ``parts``, longest part first; items the model does not know make a fallback block."""
        mapped = [self._levels(part) for part in parts]
        good = [x for x, known in mapped if known.all()]
        coded = iter(self._code_known(good, tick) if good else [])
        blocks = []
        for part, (_, known) in zip(parts, mapped):
            raw = np.ascontiguousarray(part).tobytes()
            if not known.all():
                tick(len(part))
                blocks.append(self._fallback(raw, len(part)))
                continue
            block = next(coded)
            if worth_asking(len(block.payload), min(len(fallback.deflate(raw)), len(raw))):
                block = min(block, self._fallback(raw, len(part)), key=lambda b: len(b.payload))
            blocks.append(block)
        return blocks

    def chain_bytes(self, array: NDArray[np.generic]) -> float:
        """What a chain costs beyond its items' bits: block header, index, coder's ends, and what the first items of
        chains all over ``array`` lose for want of bits to get back."""
        probes = []
        for begin in np.linspace(0, max(0, len(array) - PROBE_ITEMS), PROBE_CHAINS).astype(int):
            probe, known = self._levels(array[begin : begin + PROBE_ITEMS])
            if known.any():
                probes.append(probe[known])
        if not probes:
            return CHAIN_BYTES
        probes.sort(key=len, reverse=True)
        coded = self.model.encode(probes, self.way, silent)
        deep = self.model.deep_bits(probes, coded.fallback_items, self.way)
        lost = float(coded.fallback_bits.sum() - deep.sum())
        return CHAIN_BYTES + max(0.0, lost / 8 / len(probes))

    def _fallback(self, raw: bytes, count: int) -> CodedBlock:
        codec, payload = fallback.encode_verified(raw) if self.verify else fallback.encode(raw)
        return CodedBlock(codec, count, payload)

    def _code_known(self, good: list[Items], tick: Tick) -> list[CodedBlock]:
        coded = self.model.encode(good, self.way, tick)
        if self.verify:
            self._verify(coded.words, coded.plan, good, tick)
        expected = coded.best_bits + self.model.deep_bits(good, coded.fallback_items, self.way)
        bits = coded.best_bits + coded.fallback_bits
        payloads = [chains.pack(coded.plan, len(x), words) for x, words in zip(good, coded.words)]
        return [
            CodedBlock(self.codec, len(x), p, float(b), float(e)) for x, p, b, e in zip(good, payloads, bits, expected)
        ]

    def _verify(self, words: list[bytes], plan: Plan, good: list[Items], tick: Tick) -> None:
        lengths = [len(x) for x in good]
        plans = [tuple(tuple(t for t in own if t < n) for own in plan) for n in lengths]
        for alike in chains.in_lockstep(plans, lengths):
            try:
                some = [words[i] for i in alike]
                back = self.model.decode(
                    some, [lengths[i] for i in alike], plans[alike[0]], self.way, lambda n: tick(0)
                )
            except (ValueError, RuntimeError, IndexError) as error:
                refuse_if_out_of_memory(error)
                back = []
            if len(back) != len(alike) or any((b != good[i]).any() for b, i in zip(back, alike)):
                raise VaedensityError(
                    "a block does not decode to what was coded: this machine's arithmetic is not exact; "
                    "nothing was written; run on another machine or without a model"
                )


def fits(model: Encoder, array: NDArray[np.generic]) -> bool:
    """Whether the items of ``array`` have the model's shape."""
    layout = layout_of(model, array)
    return layout is not None and items.to_items(array[:1], layout).shape[1:] == model.item_shape


def layout_of(model: Encoder | None, array: NDArray[np.generic]) -> str | None:
    """How ``array`` holds items of the model's kind (images where there is no model), or None where it holds none."""
    return items.series_layout(array) if model is not None and model.is_series else items.layout_of(array)
