"""What a model file remembers of the estimator that was fitted: a record in its card.

With or without the record the file holds the same networks: to every command it is a model file.
"""

import math
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from vaedensity.errors import ModelError
from vaedensity.model.checkpoint import ModelFile, finite, load_model, save_model

KEY = "estimator"


@dataclass(frozen=True)
class EstimatorRecord:
    """``parameters``: those of the constructor. ``offset``: the threshold in nats, None where there is none.
    ``fit``: the record that fitting returned."""

    parameters: dict[str, Any] = field(default_factory=dict)
    offset: float | None = None
    fit: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        parameters = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.parameters.items()}
        offset = None if self.offset is None else finite(self.offset)
        return {"parameters": parameters, "offset": offset, "fit": self.fit}


def open_bytes(data: bytes, name: str) -> ModelFile:
    """The checked model file whose bytes are ``data``; ``name`` stands for its path in errors."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        return replace(load_model(path), path=Path(name))


def save_with_record(path: Path, file: ModelFile, record: EstimatorRecord, *, overwrite: bool) -> None:
    """Write ``file`` to ``path`` with ``record`` in its card."""
    card = file.card | {"name": path.stem, KEY: record.to_json()}
    save_model(
        path,
        file.float_model(),
        file.values,
        card,
        file.kernels,
        file.start,
        file.unit,
        file.direct_steps,
        overwrite=overwrite,
    )


def record_in(file: ModelFile, known: list[str]) -> EstimatorRecord | None:
    """The record in a file's card, None where no estimator wrote it. Raises ModelError where it is not one.

    ``known``: names of the parameters there are.
    """
    if KEY not in file.card:
        return None
    found = file.card[KEY]
    try:
        parameters, offset, fit = found["parameters"], found["offset"], found["fit"]
        good = isinstance(fit, dict) and (offset is None or (_is_number(offset) and math.isfinite(offset)))
        good = good and all(v is None or isinstance(v, (bool, int, float, str)) for v in parameters.values())
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise ModelError(f"{file.path}: its record of an estimator makes no sense; load it with vaedensity.load_model")
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ModelError(f"{file.path}: has a parameter {unknown[0]!r} that is not known; update vaedensity")
    return EstimatorRecord(dict(parameters), None if offset is None else float(offset), dict(fit))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
