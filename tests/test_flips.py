"""A share of the flips and truncations that scripts/flip_bits.py tries: none comes to other data."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from flip_bits import flip, numpy_reader, torch_reader


@pytest.mark.parametrize("name", ["two-valued-v1", "sequence-v4", "tree-v5"])
@pytest.mark.parametrize("reader", [torch_reader, numpy_reader])
def test_flips(name: str, reader: object) -> None:
    counts, wrong = flip(name, reader(), every=7)
    assert wrong == []
    assert counts["tried"] == counts["rejected"] + counts["harmless"] > 500 and counts["harmless"] == 0
