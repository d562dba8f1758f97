"""Stacks against the formulas of docs/format.md, "Stack", in Python's integers; logarithms and powers."""

import numpy as np
import pytest

from vaedensity.numpy_decoder import stacks as stacks_module
from vaedensity.numpy_decoder.stacks import Stacks
from vaedensity.numpy_decoder.tables import TOTAL, lg, power

RNG = np.random.default_rng(0)


class Oracle:
    """One stack, as the document writes it."""

    def __init__(self, words: list[int]):
        n = len(words)
        self.s = 0 if n == 0 else words[0] if n == 1 else words[-1] * 2**32 + words[-2]
        self.list = words[: n - 2] if n > 2 else []

    def pop(self, edges: list[int]) -> int:
        q = self.s % 2**24
        symbol = max(k for k in range(len(edges) - 1) if edges[k] <= q)
        low, f = edges[symbol], edges[symbol + 1] - edges[symbol]
        self.s = (self.s // 2**24) * f + q - low
        if self.s < 2**32 and self.list:
            self.s = self.s * 2**32 + self.list.pop()
        return symbol

    def push(self, low: int, f: int) -> None:
        if self.s >= f * 2**40:
            self.list.append(self.s % 2**32)
            self.s //= 2**32
        self.s = (self.s // f) * 2**24 + low + self.s % f


def edges(rows: int, symbols: int) -> np.ndarray:
    inner = np.sort(np.stack([RNG.choice(TOTAL - 1, symbols - 1, replace=False) + 1 for _ in range(rows)]), 1)
    return np.concatenate([np.zeros((rows, 1), int), inner, np.full((rows, 1), TOTAL)], 1)


@pytest.mark.parametrize("many", [1, 1000])
def test_pops_and_pushes_are_those_of_the_document(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks_module, "MANY", many)
    words = [RNG.integers(1, 1 << 32, n).tolist() for n in (0, 1, 2, 3, 40)]
    found = Stacks([np.array(w, "<u4").tobytes() for w in words])
    oracles = [Oracle(w) for w in words]
    counts = [30, 0, 7, 25, 30]
    table = edges(sum(counts), 5)
    begins = np.cumsum([0, *counts])
    expected = [[o.pop(row) for row in table[a:b].tolist()] for o, a, b in zip(oracles, begins, begins[1:])]
    symbols = found.pop(table, counts)
    assert symbols.tolist() == [s for chain in expected for s in chain]
    assert found.states == [o.s for o in oracles] and found.words == [o.list for o in oracles]
    low = table[np.arange(len(table)), symbols]
    width = table[np.arange(len(table)), symbols + 1] - low
    for o, a, b in zip(oracles, begins, begins[1:]):
        for k in reversed(range(a, b)):
            o.push(int(low[k]), int(width[k]))
    found.push(low, width, counts)
    assert found.states == [o.s for o in oracles] and found.words == [o.list for o in oracles]
    again = Stacks([np.array(w, "<u4").tobytes() for w in words])
    assert (found.states, found.words) == (again.states, again.words)
    assert not found.are_empty() and Stacks([b"", b""]).are_empty()


@pytest.mark.parametrize("words", [b"123", b"\1\0\0\0\0\0\0\0"])
def test_words_that_no_stack_has_are_rejected(words: bytes) -> None:
    with pytest.raises(ValueError):
        Stacks([words])


def test_logarithm_and_power_are_near_the_real_ones() -> None:
    f = np.unique(np.concatenate([np.arange(1, 300), RNG.integers(1, TOTAL + 1, 500), [TOTAL]]))
    assert np.abs(lg(f) / (1 << 20) - np.log2(f)).max() < 1e-5
    d = RNG.integers(0, 20 << 20, 500)
    assert np.abs(power(d) / 2.0 ** (30 - d / (1 << 20)) - 1).max() < 3e-3
