"""The compiled loop that makes rows of mixtures' tables. Needs numba."""

import numpy as np
from numpy.typing import NDArray

from vaedensity.coding.integer_math import Ints
from vaedensity.coding.kernels import Flat, Int, compiled


@compiled
def mixture_rows(
    logits: NDArray[np.float32],
    means: NDArray[np.float32],
    scales: NDArray[np.float32],
    offsets: Ints,
    weight_table: Flat,
    start: Int,
    last_row: Int,
    row_length: Int,
    origin: Int,
    limit: Int,
) -> tuple[Ints, Ints, Ints]:
    """Weights (B,n,K), bases (B,n,K) and totals (B,n) from whole float parameters (B,K,n), as MixtureTable has them;
    ``offsets`` (B,K,n) int64 of the means, or empty."""
    count, parts, places = logits.shape
    weights, bases = np.empty((count, places, parts), np.int64), np.empty((count, places, parts), np.int64)
    totals = np.empty((count, places), np.int64)
    for b in range(count):
        for i in range(places):
            best = logits[b, 0, i]
            for k in range(1, parts):
                best = max(best, logits[b, k, i])
            total = np.int64(0)
            for k in range(parts):
                rank = min(np.int64(best - logits[b, k, i]), np.int64(len(weight_table) - 1))
                mean: Int = np.int64(means[b, k, i])
                if offsets.shape[0]:
                    mean += offsets[b, k, i]
                mean = max(-limit, min(limit, mean))
                scale = max(np.int64(0), min(last_row, np.int64(scales[b, k, i]) + start))
                weights[b, i, k] = weight_table[rank]
                total += weight_table[rank]
                bases[b, i, k] = scale * row_length + origin - mean
            totals[b, i] = total
    return weights, bases, totals
