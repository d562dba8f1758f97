"""How many cases property tests try.

By default the same few hundred cases every time, so that the whole suite takes minutes on two cores. The environment
variable VAEDENSITY_CASES=N, a whole number, makes it N times as many, and others every time where N is above 1: at
night as many as there is time for (scripts/nightly/properties.py).
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("VAEDENSITY_CASES", "1"))
COMMON: dict[str, Any] = dict(deadline=None, suppress_health_check=list(HealthCheck))
SETTINGS = settings(derandomize=True, database=None, **COMMON) if TIMES == 1 else settings(**COMMON)
PATIENT = pytest.mark.timeout(600 * TIMES)


def cases(count: int) -> Callable[..., Any]:
    """Settings of a test of so many cases."""
    return settings(SETTINGS, max_examples=count * TIMES)
