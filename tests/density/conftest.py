"""The linear-Gaussian model with a good inference distribution, and with a bad one."""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/ is no package: its folders' names repeat the library's

from linear_gaussian import LinearGaussian


class Known(NamedTuple):
    """A model, items drawn from it and their log p."""

    model: LinearGaussian
    x: np.ndarray
    truth: np.ndarray


@pytest.fixture(scope="session")
def golden() -> Known:
    model = LinearGaussian()
    return Known(model, *model.data(1000))


@pytest.fixture(scope="session")
def misled() -> Known:
    """q(z|x) is a third as wide as the exact posterior and off by one and a half of its scales."""
    model = LinearGaussian(widen=0.35, shift=1.5)
    return Known(model, *model.data(60))
