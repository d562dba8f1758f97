"""Blocks that a model codes: chains of items on one stack each, coded in lockstep.

Chains are independent: each starts from an empty stack and ends as one block. Item t of all chains of
a group goes through the network as one batch. The first items of a chain, which have no bits to get
back, are coded with coarse latents; which ones is written at the block's head as runs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity.coding import varint
from vaedensity.coding.ans import Stacks
from vaedensity.coding.bits_back import TooShallow
from vaedensity.coding.codec import Codec

Items = NDArray[np.uint8]
LONGEST_CHAIN = 4096


@dataclass(frozen=True)
class ChainCodecs:
    """The two ways to code an item: with bits to get back, and without."""

    bits_back: Codec
    direct: Codec


@dataclass(frozen=True)
class CodedChains:
    """Blocks of a group and the bits behind them: what bits-back items cost in all, and direct ones."""

    blocks: list[bytes]
    bits_back_bits: NDArray[np.float64]
    direct_bits: NDArray[np.float64]
    direct_steps: list[int]


Tick = Callable[[int], None]


def silent(count: int) -> None:
    """A tick that nobody listens to."""


@torch.inference_mode()
def encode_chains(codecs: ChainCodecs, chains: list[Items], tick: Tick = silent) -> CodedChains:
    """Code ``chains`` of items (n_i,C,H,W), longest first; ``tick`` hears of every item."""
    assert [len(c) for c in chains] == sorted((len(c) for c in chains), reverse=True)
    stacks = Stacks(len(chains))
    finished: list[Stacks] = []
    direct_steps: list[int] = []
    direct_bits, back_bits = np.zeros(len(chains)), np.zeros(len(chains))
    for t in range(len(chains[0])):
        active = sum(len(chain) > t for chain in chains)
        if active < len(stacks):
            finished.insert(0, _split(stacks, active))
        x = torch.from_numpy(np.stack([chain[t] for chain in chains[:active]]))
        before, earlier = stacks.copy(), stacks.information.copy()
        try:
            codecs.bits_back.push(stacks, x)
            back_bits[:active] += stacks.information - earlier
        except TooShallow:
            stacks = before
            codecs.direct.push(stacks, x)
            direct_steps.append(t)
            direct_bits[:active] += stacks.information - earlier
        tick(active)
    blocks = []
    for part in [stacks, *finished]:
        blocks += part.to_bytes()
    blocks = [_runs_header([t for t in direct_steps if t < len(c)]) + b for c, b in zip(chains, blocks)]
    return CodedChains(blocks, back_bits, direct_bits, direct_steps)


def _split(stacks: Stacks, active: int) -> Stacks:
    """Take the stacks after the first ``active`` away; their chains are complete."""
    rest = Stacks(0)
    rest.coders, rest.information = stacks.coders[active:], stacks.information[active:]
    stacks.coders, stacks.information = stacks.coders[:active], stacks.information[:active]
    return rest


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


def parse_runs(block: bytes, items: int) -> tuple[tuple[int, ...], bytes]:
    """(direct items, coder words) of a block. Raises ValueError."""
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
    if items and (not steps or steps[0] != 0):
        raise ValueError("the first item of a chain must be direct")
    return tuple(steps), block[at:]


@torch.inference_mode()
def decode_chains(
    codecs: ChainCodecs,
    words: list[bytes],
    lengths: list[int],
    direct_steps: tuple[int, ...],
    item_shape: tuple[int, ...],
    tick: Tick = silent,
) -> list[Items]:
    """Undoes :func:`encode_chains` for chains with the same direct items, longest first.

    Raises ValueError where a stack is not exactly empty after its first item.
    """
    assert lengths == sorted(lengths, reverse=True)
    everything = Stacks.from_bytes(words)
    out = [np.empty((n, *item_shape), np.uint8) for n in lengths]
    stacks = Stacks(0)
    for t in reversed(range(lengths[0])):
        active = sum(n > t for n in lengths)
        if active > len(stacks):
            joining = slice(len(stacks), active)
            stacks.coders = stacks.coders + everything.coders[joining]
            stacks.information = np.zeros(active)
        codec = codecs.direct if t in direct_steps else codecs.bits_back
        x = codec.pop(stacks).numpy()
        for i in range(active):
            out[i][t] = x[i]
        tick(active)
    if any(not coder.is_empty() for coder in stacks.coders):
        raise ValueError("bits are left over after the first item")
    return out


def in_lockstep(runs: list[tuple[int, ...]], lengths: list[int]) -> list[list[int]]:
    """Indices of chains that can be decoded together, each group longest first."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, steps in enumerate(runs):
        alike.setdefault(steps, []).append(i)
    return [sorted(group, key=lambda i: -lengths[i]) for group in alike.values()]
