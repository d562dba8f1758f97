"""Blocks of items by the model, a group of chains at a time: coded, verified, or given to a classical coder."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.coding import chains, classical
from vaedensity.coding.ans import Stacks
from vaedensity.coding.container import MODEL_CODER
from vaedensity.coding.lowering import CodingModel
from vaedensity.errors import VaedensityError

CHAINS_PER_GROUP = 48
GROUP_VALUES = 1 << 19  # values of items that a group has in the network at once
BLOCK_BYTES = 12 << 10  # least coded size of a chain, unless the collection is small
OVERHEAD_SHARE, ARCHIVE_BYTES, CHAIN_BYTES = 0.004, 300, 20  # what overhead may be, and what it is without initial bits
PROBE_ITEMS = 16
WORTH_ASKING = 0.8  # the slow classical coders are tried where deflate comes this near to the model


@dataclass(frozen=True)
class CodedBlock:
    """One block's payload. ``bits``: information pushed by the model, ``expected_bits``: what bits-back
    would have taken had it had bits to begin with (minus the ELBO); both 0 for classical coders."""

    coder: int
    items: int
    payload: bytes
    bits: float = 0.0
    expected_bits: float = 0.0


def spans(model: CodingModel, count: int, chain_bytes: float) -> list[tuple[int, int]]:
    """Where ``count`` items are cut into chains, all alike but the last.

    More chains decode faster and give finer access; their fixed cost, ``chain_bytes`` each, stays below
    OVERHEAD_SHARE.
    """
    coded_bytes = count * max(1.0, model.bits_per_dim * model.integers.config.dims / 8)
    affordable = (OVERHEAD_SHARE * coded_bytes - ARCHIVE_BYTES) / chain_bytes
    blocks = max(1, int(min(coded_bytes / BLOCK_BYTES, affordable)), -(-count // chains.LONGEST_CHAIN))
    size = max(1, -(-count // blocks))
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def chains_per_group(dims: int) -> int:
    """Chains that move in lockstep: fewer where items are large, so that memory does not grow with them."""
    return max(1, min(CHAINS_PER_GROUP, GROUP_VALUES // dims))


class BlockCoder:
    """Codes groups of parts of one array, each (n,...) as stored, with items in ``layout``."""

    def __init__(self, model: CodingModel, layout: str, verify: bool):
        self.model, self.layout, self.verify, self.codecs = model, layout, verify, model.codecs()
        self.shape = model.integers.config.item_shape

    def code(self, parts: list[NDArray[np.generic]], tick: chains.Tick) -> list[CodedBlock]:
        """The blocks of ``parts``, longest part first; items the model does not know make a classical block."""
        levels = self.model.integers.config.levels
        mapped = [items.apply_map(items.to_items(part, self.layout), levels, self.model.values) for part in parts]
        good = [x for x, known in mapped if known.all()]
        coded = iter(self._code_known(good, tick) if good else [])
        blocks = []
        for part, (_, known) in zip(parts, mapped):
            raw = np.ascontiguousarray(part).tobytes()
            if not known.all():
                tick(len(part))
                blocks.append(CodedBlock(*_swap(self._classical(raw), len(part))))
                continue
            block = next(coded)
            if len(block.payload) > WORTH_ASKING * min(len(classical.deflate(raw)), len(raw)):
                rival = CodedBlock(*_swap(self._classical(raw), len(part)))
                block = min(block, rival, key=lambda b: len(b.payload))
            blocks.append(block)
        return blocks

    def chain_bytes(self, part: NDArray[np.generic]) -> float:
        """What a chain costs beyond its items' bits, found on the first items of ``part``."""
        levels = self.model.integers.config.levels
        probe, known = items.apply_map(items.to_items(part[:PROBE_ITEMS], self.layout), levels, self.model.values)
        if not known.any():
            return CHAIN_BYTES
        coded = chains.encode_chains(self.codecs, [probe[known]])
        direct = coded.direct_bits.sum() - self._expected_direct_bits([probe[known]], coded.direct_steps).sum()
        return CHAIN_BYTES + max(0.0, float(direct) / 8)

    def _classical(self, raw: bytes) -> tuple[int, bytes]:
        return classical.encode_verified(raw) if self.verify else classical.encode(raw)

    def _code_known(self, good: list[NDArray[np.uint8]], tick: chains.Tick) -> list[CodedBlock]:
        coded = chains.encode_chains(self.codecs, good, tick)
        if self.verify:
            self._verify(coded.blocks, good, tick)
        expected = coded.bits_back_bits + self._expected_direct_bits(good, coded.direct_steps)
        bits = coded.bits_back_bits + coded.direct_bits
        return [
            CodedBlock(MODEL_CODER, len(x), p, float(b), float(e))
            for x, p, b, e in zip(good, coded.blocks, bits, expected)
        ]

    def _verify(self, blocks: list[bytes], good: list[NDArray[np.uint8]], tick: chains.Tick) -> None:
        parsed = [chains.parse_runs(block, len(x)) for block, x in zip(blocks, good)]
        for alike in chains.in_lockstep([runs for runs, _ in parsed], [len(x) for x in good]):
            words, lengths = [parsed[i][1] for i in alike], [len(good[i]) for i in alike]
            try:
                back = chains.decode_chains(
                    self.codecs, words, lengths, parsed[alike[0]][0], self.shape, lambda n: tick(0)
                )
            except (ValueError, RuntimeError, IndexError):
                back = []
            if len(back) != len(alike) or any((b != good[i]).any() for b, i in zip(back, alike)):
                raise VaedensityError(
                    "a block does not decode to what was coded: this machine's arithmetic is not exact; "
                    "nothing was written; run on another machine or without -m"
                )

    @torch.no_grad()
    def _expected_direct_bits(self, good: list[NDArray[np.uint8]], direct_steps: list[int]) -> NDArray[np.float64]:
        """Minus the ELBO of each chain's direct items: their bits by bits-back from stacks of random bits."""
        bits = np.zeros(len(good))
        words = 64 + sum(c * h * w for c, h, w in self.model.integers.network.latent_shapes) // 2
        for t in direct_steps:
            active = sum(len(x) > t for x in good)
            stacks = Stacks.random(active, words, t)
            self.codecs.bits_back.push(stacks, torch.from_numpy(np.stack([x[t] for x in good[:active]])))
            bits[:active] += stacks.information
        return bits


def _swap(coded: tuple[int, bytes], count: int) -> tuple[int, int, bytes]:
    return coded[0], count, coded[1]
