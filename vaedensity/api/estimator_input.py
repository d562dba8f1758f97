"""What parameters the estimator accepts, refused with one line where they do not fit."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from vaedensity.errors import UsageError
from vaedensity.model.config import PRESETS


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether ``value`` is a real number in [low, high], of Python or numpy."""
    return isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) <= high


def is_share(value: Any) -> bool:
    """Whether ``value`` is a real number strictly between 0 and 1."""
    return is_number(value, 0, 1) and 0 < value < 1


def is_whole(value: Any, low: int, high: int = 2**63 - 1) -> bool:
    """Whether ``value`` is an integer in [low, high], of Python or numpy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high


def whole_number(name: str, value: Any, low: int) -> int:
    """``value`` as an int. Raises UsageError where it is none, or below ``low``."""
    if not is_whole(value, low):
        raise UsageError(f"{name} {value!r}: expected a whole number from {low} on")
    return int(value)


PARAMETERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "preset": (lambda v: isinstance(v, str) and v in PRESETS, f"one of {', '.join(PRESETS)}"),
    "steps": (lambda v: v is None or is_whole(v, 1), "a whole number from 1 on, or None"),
    "epochs": (lambda v: v is None or (is_number(v, 0, 1e9) and v > 0), "a number above 0, or None"),
    "budget": (
        lambda v: v is None or isinstance(v, str) or (is_number(v, 0, 1e9) and v > 0),
        'seconds above 0, text such as "10m", or None',
    ),
    "seed": (lambda v: is_whole(v, 0), "a whole number from 0 on"),
    "device": (lambda v: isinstance(v, str), "auto, cpu, cuda or cuda:N"),
    "valid_fraction": (is_share, "a number between 0 and 1"),
    "batch_size": (lambda v: v is None or is_whole(v, 1, 65536), "a whole number from 1 to 65536, or None"),
    "rate": (lambda v: v is None or is_share(v), "a number between 0 and 1, or None"),
    "samples": (lambda v: is_whole(v, 1), "a whole number from 1 on"),
    "contamination": (lambda v: is_share(v) and v <= 0.5, "a number above 0, at most 0.5"),
    "threads": (lambda v: v is None or is_whole(v, 1), "a whole number from 1 on, or None"),
    "score_batch_size": (lambda v: is_whole(v, 1), "a whole number from 1 on"),
}


def check_parameters(estimator: Any) -> None:
    """Raise UsageError for the first parameter, an attribute of ``estimator``, that makes no sense."""
    for name, (accepts, expected) in PARAMETERS.items():
        value = getattr(estimator, name)
        if not accepts(value):
            raise UsageError(f"{name} {value!r}: expected {expected}")
