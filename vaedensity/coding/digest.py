"""SHA-256 of arrays in C order, a few megabytes at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 1 << 22


def feed(digest: Any, array: NDArray[np.generic]) -> None:
    """Add the bytes of ``array`` to a hashlib object."""
    if array.nbytes <= PIECE_BYTES or array.ndim == 0:
        digest.update(array.tobytes())
        return
    rows = max(1, PIECE_BYTES // max(1, array[:1].nbytes))
    for begin in range(0, len(array), rows):
        digest.update(array[begin : begin + rows].tobytes())
