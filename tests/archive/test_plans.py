"""The plan at the head of a model's payload, and how chains are grouped."""

import pytest

from vaedensity.archive import chains
from vaedensity.coding.plan import Way

WORDS = b"\1\0\0\0"
COUPLED = Way(particles=2)


@pytest.mark.parametrize("items", [(0,), (0, 1, 2), (0, 1, 5, 6, 200)])
def test_plans_round_trip(items: tuple[int, ...]) -> None:
    assert chains.parse(chains.pack((items,), 300, WORDS), 300, Way()) == ((items,), WORDS)
    shorter = tuple(t for t in items if t < 6)
    assert chains.parse(chains.pack((items,), 6, WORDS), 6, Way()) == ((shorter,), WORDS)


@pytest.mark.parametrize(
    "payload", [b"", b"\0", b"\1", b"\1\0", b"\1\0\0", b"\1\0\x7f", b"\1\1\1", b"\xff" * 12, b"\1\x80\0\1"]
)
def test_bad_runs_are_rejected(payload: bytes) -> None:
    with pytest.raises(ValueError):
        chains.parse(payload, 5, Way())


@pytest.mark.parametrize("words", [b"\1", b"\0\0\0\0", b"\1\0\0\0\0\0\0\0"])
def test_words_that_no_stack_has_are_rejected(words: bytes) -> None:
    with pytest.raises(ValueError, match="not whole coder words"):
        chains.parse(chains.pack(((0,),), 5, words), 5, Way())


def test_an_item_coded_in_two_ways_is_rejected() -> None:
    assert chains.parse(chains.pack(((0,), (1, 2)), 5, WORDS), 5, COUPLED)[0] == ((0,), (1, 2))
    with pytest.raises(ValueError, match="two ways"):
        chains.parse(chains.pack(((0, 1), (1, 2)), 5, WORDS), 5, COUPLED)
