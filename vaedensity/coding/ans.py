"""The entropy coder: asymmetric numeral systems (Duda 2013, arXiv:1311.2540, rANS). All contact with constriction.

Probabilities arrive as integers and are handed over as floats that hold them exactly; with ``perfect=False``
constriction scales by (2^24 - n) / sum, which is 1 here, and adds 1 to each: no rounding takes place.
"""

from collections.abc import Iterable
from typing import Any, cast

import constriction
import numpy as np
from numpy.typing import NDArray

from vaedensity.coding.integer_math import Ints
from vaedensity.coding.tables import PRECISION, TOTAL

_Rows = constriction.stream.model.Categorical(perfect=False, lazy=True)


def whole_words(part: bytes) -> NDArray[np.uint32]:
    """The 32-bit words of a chain. Raises ValueError."""
    if len(part) % 4 or (part and part[-4:] == b"\0\0\0\0"):
        raise ValueError(f"a chain of {len(part)} bytes is not whole words with a non-zero end")
    return np.frombuffer(part, "<u4").astype(np.uint32)


class Stacks:
    """A batch of B independent last-in-first-out coders: 64-bit state, 32-bit words, 24-bit probabilities.

    Pushing and popping undo each other to the bit, in either order.

    Parameters
    ----------
    count : int
        B.
    counting : bool
        Whether ``information`` is kept.

    Attributes
    ----------
    information : numpy.ndarray
        (B,) float64: bits -log2(frequency / 2^24) of what was pushed minus those of what was popped.

    Examples
    --------
    >>> stacks = Stacks(1)
    >>> stacks.push_intervals(np.array([[0, 1 << 23]]), np.array([[1 << 23, 1 << 24]]))  # a bit each
    >>> float(stacks.information[0])
    2.0
    >>> stacks.pop_rows(np.array([[[0, 1 << 23, 1 << 24]] * 2])).tolist()  # which half, twice
    [[0, 1]]
    """

    def __init__(self, count: int, counting: bool = True):
        self.coders = [constriction.stream.stack.AnsCoder() for _ in range(count)]
        self.information, self.counting = np.zeros(count), counting

    def __len__(self) -> int:
        return len(self.coders)

    @classmethod
    def from_bytes(cls, parts: list[bytes]) -> "Stacks":
        """Stacks that hold what ``to_bytes`` wrote. Raises ValueError where it wrote no such bytes."""
        stacks = cls(0)
        stacks.coders = [constriction.stream.stack.AnsCoder(whole_words(part)) for part in parts]
        stacks.information = np.zeros(len(parts))
        return stacks

    @classmethod
    def random(cls, count: int, words: int, seed: int) -> "Stacks":
        """Stacks of so many random ``words`` each: popping from them samples."""
        rng = np.random.default_rng(seed)
        return cls.from_bytes([rng.integers(1, 2**32, words, np.uint32).astype("<u4").tobytes() for _ in range(count)])

    def to_bytes(self) -> list[bytes]:
        """Each stack as little-endian 32-bit words, the last not zero."""
        return [coder.get_compressed().astype("<u4").tobytes() for coder in self.coders]

    def copy(self) -> "Stacks":
        """The same stacks again, which change on their own."""
        return self.take(slice(0, len(self)))

    def take(self, stacks: slice) -> "Stacks":
        """Copies of some of the stacks."""
        part = Stacks(0, self.counting)
        part.coders = [coder.clone() for coder in self.coders[stacks]]
        part.information = self.information[stacks].copy()
        return part

    def join(self, others: "Stacks") -> None:
        """Add ``others`` after these."""
        self.coders = self.coders + others.coders
        self.information = np.concatenate([self.information, others.information])

    def is_empty(self) -> NDArray[np.bool_]:
        """Which stacks hold nothing (B,)."""
        return np.array([coder.is_empty() for coder in self.coders], bool)

    def depth_bits(self) -> NDArray[np.int64]:
        """Bits that can still be popped from each stack (B,)."""
        return np.array([coder.num_valid_bits() for coder in self.coders], dtype=np.int64)

    def push_intervals(self, lower: Ints, upper: Ints, owners: Ints | None = None) -> None:
        """Push symbols given as intervals, the last first, so that popping returns them in array order.

        Parameters
        ----------
        lower, upper : numpy.ndarray
            (B,n) int64: intervals [lower, upper) of 2^24, each at least 2 wide and leaving at least 2 outside. With
            ``owners``: (m,).
        owners : numpy.ndarray, optional
            (m,) int64, sorted: the stack of each interval.
        """
        width = upper - lower
        first, last = lower == 0, upper == TOTAL
        rows = np.empty((*lower.shape, 3), np.float32)  # frequencies minus one of: below, the symbol, above
        rows[..., 0] = np.where(first, upper, lower) - 1 - last
        rows[..., 1] = np.where(first | last, 1, width) - 1
        rows[..., 2] = np.where(last, width, TOTAL - upper) - 1 - first
        symbols = (1 - first + last).astype(np.int32)
        for coder, symbol, row in zip(self.coders, self._split(symbols, owners), self._split(rows, owners)):
            if len(symbol):
                coder.encode_reverse(symbol, _Rows, row)
        if self.counting:
            self.information += self._by_stack(PRECISION - np.log2(width), owners)

    def pop_rows(self, cumulative: NDArray[np.float64] | Ints, owners: Ints | None = None) -> Ints:
        """Pop symbols, the first first.

        Parameters
        ----------
        cumulative : numpy.ndarray
            (B,n,k+1): each symbol's row of boundaries 0 = c_0 < c_1 < ... < c_k = 2^24, whole numbers of any dtype that
            holds them. With ``owners``: (m,k+1).
        owners : numpy.ndarray, optional
            (m,) int64, sorted: the stack of each symbol.

        Returns
        -------
        numpy.ndarray
            (B,n) int64, or (m,): symbols 0..k-1.
        """
        frequencies = cumulative[..., 1:] - cumulative[..., :-1]
        rows = (frequencies - 1).astype(np.float32)
        parts = [
            coder.decode(_Rows, row) if len(row) else np.empty(0, np.int32)
            for coder, row in zip(self.coders, self._split(rows, owners))
        ]
        symbols: Ints = (np.stack(parts) if owners is None else np.concatenate(parts)).astype(np.int64)
        if self.counting:
            popped = np.take_along_axis(frequencies, symbols[..., None], -1)[..., 0]
            self.information -= self._by_stack(PRECISION - np.log2(popped), owners)
        return symbols

    def _split(self, values: NDArray[Any], owners: Ints | None) -> Iterable[NDArray[Any]]:
        """``values`` stack by stack."""
        if owners is None:
            return values
        ends = np.searchsorted(owners, np.arange(1, len(self) + 1)).tolist()
        return [values[begin:end] for begin, end in zip([0, *ends], ends)]

    def _by_stack(self, bits: NDArray[np.float64], owners: Ints | None) -> NDArray[np.float64]:
        sums = bits.sum(axis=1) if owners is None else np.bincount(owners, bits, len(self))
        return cast(NDArray[np.float64], sums)  # numpy's stubs take bincount for a count, weights or not
