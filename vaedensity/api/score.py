"""Score a collection under a model, item by item."""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vaedensity import items, units
from vaedensity.arithmetic import full_precision, torch_threads
from vaedensity.density.estimate import K_HAT_LIMIT, Estimate, Floats, mean
from vaedensity.density.estimator import Estimator, score_batches
from vaedensity.density.importance import ImportanceSampling
from vaedensity.density.pareto import FEWEST_IN_TAIL, tail_length
from vaedensity.errors import Interrupted, UnreliableScores, UsageError
from vaedensity.model.checkpoint import ModelFile, finite
from vaedensity.model.kinds import Network, to_device
from vaedensity.model.sequence_config import SequenceConfig
from vaedensity.report.rows import RowLog, check_rows_path, table, write_table

STRICT_SHARE = 0.01
Given, Result = ParamSpec("Given"), TypeVar("Result")
Anomaly = Callable[[slice, Estimate], Floats]
"""Anomaly scores of the items in a slice, given their estimates."""


@dataclass(frozen=True)
class ScoreRequest:
    """How to score: ``batch_size`` counts pairs of item and sample in memory and changes no result; ``threads`` as
    :func:`choose_threads` takes them."""

    estimator: Estimator = field(default_factory=ImportanceSampling)
    seed: int = 0
    batch_size: int = 256
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.estimator.samples < 1 or self.batch_size < 1:
            raise UsageError(
                f"found {self.estimator.samples} samples and batch size {self.batch_size}; expected at least 1 of each"
            )


def as_requested(task: Callable[Given, Result]) -> Callable[Given, Result]:
    """A ``task`` that works in full precision with the threads of the request that it is given."""

    @functools.wraps(task)
    def run(*given: Given.args, **named: Given.kwargs) -> Result:
        requests = [one for one in (*given, *named.values()) if isinstance(one, ScoreRequest)]
        with full_precision(), torch_threads(requests[0].threads if requests else None):
            return task(*given, **named)

    return run


@dataclass(frozen=True)
class Output:
    """Where rows go: ``path`` .csv, .jsonl or .parquet; ``names``: what the items are called, or which file they are
    of; ``offsets``: where in it each begins."""

    path: Path
    overwrite: bool = False
    resume: bool = False
    names: list[str] | None = None
    offsets: list[int] | None = None

    def check(self) -> None:
        check_rows_path(self.path, overwrite=self.overwrite, resume=self.resume)


@dataclass(frozen=True)
class Scores:
    """The estimate of every item, its anomaly score where asked for, and the record of ``score --json``."""

    estimate: Estimate
    anomaly: Floats | None
    record: dict[str, Any]


@dataclass(frozen=True)
class ItemLevels:
    """Items as the model takes them: ``levels`` (N,C,H,W) and which of them are ``known`` (N,) bool, having only
    values that the model can make. The levels of the others mean nothing."""

    levels: NDArray[np.uint8]
    known: NDArray[np.bool_]

    @property
    def unseen(self) -> int:
        """How many items are not known."""
        return int((~self.known).sum())

    def known_levels(self, first: int = 0) -> NDArray[np.uint8]:
        """The levels of the known items from ``first`` on."""
        levels, known = self.levels[first:], self.known[first:]
        return levels if known.all() else levels[known]


def levels_of(file: ModelFile, array: NDArray[np.generic], source: str) -> ItemLevels:
    """``array`` as the integers that the model takes. Raises UsageError for items of another kind or size."""
    data = require_data(file, array, source)
    if data.shape[1:] != file.config.item_shape:
        raise UsageError(
            f"{source}: items are {size(data.shape[1:])}, the model {file.path} scores {size(file.config.item_shape)}; "
            "fit one to these data"
        )
    return ItemLevels(*items.apply_map(data, file.config.levels, file.values))


def model_levels(file: ModelFile, array: NDArray[np.generic], source: str) -> NDArray[np.uint8]:
    """The levels (N,C,H,W) of ``array``, all of them known. Raises UsageError where it does not fit."""
    found = levels_of(file, array, source)
    if found.unseen:
        known = found.known
        first = int(np.flatnonzero(~known)[0])
        raise UsageError(
            f"{source}: item {first} has values outside of what the model was fitted to ({known_values(file)}); fit again"
        )
    return found.levels


def known_values(file: ModelFile) -> str:
    """What the model can make, in words."""
    return f"the values {file.values}" if file.values else f"values up to {file.config.levels - 1}"


def require_data(file: ModelFile, array: NDArray[np.generic], source: str) -> NDArray[np.uint8]:
    """``array`` as items (N,C,H,W) of the model's kind. Raises UsageError where it holds none."""
    if isinstance(file.config, SequenceConfig):
        return items.require_series(array, source, file.config.length)
    return items.require_items(array, source)


def estimate_items(
    model: Network, data: ItemLevels, request: ScoreRequest, *, model_sha256: str, first: int = 0
) -> Iterator[Estimate]:
    """Estimates of the items from ``first`` on, a few at a time, in order: -inf where values are not known."""
    known = data.known[first:]
    at, seen, begin = np.flatnonzero(known), 0, 0
    for part in score_batches(
        model,
        data.known_levels(first),
        request.estimator,
        model_sha256=model_sha256,
        seed=request.seed,
        batch_size=request.batch_size,
    ):
        seen += len(part)
        end = int(at[seen]) if seen < len(at) else len(known)
        yield part.among(known[begin:end])
        begin = end
    if begin < len(known):
        yield Estimate.of_unseen(len(known) - begin, request.estimator.kind)


