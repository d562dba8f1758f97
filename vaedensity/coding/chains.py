"""Blocks that a model codes: chains of items on one stack each, coded in lockstep.

Chains are independent: each starts from an empty stack and ends as one block. Item t of all chains of
a group goes through the network as one batch. The first items of a chain, which have no bits to get
back, are coded with coarse latents, the next ones, where there are particles, with one; which ones is written at
the block's head as runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity.archive import varint
from vaedensity.arithmetic import full_precision
from vaedensity.coding.ans import Stacks
from vaedensity.coding.bits_back import TooShallow
from vaedensity.coding.codec import Codec
from vaedensity.coding.stacks_choice import fastest_stacks

Items = NDArray[np.uint8]
LONGEST_CHAIN = 4096


@dataclass(frozen=True)
class ChainCodecs:
    """The ways to code an item: with bits to get back, without, and with many bits for coupled particles."""

    bits_back: Codec
    direct: Codec
    coupled: Codec | None = None

    @property
    def best(self) -> Codec:
        """What codes an item smallest, on a stack that holds enough."""
        return self.coupled or self.bits_back

    @property
    def fallback(self) -> tuple[Codec, ...]:
        """What codes items whose stack holds less: on any stack, then, where there are particles, by bits-back."""
        return (self.direct, self.bits_back) if self.coupled else (self.direct,)


Plan = tuple[tuple[int, ...], ...]
"""For each of the fallback codecs, the items of a chain that it coded; the best one coded the others."""


@dataclass(frozen=True)
class CodedChains:
    """Blocks of a group and the bits behind them: of items coded by the best codec, and of the others, ``fallback_items``."""

    blocks: list[bytes]
    best_bits: NDArray[np.float64]
    fallback_bits: NDArray[np.float64]
    fallback_items: list[int]


Tick = Callable[[int], None]


def silent(count: int) -> None:
    """A tick that nobody listens to."""


@full_precision()
@torch.inference_mode()
def encode_chains(codecs: ChainCodecs, chains: list[Items], tick: Tick = silent) -> CodedChains:
    """Code ``chains`` of items (n_i,C,H,W), longest first; ``tick`` hears of every item."""
    assert [len(c) for c in chains] == sorted((len(c) for c in chains), reverse=True)
    stacks = fastest_stacks()(len(chains))
    finished: list[Stacks] = []
    plan: list[list[int]] = [[] for _ in codecs.fallback]
    best_bits, fallback_bits = np.zeros(len(chains)), np.zeros(len(chains))
    for t in range(len(chains[0])):
        active = sum(len(chain) > t for chain in chains)
        if active < len(stacks):
            finished.insert(0, stacks.take(slice(active, len(stacks))))
            stacks = stacks.take(slice(0, active))
        x = torch.from_numpy(np.stack([chain[t] for chain in chains[:active]]))
        before = stacks.copy()
        for way in (len(plan), *reversed(range(len(plan)))):
            try:
                (codecs.best if way == len(plan) else codecs.fallback[way]).push(stacks, x)
                break
            except TooShallow:
                stacks = before.copy()
        spent = stacks.information - before.information
        if way == len(plan):
            best_bits[:active] += spent
        else:
            plan[way].append(t)
            fallback_bits[:active] += spent
        tick(active)
    blocks = []
    for part in [stacks, *finished]:
        blocks += part.to_bytes()
    blocks = [plan_header([[t for t in steps if t < len(c)] for steps in plan]) + b for c, b in zip(chains, blocks)]
    return CodedChains(blocks, best_bits, fallback_bits, sorted(t for steps in plan for t in steps))


def _runs_header(steps: list[int]) -> bytes:
    """Runs of consecutive direct items: their number, then (gap since the last run, length) of each."""
    runs: list[list[int]] = []
    for t in steps:
        if runs and t == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([t, 1])
    out, end = varint.put(len(runs)), 0
    for start, length in runs:
        out += varint.put(start - end) + varint.put(length)
        end = start + length
    return out


def plan_header(plan: Sequence[Sequence[int]]) -> bytes:
    """Runs of each fallback codec's items, one list after the other."""
    return b"".join(_runs_header(list(steps)) for steps in plan)


def parse_plan(block: bytes, items: int, lists: int) -> tuple[Plan, bytes]:
    """(plan, coder words) of a block whose head has so many ``lists``. Raises ValueError."""
    plan: list[tuple[int, ...]] = []
    for _ in range(lists):
        steps, block = parse_runs(block, items)
        plan.append(steps)
    if items and (not plan[0] or plan[0][0] != 0):
        raise ValueError("the first item of a chain must be direct")
    if len({t for steps in plan for t in steps}) != sum(map(len, plan)):
        raise ValueError("an item is said to be coded in two ways")
    return tuple(plan), block


def parse_runs(block: bytes, items: int) -> tuple[tuple[int, ...], bytes]:
    """(items of one list of runs, what follows it). Raises ValueError."""
    count, at = varint.get(block, 0)
    steps: list[int] = []
    end = 0
    for _ in range(count):
        gap, at = varint.get(block, at)
        length, at = varint.get(block, at)
        start = end + gap
        end = start + length
        if length == 0 or end > items:
            raise ValueError("direct items beyond the block's end")
        steps += range(start, end)
    return tuple(steps), block[at:]


@full_precision()
@torch.inference_mode()
def decode_chains(
    codecs: ChainCodecs,
    words: list[bytes],
    lengths: list[int],
    plan: Plan,
    item_shape: tuple[int, ...],
    tick: Tick = silent,
) -> list[Items]:
    """Undoes :func:`encode_chains` for chains with the same plan, longest first.

    Raises ValueError where a stack is not exactly empty after its first item.
    """
    assert lengths == sorted(lengths, reverse=True)
    everything = fastest_stacks().from_bytes(words)
    out = [np.empty((n, *item_shape), np.uint8) for n in lengths]
    ways = {t: codec for steps, codec in zip(plan, codecs.fallback) for t in steps}
    stacks = fastest_stacks()(0, counting=False)
    for t in reversed(range(lengths[0])):
        active = sum(n > t for n in lengths)
        if active > len(stacks):
            stacks.join(everything.take(slice(len(stacks), active)))
        x = ways.get(t, codecs.best).pop(stacks).numpy()
        for i in range(active):
            out[i][t] = x[i]
        tick(active)
    if not stacks.is_empty().all():
        raise ValueError("bits are left over after the first item")
    return out


def most_bytes(items: int, item_shape: tuple[int, ...], codecs: ChainCodecs) -> int:
    """Bytes that a chain of so many items can have at most: three intervals a value and a latent, none of more than 23
    bits, with particles 24 bits a latent's number and place more, and what a stack begins with."""
    latents = getattr(codecs.best, "latents", 1 << 20)
    bits = 69 * (math.prod(item_shape) + latents) + (2 * 24 * latents if codecs.coupled else 0) + 64
    return items * bits // 8 + 64


def in_lockstep(plans: list[Plan], lengths: list[int]) -> list[list[int]]:
    """Indices of chains that can be decoded together, each group longest first."""
    alike: dict[Plan, list[int]] = {}
    for i, plan in enumerate(plans):
        alike.setdefault(plan, []).append(i)
    return [sorted(group, key=lambda i: -lengths[i]) for group in alike.values()]
