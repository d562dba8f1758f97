"""Fixtures of the command line's tests."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def few(tmp_path: Path, digits: np.ndarray) -> Path:
    np.save(tmp_path / "few.npy", digits[:12])
    return tmp_path / "few.npy"