def scoring_model(file: ModelFile, device: str) -> Network:
    """The float network on ``device``, frozen; to be used in :func:`full_precision`: eleven bits are too few for a likelihood."""
    return to_device(file.float_model(), device).requires_grad_(False)


@as_requested
def score_array(
    file: ModelFile,
    array: NDArray[np.generic],
    source: str,
    request: ScoreRequest = ScoreRequest(),
    *,
    output: Output | None = None,
    anomaly: Anomaly | None = None,
    anomaly_name: str = "",
    progress: Callable[[int], None] = lambda n: None,
) -> Scores:
    """Scores of all items of ``array`` under the trained model; with ``output`` also its rows.

    An item with values that the model cannot make has log p(x) = -inf and, where ``anomaly`` is asked for, +inf.
    """
    data = levels_of(file, array, source)
    if output is not None:
        output.check()
    started = time.monotonic()
    model = scoring_model(file, request.device)
    if output is None:
        log = None
    else:
        settings = {
            "model_sha256": file.sha256,
            "file_sha256": file.file_sha256,
            "data_sha256": hashlib.sha256(np.ascontiguousarray(data.levels)).hexdigest(),
            "unseen_sha256": hashlib.sha256(data.known).hexdigest(),
            "items": len(data.levels),
            "estimator": repr(request.estimator),
            "seed": request.seed,
            "anomaly": anomaly_name,
        }
        log = RowLog(output.path, settings, resume=output.resume)
    done = log.done if log else 0
    progress(done)
    parts: list[Estimate] = [] if log is None else log.estimates
    extra: list[Floats] = [] if log is None else log.anomaly
    try:
        for part in estimate_items(model, data, request, model_sha256=file.sha256, first=done):
            more = anomaly(slice(done, done + len(part)), part) if anomaly else None
            if more is not None:
                more = np.where(part.unseen, np.inf, more)
            if log is not None:
                log.append(part, more)
            else:
                parts.append(part)
                if more is not None:
                    extra.append(more)
            done += len(part)
            progress(len(part))
    except KeyboardInterrupt:
        if log is None or done == 0:
            raise
        raise Interrupted(
            f"interrupted after {done} of {len(data.levels)} items; they are in {log.path}, go on with resume=True"
        ) from None
    finally:
        if log is not None:
            log.close() if done else log.remove()
    estimate = Estimate.concatenate(parts)
    anomalies = np.concatenate(extra) if anomaly else None
    if output is not None and log is not None:
        columns = table(estimate, file.config.dims, output.names, anomalies, output.offsets)
        write_table(output.path, columns, overwrite=output.overwrite)
        log.remove()
    record = summary(estimate, file, request) | {
        "read_as": items.reading(array, data.levels) + ("" if array.ndim == 2 else items.doubt(array))
    }
    if anomalies is not None:
        record |= {"anomaly": anomaly_name, "mean_anomaly": finite(mean(anomalies, np.isfinite(anomalies)))}
    return Scores(estimate, anomalies, record | {"seconds": time.monotonic() - started})


def summary(estimate: Estimate, file: ModelFile, request: ScoreRequest) -> dict[str, Any]:
    """The record of ``score --json``: means over the items whose estimate is finite."""
    dims, good = file.config.dims, estimate.finite
    log_prob = mean(estimate.log_prob_nats, good)
    known = ~np.isnan(estimate.k_hat)
    return {
        "n": len(estimate),
        "n_finite": int(good.sum()),
        "unseen_values": int(estimate.unseen.sum()),
        "dims": dims,
        "samples": request.estimator.samples,
        "samples_used": int(estimate.samples.sum()),
        "log_prob_nats": finite(log_prob),
        "standard_error_nats": finite(estimate.mean_standard_error_nats) if good.any() else None,
        "bits_per_dim": finite(units.bits_per_dim(log_prob, dims)),
        "elbo_bits_per_dim": finite(units.bits_per_dim(mean(estimate.elbo_nats, good), dims)),
        "mean_ess": finite(mean(estimate.ess, good)),
        "k_hat_above_0.7": finite(float((estimate.k_hat[known] > K_HAT_LIMIT).mean())) if known.any() else None,
        "error_bar_not_met": int((~estimate.met).sum()),
        "estimator": request.estimator.name,
        "settings": repr(request.estimator),
        "kind": str(estimate.kind),
        "model_sha256": file.sha256,
        "seed": request.seed,
    }


def check_strict(estimator: Estimator) -> None:
    """Refuse ``--strict`` where k-hat cannot be known."""
    if tail_length(estimator.samples) < FEWEST_IN_TAIL:
        raise UsageError(f"k-hat needs at least {5 * FEWEST_IN_TAIL} samples, found {estimator.samples}; take more")


def require_reliable(estimate: Estimate) -> None:
    """Raise UnreliableScores when more than 1 % of the items have k-hat above 0.7, unseen values or no finite estimate."""
    bad = ~(estimate.k_hat <= K_HAT_LIMIT) | ~np.isfinite(estimate.log_prob_nats)
    if bad.mean() > STRICT_SHARE:
        unseen = int(estimate.unseen.sum())
        values = f", {unseen} of them for values that the model cannot make" if unseen else ""
        advice = "look at them" if unseen == bad.sum() else "take more samples, or the annealed estimator"
        raise UnreliableScores(
            f"{int(bad.sum())} of {len(bad)} items have k-hat above {K_HAT_LIMIT} or no finite estimate{values}; the strict "
            f"limit is {STRICT_SHARE:.0%}; {advice}"
        )


def size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height}x{channels}"
