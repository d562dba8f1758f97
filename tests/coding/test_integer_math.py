"""Fixed-point functions against decimal arithmetic of higher precision."""

from decimal import Decimal, getcontext

import pytest

from vaedensity.coding.integer_math import BITS, ONE, exp_negative, power_of_two


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
