"""Chains of items on one stack each, coded in lockstep: what a model's blocks hold.

Chains are independent: each starts from an empty stack and ends as one block. Item t of all chains of a group goes
through the network as one batch. The first items of a chain, which have no bits to get back, are coded with coarse
latents; the next ones, where there are particles, with one. The plan says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vaedensity.arithmetic import full_precision
from vaedensity.coding.ans import Stacks
from vaedensity.coding.bits_back import TooShallow
from vaedensity.coding.codec import Codec
from vaedensity.coding.compiled import fastest_stacks
from vaedensity.coding.plan import CodedChains, Items, Plan, Tick, silent


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


@full_precision()
@torch.inference_mode()
def encode_chains(codecs: ChainCodecs, chains: list[Items], tick: Tick = silent) -> CodedChains:
    """Code chains of items, one stack each, item t of all of them as one batch.

    Parameters
    ----------
    codecs : ChainCodecs
        The ways to code an item: each is coded in the best that its stack can pay for.
    chains : list of numpy.ndarray
        (n_i,C,H,W) uint8, longest first.
    tick : callable
        Called with the number of items that are done.

    Returns
    -------
    CodedChains
    """
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
        before, way = stacks.copy(), len(plan)
        while True:  # the direct codec, way 0, needs no bits and never raises
            try:
                (*codecs.fallback, codecs.best)[way].push(stacks, x)
                break
            except TooShallow:
                stacks, way = before.copy(), way - 1
        spent = stacks.information - before.information
        if way == len(plan):
            best_bits[:active] += spent
        else:
            plan[way].append(t)
            fallback_bits[:active] += spent
        tick(active)
    words = [own for part in (stacks, *finished) for own in part.to_bytes()]
    return CodedChains(words, tuple(map(tuple, plan)), best_bits, fallback_bits)


@full_precision()
@torch.inference_mode()
def decode_chains(
    codecs: ChainCodecs,
    words: Sequence[bytes],
    lengths: Sequence[int],
    plan: Plan,
    item_shape: tuple[int, ...],
    tick: Tick = silent,
) -> list[Items]:
    """Undo :func:`encode_chains` for chains with one plan.

    Parameters
    ----------
    codecs : ChainCodecs
        As they were coded with.
    words : sequence of bytes
        Of each chain, longest first.
    lengths : sequence of int
        Items of each.
    plan : Plan
        Which items were not coded in the best way.
    item_shape : tuple of int
        (C,H,W).
    tick : callable
        Called with the number of items that are done.

    Returns
    -------
    list of numpy.ndarray
        (n_i,C,H,W) uint8.

    Raises
    ------
    ValueError
        Words are not those of such chains: a symbol lies outside its alphabet, or bits are left over after the first
        item.
    """
    assert list(lengths) == sorted(lengths, reverse=True)
    everything = fastest_stacks().from_bytes(list(words))
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
