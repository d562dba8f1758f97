"""SHA-256 of arrays in C order, a few megabytes at a time."""

from typing import Any

PIECE_BYTES = 1 << 22


def feed(digest: Any, array: Any) -> None:
    """Add the bytes of ``array``, numpy's or one with its slices, to a hashlib object."""
    if array.ndim == 0:
        digest.update(array.tobytes())
    elif array.nbytes:
        rows = max(1, PIECE_BYTES * len(array) // array.nbytes)
        for begin in range(0, len(array), rows):
            digest.update(array[begin : begin + rows].tobytes())
