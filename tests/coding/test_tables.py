"""Tables: what they approximate, and that they never change."""

import hashlib
import math

import numpy as np
import pytest

from vaedensity.coding import tables
from vaedensity.coding.tables import COUNT, windows

# Archives depend on every entry: a change here needs a new format version.
DIGESTS = {
    "gaussian_table": "7f3a1a93296a25a6ecdfc1c404a91f0202774070c5b49f9c55ca60ac27564617",
    "logistic_table": "abff3fcd8466605505a8eef5b44ef1d6a61141dbe851c13dad9c0113c5a05dfe",
    "weight_table": "41373be69cd9221692bdb6a8869b48238477da1e658ec99ab0594813a3672dc5",
    "log_odds_table": "8ea25119ca6402fd55b8e2c20844d7d059f67baafda7bfe7d85d79696501f712",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_tables_are_frozen(name: str) -> None:
    table = getattr(tables, name)()
    assert table.dtype == np.int32
    assert hashlib.sha256(table.astype("<i4").tobytes()).hexdigest() == DIGESTS[name]


def test_gaussian_rows_are_normal_distributions() -> None:
    table, reach = tables.gaussian_table(), tables.GAUSSIAN_REACH
    assert (np.diff(table) >= 0).all() and (table[:, 0] == 0).all() and (table[:, -1] == tables.TOTAL).all()
    t = np.arange(-reach, reach + 1)
    for s in (0, 7, 20, 33):
        sigma = 4 * 2 ** (s / 8)
        expected = np.array([0.5 * math.erfc(-u / sigma / math.sqrt(2)) for u in t])
        assert np.abs(table[s] / tables.TOTAL - expected).max() < 7e-4  # the middle of a cell stands for the cell


def test_logistic_rows_are_logistic_distributions() -> None:
    table, reach = tables.logistic_table(), tables.LOGISTIC_REACH
    assert (np.diff(table) >= 0).all()
    t = np.arange(-reach, reach + 1)
    for s in (0, 11, 40, 72):
        expected = 1 / (1 + np.exp(-np.clip(t / 2 ** (s / 8), -700, 700)))
        assert np.abs(table[s] / tables.TOTAL - expected).max() < 1.5 / tables.TOTAL


def test_weights_and_odds() -> None:
    weights = tables.weight_table()[0] / 2**16
    assert np.abs(weights - 2.0 ** (-np.arange(256) / 16)).max() < 2**-15
    j = np.arange(-255, 256)
    assert np.abs(tables.log_odds_table()[0] / tables.TOTAL - 1 / (1 + 2.0 ** (j / 16))).max() < 2**-22


@pytest.mark.parametrize(("kind", "stride"), [("gaussian", 4), ("logistic", 128)])
def test_windows_are_strided_reads(kind: str, stride: int) -> None:
    flat = getattr(tables, f"{kind}_table")().ravel()
    rows = windows(kind, stride)
    for i in (0, 1, 5000, len(flat) - 20 * stride):
        assert rows[i].tolist() == flat[i : i + COUNT * stride : stride][:COUNT].tolist()
