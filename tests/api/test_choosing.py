"""Deciding about released models costs little: few values are coded, and none where a look at the data is enough."""

from typing import Any

import numpy as np
import pytest

from vaedensity.api import choose
from vaedensity.model.released import released

WORDS = b"and the words of a text are judged by few of them, whatever its length. "
SERIES = {"text": np.frombuffer(WORDS * 5000, np.uint8)}
NOT_FOR_ANY = {
    "noise": np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8),
    "a short text": np.frombuffer(WORDS, np.uint8),
    "another shape": np.zeros((50, 9, 8), np.uint8),
    "numbers": np.arange(10_000),
    "nothing": np.zeros((0, 8, 8), np.uint8),
    "a scalar": np.array(3),
}


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Values that models were asked to code, one number a time; they take ``coded.rate`` bits each."""

    class Coded(list[int]):
        rate = 100.0

    seen = Coded()

    def count(integers: Any, levels: Any, **options: Any) -> float:
        seen.append(levels.numel())
        return seen.rate * levels[0].numel()

    monkeypatch.setattr(choose, "coded_bits", count)
    return seen


@pytest.mark.parametrize("rate", [100.0, 0.0])
def test_a_sequence_model_is_judged_by_few_values(coded: Any, rate: float) -> None:
    coded.rate = rate
    chosen = choose.choose_model(SERIES)
    assert (chosen is not None) == (rate == 0.0)
    assert 0 < sum(coded) <= (4096 if rate else 5 * 4096)


def test_hopeless_models_of_images_get_a_first_look_only(coded: Any) -> None:
    assert choose.choose_model({"x": np.zeros((5000, 28, 28), np.uint8)}) is None
    known = [path for path in released().values() if "mnist" in path.stem]
    assert 0 < len(coded) <= len(known) and sum(coded) <= len(known) * choose.SAMPLE_VALUES


@pytest.mark.parametrize("name", NOT_FOR_ANY)
def test_a_look_at_the_data_is_enough(coded: Any, name: str) -> None:
    assert choose.choose_model({name: NOT_FOR_ANY[name]}) is None and coded == []
