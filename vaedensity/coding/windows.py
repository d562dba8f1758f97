"""Equally spaced entries of a cumulative table, seventeen or fewer, in one lookup, for decoding.

A decoder needs a symbol's whole row of boundaries. ``windows(kind, stride, count)`` lists, for every place i
of the flattened table, the entries i, i + stride, ..., i + (count - 1) stride, so that a row is one contiguous
read and a mixture one weighted sum of rows. float64 holds all of it exactly.
"""

from functools import lru_cache

import torch
from torch import Tensor

from vaedensity.coding.tables import gaussian_table, logistic_table

COUNT = 17
_TABLES = {"gaussian": gaussian_table, "logistic": logistic_table}


@lru_cache(maxsize=8)
def windows(kind: str, stride: int, count: int = COUNT) -> Tensor:
    """(entries, count) float64; places past the end repeat the last entry."""
    flat = torch.from_numpy(_TABLES[kind]().ravel().copy()).double()
    padded = torch.cat([flat, flat[-1:].expand(stride * (count - 1))])
    return torch.stack([padded[j * stride : j * stride + len(flat)] for j in range(count)], 1)
