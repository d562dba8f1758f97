"""Stacks that no writer makes, because they hold symbols which none has, are refused and not misread."""

import numpy as np
import pytest
import torch

from vaedensity.coding.ans import Stacks
from vaedensity.coding.codec import TableCodec
from vaedensity.coding.coupled import UniformCodec
from vaedensity.coding.pixel_table import MixtureTable
from vaedensity.coding.stacks_choice import fastest_stacks
from vaedensity.coding.tables import TOTAL

each_engine = pytest.mark.parametrize("engine", list(dict.fromkeys([Stacks, fastest_stacks()])))
LAST = (TOTAL - 2, TOTAL)  # the interval of a last digit that no symbol has: its floor


def holding(engine: type[Stacks], *intervals: tuple[int, int]) -> Stacks:
    """A stack from which these intervals are popped, the first first."""
    stacks = engine(1)
    stacks.push_intervals(*(np.array([[interval[end] for interval in intervals]]) for end in (0, 1)))
    return stacks


@each_engine
def test_digits_beyond_the_alphabet(engine: type[Stacks]) -> None:
    codec = TableCodec(MixtureTable(torch.zeros(1, 3, 1), 33, 1))
    high, low = ((int(lower[0, 0]), int(upper[0, 0])) for lower, upper in codec.intervals(np.array([[32]])))
    good = holding(engine, high, low)
    assert codec.pop(good) == [[32]] and good.is_empty().all()
    with pytest.raises(ValueError, match="outside its alphabet"):
        codec.pop(holding(engine, high, LAST))


@each_engine
def test_places_beyond_their_interval(engine: type[Stacks]) -> None:
    codec, stacks = UniformCodec(np.array([[1]])), engine(1)
    codec.push(stacks, np.array([[0]]))
    assert codec.pop(stacks) == [[0]] and stacks.is_empty().all()
    with pytest.raises(ValueError, match="outside its interval"):
        codec.pop(holding(engine, LAST))
