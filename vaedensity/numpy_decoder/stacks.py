"""ANS stacks of several chains (docs/format.md, "Stack"). Few are walked one after the other, many in lockstep."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.tables import TOTAL, Ints

MASK = TOTAL - 1
LOW32 = (1 << 32) - 1
MANY = 24  # chains, from which on whole rows of numbers are faster than Python's


class Stacks:
    """``states[i]``, below 2^64, and ``words[i]``, the list below it, of chain i."""

    def __init__(self, words: Sequence[bytes]):
        """``words[i]``: the coder words of a block, little-endian. Raises ValueError where they are no stack's."""
        self.states: list[int] = []
        self.words: list[list[int]] = []
        for each in words:
            if len(each) % 4:
                raise ValueError("the coder words are cut off")
            if each and not any(each[-4:]):
                raise ValueError("the last coder word is 0")
            numbers = np.frombuffer(each, "<u4").tolist()
            state = numbers.pop() if numbers else 0
            if numbers:
                state = state << 32 | numbers.pop()
            self.states.append(state)
            self.words.append(numbers)

    def are_empty(self) -> bool:
        return not any(self.states) and not any(self.words)

    def pop(self, edges: Ints, counts: Sequence[int]) -> Ints:
        """Pop ``counts[i]`` symbols of each chain i < len(counts), in order.

        ``edges`` (sum of counts, n+1): where the interval of each symbol begins, T at last; chain after chain.
        Returns the symbols, as many.
        """
        if len(counts) >= MANY:
            return self._pop_many(edges, np.array(counts))
        rows, out, at = edges.tolist(), [], 0
        for chain, count in enumerate(counts):
            state, words = self.states[chain], self.words[chain]
            for row in rows[at : at + count]:
                q = state & MASK
                symbol = bisect_right(row, q) - 1
                low = row[symbol]
                state = (state >> 24) * (row[symbol + 1] - low) + q - low
                if state <= LOW32 and words:
                    state = state << 32 | words.pop()
                out.append(symbol)
            self.states[chain] = state
            at += count
        return np.array(out, np.int64)

    def push(self, low: Ints, width: Ints, counts: Sequence[int]) -> None:
        """Undo a pop of the intervals [low, low + width), both (sum of counts,): the last symbol of a chain first."""
        if len(counts) >= MANY:
            self._push_many(low, width, np.array(counts))
            return
        lows, widths, at = low.tolist(), width.tolist(), 0
        for chain, count in enumerate(counts):
            state, words = self.states[chain], self.words[chain]
            for k in range(at + count - 1, at - 1, -1):
                f = widths[k]
                if state >= f << 40:
                    words.append(state & LOW32)
                    state >>= 32
                high, rest = divmod(state, f)
                state = (high << 24) + lows[k] + rest
            self.states[chain] = state
            at += count

    def _pop_many(self, edges: Ints, counts: NDArray[np.int64]) -> Ints:
        states = np.array(self.states[: len(counts)], np.uint64)
        begins = np.cumsum(counts) - counts
        out = np.empty(len(edges), np.int64)
        for k in range(int(counts.max(initial=0))):
            some = np.flatnonzero(counts > k)
            at, state = begins[some] + k, states[some]
            q = (state & np.uint64(MASK)).astype(np.int64)
            rows = edges[at]
            symbol = (rows <= q[:, None]).sum(1) - 1
            each = np.arange(len(at))
            low = rows[each, symbol]
            width = rows[each, symbol + 1] - low
            states[some] = (state >> np.uint64(24)) * width.astype(np.uint64) + (q - low).astype(np.uint64)
            out[at] = symbol
            for chain in some[states[some] <= LOW32].tolist():
                if self.words[chain]:
                    states[chain] = int(states[chain]) << 32 | self.words[chain].pop()
        self.states[: len(counts)] = states.tolist()
        return out

    def _push_many(self, low: Ints, width: Ints, counts: NDArray[np.int64]) -> None:
        states = np.array(self.states[: len(counts)], np.uint64)
        ends = np.cumsum(counts) - 1
        for k in range(int(counts.max(initial=0))):
            some = np.flatnonzero(counts > k)
            f = width[ends[some] - k].astype(np.uint64)
            full = states[some] >> np.uint64(40) >= f
            for chain in some[full].tolist():
                state = int(states[chain])
                self.words[chain].append(state & LOW32)
                states[chain] = state >> 32
            high, rest = np.divmod(states[some], f)
            states[some] = (high << np.uint64(24)) + low[ends[some] - k].astype(np.uint64) + rest
        self.states[: len(counts)] = states.tolist()
