"""Stacks whose loops are compiled, where numba is installed: the same words as
:class:`~vaedensity.coding.ans.Stacks`."""

import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vaedensity.coding.ans import Stacks, whole_words
from vaedensity.coding.integer_math import Ints
from vaedensity.errors import UsageError

VARIABLE = "VAEDENSITY_ENGINE"
ENGINES = ("compiled", "constriction")
NOBODY = np.empty(0, np.int64)
Rows = tuple[NDArray[np.uint64], NDArray[np.uint32], Ints, NDArray[np.float64]]


@dataclass(frozen=True)
class TableRows:
    """A batch (B,n) of tables as kernels read them: weights and bases (B,n,K), totals (B,n), all int64; the mass below
    boundary b is sum_k weight_k flat[base_k + b steps] // total, for 0 < b < size."""

    weights: Ints
    bases: Ints
    totals: Ints
    steps: int
    flat: NDArray[np.int32]
    size: int


class CompiledStacks(Stacks):
    """B stacks as rows of arrays."""

    def __init__(self, count: int, counting: bool = True):
        self.state, self.counts = np.zeros(count, np.uint64), np.zeros(count, np.int64)
        self.words = np.zeros((count, 64), np.uint32)
        self.information, self.counting = np.zeros(count), counting

    def __len__(self) -> int:
        return len(self.state)

    @classmethod
    def from_bytes(cls, parts: list[bytes]) -> "CompiledStacks":
        stacks = cls(len(parts))
        words = [whole_words(part) for part in parts]
        stacks._reserve(max((len(w) for w in words), default=0))
        for i, w in enumerate(words):
            low, high = (*w[-2:],) if len(w) > 1 else (*w, 0) if len(w) else (0, 0)
            stacks.state[i] = int(low) | int(high) << 32
            stacks.counts[i] = max(0, len(w) - 2)
            stacks.words[i, : stacks.counts[i]] = w[: stacks.counts[i]]
        return stacks

    def to_bytes(self) -> list[bytes]:
        out = []
        for state, count, words in zip(self.state.tolist(), self.counts.tolist(), self.words):
            tail = state.to_bytes(8, "little")
            tail = tail[: 8 if state >> 32 else 4 if state else 0]
            out.append(words[:count].astype("<u4").tobytes() + tail)
        return out

    def copy(self) -> "CompiledStacks":
        return self._part(slice(0, len(self)))

    def take(self, stacks: slice) -> "CompiledStacks":
        return self._part(stacks)

    def join(self, others: Stacks) -> None:
        assert isinstance(others, CompiledStacks)
        size = max(self.words.shape[1], others.words.shape[1])
        self._reserve(size)
        others._reserve(size)
        for name in ("state", "counts", "words", "information"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(others, name)]))

    def is_empty(self) -> NDArray[np.bool_]:
        empty: NDArray[np.bool_] = (self.state == 0) & (self.counts == 0)
        return empty

    def depth_bits(self) -> Ints:
        length = [max(0, int(s).bit_length() - 1) for s in self.state]
        return 32 * self.counts + np.array(length, np.int64)

    def push_intervals(self, lower: Ints, upper: Ints, owners: Ints | None = None) -> None:
        from vaedensity.coding import kernels

        lower, upper = (np.atleast_2d(np.ascontiguousarray(a, np.int64)) for a in (lower, upper))
        self._reserve(int(self.counts.max(initial=0)) + lower.shape[1] + 1)
        kernels.push_intervals(*self._rows(), lower, upper, NOBODY if owners is None else owners)

    def pop_rows(self, cumulative: NDArray[np.float64] | Ints, owners: Ints | None = None) -> Ints:
        from vaedensity.coding import kernels

        rows = np.ascontiguousarray(cumulative, np.int64)
        rows = rows if owners is None else rows[None]
        out = np.empty(rows.shape[:2], np.int64)
        kernels.pop_rows(*self._rows(), rows, NOBODY if owners is None else owners, out)
        return out if owners is None else out[0]

    def push_symbols(self, table: TableRows, symbol: Ints, first: Ints, length: int) -> None:
        """Push symbols (B,n) of ``table``; see :func:`~vaedensity.coding.kernels.push_symbols`."""
        from vaedensity.coding import kernels

        self._reserve(int(self.counts.max(initial=0)) + 3 * symbol.shape[1] + 1)
        kernels.push_symbols(*self._with(table), first, length, np.ascontiguousarray(symbol, np.int64))

    def pop_symbols(self, table: TableRows, first: Ints, length: int) -> Ints:
        """Undoes :meth:`push_symbols`. Raises ValueError where a symbol is outside the alphabet."""
        from vaedensity.coding import kernels

        out = np.empty(table.totals.shape, np.int64)
        if not kernels.pop_symbols(*self._with(table), first, length, out):
            raise ValueError("a symbol lies outside its alphabet")  # no writer makes one
        return out

    def _rows(self) -> Rows:
        return self.state, self.words, self.counts, self.information

    def _with(self, table: TableRows) -> tuple[*Rows, Ints, Ints, Ints, int, NDArray[np.int32], int]:
        return *self._rows(), table.weights, table.bases, table.totals, table.steps, table.flat, table.size

    def _part(self, stacks: slice) -> "CompiledStacks":
        part = CompiledStacks(0, self.counting)
        for name in ("state", "counts", "words", "information"):
            setattr(part, name, getattr(self, name)[stacks].copy())
        return part

    def _reserve(self, words: int) -> None:
        """Room for so many words a stack."""
        if words > self.words.shape[1]:
            longer = np.zeros((len(self), max(words, 2 * self.words.shape[1])), np.uint32)
            longer[:, : self.words.shape[1]] = self.words
            self.words = longer


@lru_cache(maxsize=1)
def fastest_stacks() -> type[Stacks]:
    """Which stacks to code with: compiled ones where numba is installed, else constriction's. Their words are the same.

    The environment variable VAEDENSITY_ENGINE, ``compiled`` or ``constriction``, decides where it is set.

    Raises
    ------
    UsageError
        The variable has another value, or asks for loops that cannot be compiled here.
    """
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", *ENGINES):
        raise UsageError(f"{VARIABLE}={wish}: expected {' or '.join(ENGINES)}")
    if wish == "constriction":
        return Stacks
    try:
        from vaedensity.coding import kernels  # noqa: F401
    except (ImportError, RuntimeError) as error:  # the second where numba finds no folder to keep compiled code in
        if wish == "compiled":
            why = "numba is not installed; pip install numba" if isinstance(error, ImportError) else error
            raise UsageError(f"{VARIABLE}=compiled: {why}") from error
        return Stacks
    return CompiledStacks
