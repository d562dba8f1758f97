"""What a VAEDensity is told, and what its model file remembers of it: a record in the file's card.

With or without the record the file holds the same network: to every command it is a model file.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from vaedensity.errors import ModelError, UsageError
from vaedensity.model.checkpoint import ModelFile, save_model
from vaedensity.model.config import PRESETS

KEY = "estimator"
FLOAT_MAX = sys.float_info.max


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
"""What each parameter of VAEDensity may be, as a test and in words."""


def check_parameters(estimator: object) -> None:
    """Raise UsageError for the first parameter, an attribute of ``estimator``, that makes no sense."""
    for name, (accepts, expected) in PARAMETERS.items():
        value = getattr(estimator, name)
        if not accepts(value):
            raise UsageError(f"{name} {value!r}: expected {expected}")


@dataclass(frozen=True)
class EstimatorRecord:
    """What is remembered: the constructor's ``parameters``, the threshold ``offset`` in nats, None where there is none,
    and the record that ``fit`` returned."""

    parameters: dict[str, Any] = field(default_factory=dict)
    offset: float | None = None
    fit: dict[str, Any] = field(default_factory=dict)


def save_with_record(path: Path, file: ModelFile, record: EstimatorRecord, *, overwrite: bool) -> None:
    """Write ``file`` to ``path`` with ``record`` in its card."""
    found = asdict(record)
    found["parameters"] = {k: v.item() if isinstance(v, np.generic) else v for k, v in record.parameters.items()}
    save_model(
        path,
        file.float_model(),
        file.values,
        file.card | {"name": path.stem, KEY: found},
        file.kernels,
        file.start,
        file.unit,
        file.direct_steps,
        overwrite=overwrite,
    )


def record_in(file: ModelFile) -> EstimatorRecord | None:
    """The record in a file's card, None where no estimator wrote it. Raises ModelError where it makes no sense."""
    if KEY not in file.card:
        return None
    found = file.card[KEY]
    try:
        parameters, offset, fit = found["parameters"], found["offset"], found["fit"]
        good = isinstance(fit, dict) and (offset is None or is_number(offset, -FLOAT_MAX, FLOAT_MAX))
        good = good and all(v is None or isinstance(v, (bool, int, float, str)) for v in parameters.values())
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise ModelError(f"{file.path}: its record of an estimator makes no sense; load it with vaedensity.load_model")
    if unknown := sorted(set(parameters) - set(PARAMETERS)):
        raise ModelError(f"{file.path}: has a parameter {unknown[0]!r} that is not known; update vaedensity")
    return EstimatorRecord(dict(parameters), None if offset is None else float(offset), dict(fit))
