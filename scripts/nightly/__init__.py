"""Tests that take too long for every change: fuzzing, injected faults, bit flips, changing inputs, other machines.

``python -m scripts.nightly.run`` runs all of them. Each is a module with a function ``check(seconds, seed)``, which
tries what it can in about that time and returns an :class:`Outcome`.
"""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
GOLDEN, CORPUS = ROOT / "tests" / "golden", ROOT / "tests" / "corpus"


class Outcome(NamedTuple):
    """How many cases were tried, and one line for each that failed."""

    cases: int
    failures: list[str]
