"""The payload of a model's block: a plan, then coder words (docs/format.md, "Chains")."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from vaedensity.archive import varint
from vaedensity.coding.plan import Plan, Way

Value = TypeVar("Value")


def pack(plan: Plan, items: int, words: bytes) -> bytes:
    """The payload of a chain of so many ``items`` in lockstep with chains whose longest has this ``plan``."""
    return b"".join(_pack_runs(t for t in own if t < items) for own in plan) + words


def parse(payload: bytes, items: int, way: Way) -> tuple[Plan, bytes]:
    """(plan, coder words) of a payload. Raises ValueError."""
    plan, at = [], 0
    for _ in range(2 if way.coupled else 1):
        own, at = _parse_runs(payload, at, items)
        plan.append(own)
    if not plan[0] or plan[0][0] != 0:
        raise ValueError("the first item of a chain must be direct")
    if len({t for own in plan for t in own}) != sum(map(len, plan)):
        raise ValueError("an item is said to be coded in two ways")
    words = payload[at:]
    if len(words) % 4 or words[-4:] == bytes(4):
        raise ValueError(f"{len(words)} bytes are not whole coder words with a non-zero end")
    return tuple(plan), words


def most_bytes(items: int, item_shape: Sequence[int], latents: int, way: Way) -> int:
    """Bytes of coder words that a chain of so many items can have at most.

    Three intervals a value and a latent, none of more than 23 bits; with particles 24 bits more for a latent's number
    and for its place; and what a stack begins with."""
    bits = 69 * (math.prod(item_shape) + latents) + (2 * 24 * latents if way.coupled else 0) + 64
    return items * bits // 8 + 64


def in_lockstep(plans: list[Plan], lengths: list[int]) -> list[list[int]]:
    """Places of chains that can be decoded together, each group longest first."""
    alike: dict[Plan, list[int]] = {}
    for i, plan in enumerate(plans):
        alike.setdefault(plan, []).append(i)
    return [sorted(group, key=lambda i: -lengths[i]) for group in alike.values()]


def evenly(values: Sequence[Value], most: int, multiple: int = 2) -> list[Sequence[Value]]:
    """``values`` in runs of at most ``most``, nearly alike, whose number is a ``multiple`` where there is more than
    one."""
    count = -(-len(values) // most)
    if count > 1:
        count = min(len(values), -(-count // multiple) * multiple)
    ends = [len(values) * i // count for i in range(count + 1)] if count else [0]
    return [values[begin:end] for begin, end in pairwise(ends)]


def _pack_runs(items: Iterable[int]) -> bytes:
    """Runs of consecutive items: their number, then (gap since the last run, length) of each."""
    runs: list[list[int]] = []
    for t in items:
        if runs and t == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([t, 1])
    out, end = varint.put(len(runs)), 0
    for start, length in runs:
        out += varint.put(start - end) + varint.put(length)
        end = start + length
    return out


def _parse_runs(payload: bytes, at: int, items: int) -> tuple[tuple[int, ...], int]:
    """(the items of one list of runs at position ``at``, the position after it). Raises ValueError."""
    count, at = varint.get(payload, at)
    found: list[int] = []
    end = 0
    for _ in range(count):
        gap, at = varint.get(payload, at)
        length, at = varint.get(payload, at)
        start = end + gap
        end = start + length
        if length == 0 or end > items:
            raise ValueError("a run of items goes beyond the block's end")
        found += range(start, end)
    return tuple(found), at
