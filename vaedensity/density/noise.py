"""Randomness of one item: a function of model, seed and the item's index, and of nothing else."""

import hashlib

import numpy as np
from numpy.typing import NDArray


class ItemNoise:
    """Standard normal numbers for item ``index``: the same whatever is asked for at once or in which
    batch the item travels (Philox, Salmon et al. 2011, keyed by a hash)."""

    def __init__(self, model_sha256: str, seed: int, index: int):
        digest = hashlib.sha256(f"{model_sha256} {seed} {index}".encode()).digest()
        self.generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))

    def normal(self, samples: int, dims: int) -> NDArray[np.float32]:
        """The next ``samples`` rows, (samples, dims) float32."""
        return self.generator.standard_normal((samples, dims), np.float32)
