"""Randomness of one item: a function of model, seed and the item's own values, and of nothing else."""

import hashlib

import numpy as np
from numpy.typing import NDArray


class ItemNoise:
    """Independent streams of random numbers for one item (Philox, Salmon et al. 2011, keyed by a hash).

    The key is taken from the item's values, not from its place: results depend on neither order, batch,
    worker nor what else is scored. Equal items therefore get equal results.
    """

    def __init__(self, model_sha256: str, seed: int, item: NDArray[np.generic]):
        digest = hashlib.sha256(f"{model_sha256} {seed} {item.dtype.str} {item.shape} ".encode())
        digest.update(np.ascontiguousarray(item).tobytes())
        self.key = int.from_bytes(digest.digest()[:16], "little")

    def stream(self, purpose: str, index: int = 0) -> np.random.Generator:
        """Stream ``index`` of ``purpose``: the same however many numbers other streams gave."""
        word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
        return np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, index, word]))
