"""Functions of whole numbers against decimal arithmetic of higher precision and against float64."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from vaedensity.coding.integer_math import BITS, LOG_BITS, ONE, exp_negative, fixed_log2, fixed_power, power_of_two


@pytest.mark.parametrize("y", ["0", "0.0001", "0.5", "1", "3.25", "17"])
def test_exp_negative(y: str) -> None:
    getcontext().prec = 50
    found = Decimal(exp_negative(int(Decimal(y) * ONE))) / ONE
    assert abs(found - (-Decimal(y)).exp()) < Decimal(2) ** -(BITS - 16)


@pytest.mark.parametrize("eighths", [-80, -9, -1, 0, 1, 5, 8, 23, 72])
def test_power_of_two(eighths: int) -> None:
    getcontext().prec = 50
    found = Decimal(power_of_two(eighths)) / ONE
    expected = Decimal(2) ** (Decimal(eighths) / 8)
    assert abs(found / expected - 1) < Decimal(2) ** -(BITS - 20)


def test_whole_logarithms() -> None:
    values = np.unique(
        np.concatenate([np.arange(1, 5000), np.random.default_rng(0).integers(1, 2**24 + 1, 5000), [2**24]])
    )
    assert np.abs(fixed_log2(values) / 2**LOG_BITS - np.log2(values)).max() < 2**-17
    deficits = np.random.default_rng(0).integers(0, 30 << LOG_BITS, 5000)
    truth = 2.0 ** (30 - deficits / 2**LOG_BITS)
    assert np.abs(fixed_power(deficits) - truth).max() <= 2**30 * 2e-4
    assert (np.abs(fixed_power(deficits) / truth - 1)[truth > 1e4] < 5e-4).all()
    assert fixed_power(np.array([0, 1 << LOG_BITS, 31 << LOG_BITS, 1 << 40])).tolist() == [2**30, 2**29, 0, 0]
