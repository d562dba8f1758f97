"""How far apart an estimator's bounds of log p(x) lie on items that the model itself made."""

import time
from collections.abc import Callable
from typing import Any

from vaedensity.api.score import ScoreRequest, as_requested, scoring_model
from vaedensity.density.annealed import Annealed
from vaedensity.density.bdmc import Sandwich, sandwich
from vaedensity.density.estimator import Estimator
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import BoundsTooWide, UsageError
from vaedensity.model.checkpoint import ModelFile, finite

USUAL_ITEMS = 32


@as_requested
def self_test(
    file: ModelFile,
    items: int,
    request: ScoreRequest,
    *,
    progress: Callable[[int], None] = lambda n: None,
) -> tuple[Sandwich, dict[str, Any]]:
    """Both bounds and the record of ``score --self-test --json``."""
    estimator = two_sided(request.estimator)
    if items < 2:
        raise UsageError(f"self-test: found {items} items, expected at least 2: one tells nothing of its own error")
    started = time.monotonic()
    result = sandwich(
        scoring_model(file, request.device),
        estimator,
        items,
        model_sha256=file.sha256,
        seed=request.seed,
        batch_size=request.batch_size,
        progress=progress,
    )
    lower, upper = result.lower, result.upper
    return result, {
        "n": items,
        "dims": file.config.dims,
        "samples": estimator.samples,
        "lower_nats": finite(float(lower.log_prob_nats.mean())),
        "upper_nats": finite(float(upper.log_prob_nats.mean())),
        "width_nats": finite(result.mean_width_nats),
        "standard_error_nats": finite(result.standard_error_nats),
        "estimator": request.estimator.name,
        "settings": repr(request.estimator),
        "model_sha256": file.sha256,
        "seed": request.seed,
        "seconds": time.monotonic() - started,
    }


def two_sided(estimator: Estimator) -> ImportanceSampling | Annealed:
    """The estimator, where it bounds from both sides. Raises UsageError."""
    if not isinstance(estimator, ImportanceSampling | Annealed):
        raise UsageError(
            f"self-test: found {estimator!r}; expected importance or annealed with a fixed number of samples"
        )
    return estimator


def require_width(result: Sandwich, tolerance_nats: float) -> None:
    """Raise BoundsTooWide unless the mean width plus two standard errors is within the tolerance."""
    if not within(result, tolerance_nats):
        if result.mean_width_nats <= tolerance_nats:
            remedy = "not certain with so few items; take more items or samples"
        else:
            remedy = "take more samples, or the annealed estimator"
        raise BoundsTooWide(
            f"self-test: bounds {result.mean_width_nats:.3f} nats apart per item (standard error "
            f"{result.standard_error_nats:.3f}), tolerance {tolerance_nats:g}; {remedy}"
        )


def within(result: Sandwich, tolerance_nats: float) -> bool:
    """Whether the mean width is below the tolerance beyond doubt: by two standard errors."""
    return bool(result.mean_width_nats + 2 * result.standard_error_nats <= tolerance_nats)
