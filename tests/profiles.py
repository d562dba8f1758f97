"""How many cases property tests try.

The environment variable VAEDENSITY_PROFILE says it: "ci", the default, the same few thousand cases every time;
"nightly" 20 times as many, others every time.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("VAEDENSITY_PROFILE", "ci")
TIMES = {"ci": 1, "nightly": 20}[PROFILE]
COMMON: dict[str, Any] = dict(deadline=None, suppress_health_check=list(HealthCheck))
SETTINGS = settings(derandomize=True, database=None, **COMMON) if PROFILE == "ci" else settings(**COMMON)
PATIENT = pytest.mark.timeout(600 * TIMES)


def cases(count: int) -> Callable[..., Any]:
    """Settings of a test of so many cases."""
    return settings(SETTINGS, max_examples=count * TIMES)
