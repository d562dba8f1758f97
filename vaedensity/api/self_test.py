"""How far apart an estimator's bounds of log p(x) lie on items that the model itself made."""

from collections.abc import Callable
from pathlib import Path

from vaedensity.api.fit import pick_device
from vaedensity.api.model_items import load_model, scoring_model
from vaedensity.arithmetic import fresh_thread, full_precision, torch_threads
from vaedensity.density.bdmc import BDMCBounds, bdmc_bounds
from vaedensity.density.estimator import Estimator, TwoSided
from vaedensity.errors import BoundsTooWide, UsageError
from vaedensity.model.checkpoint import ModelFile

USUAL_ITEMS = 32


@fresh_thread()
def self_test(
    model: ModelFile | str | Path,
    estimator: Estimator,
    items: int = USUAL_ITEMS,
    *,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "auto",
    threads: int | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> BDMCBounds:
    """Bound log p(x) from both sides on items drawn from the model, by bidirectional Monte Carlo (Grosse et al. 2015).

    A small width says that ``estimator`` with these settings is accurate on items that look like the model's own.

    Parameters
    ----------
    model : ModelFile, str or Path
        A loaded model, a model file or a released name.
    estimator : TwoSided
        ``ImportanceSampling`` or ``Annealed``.
    items : int
        How many items to draw, at least 2.
    seed, batch_size, device, threads
        As for :func:`vaedensity.score`.
    progress : callable
        Told after every batch how many items are done.

    Returns
    -------
    BDMCBounds
        The items, both bounds, and their mean width in nats with its standard error.

    Raises
    ------
    UsageError
        For another estimator, fewer items, or a model of series, whose latents are categories.
    ModelError
        For a model that is missing or not whole.

    Examples
    --------
    >>> import vaedensity as vd
    >>> bounds = vd.self_test("digits", vd.ImportanceSampling(64), items=4)
    >>> bool(bounds.mean_width_nats < 5)
    True
    """
    if not isinstance(estimator, TwoSided):
        raise UsageError(
            f"self-test: found {estimator!r}; expected importance or annealed with a fixed number of samples"
        )
    if items < 2:
        raise UsageError(f"self-test: found {items} items, expected at least 2: one tells nothing of its own error")
    place, file = pick_device(device), model if isinstance(model, ModelFile) else load_model(model)
    with full_precision(), torch_threads(threads):
        return bdmc_bounds(
            scoring_model(file, place),
            estimator,
            items,
            model_sha256=file.sha256,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )


def require_width(bounds: BDMCBounds, tolerance_nats: float) -> None:
    """Raise BoundsTooWide unless the mean width plus two standard errors is within the tolerance."""
    if not within(bounds, tolerance_nats):
        if bounds.mean_width_nats <= tolerance_nats:
            remedy = "not certain with so few items; take more items or samples"
        else:
            remedy = "take more samples, or the annealed estimator"
        raise BoundsTooWide(
            f"self-test: bounds {bounds.mean_width_nats:.3f} nats apart per item (standard error "
            f"{bounds.standard_error_nats:.3f}), tolerance {tolerance_nats:g}; {remedy}"
        )


def within(bounds: BDMCBounds, tolerance_nats: float) -> bool:
    """Whether the mean width is below the tolerance beyond doubt: by two standard errors."""
    return bounds.mean_width_nats + 2 * bounds.standard_error_nats <= tolerance_nats
