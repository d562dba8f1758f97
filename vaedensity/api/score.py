"""Score a collection under a model, item by item."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaedensity import items, units
from vaedensity.api.fit import pick_device
from vaedensity.api.model_items import ItemLevels, ScoreRequest, estimate_items, levels_of, load_model, scoring_model
from vaedensity.arithmetic import fresh_thread, full_precision, torch_threads
from vaedensity.density.estimate import K_HAT_LIMIT, Estimate, Floats, mean
from vaedensity.density.estimator import Estimator
from vaedensity.density.importance import ImportanceSampling
from vaedensity.density.pareto import FEWEST_IN_TAIL, tail_length
from vaedensity.errors import Interrupted, UnreliableScores, UsageError
from vaedensity.items import plain_array
from vaedensity.model.checkpoint import ModelFile
from vaedensity.report.rows import Output, RowLog, table, write_table

STRICT_SHARE = 0.01


@dataclass(frozen=True)
class AnomalyRule:
    """An anomaly score ready to be applied, as :func:`~vaedensity.api.anomaly.anomaly_rule` makes it.

    Attributes
    ----------
    name : str
        Which score it is, with all that it depends on.
    bits : callable
        Scores (n,) in bits, larger = more anomalous, of the items in a slice, given their estimates.
    """

    name: str
    bits: Callable[[slice, Estimate], Floats]


@dataclass(frozen=True)
class ScoreSummary:
    """What a scoring run comes to. Means are over the items whose estimate is finite; NaN where there are none.

    ``samples`` were asked for an item, ``samples_used`` drawn in all. ``k_hat_above_limit`` is the share of items with
    k-hat above 0.7, NaN where none has one. ``estimator`` is its name, ``settings`` all that it was told. ``read_as``
    says how the array was understood. ``anomaly`` names the anomaly score, None where there is none.
    """

    n: int
    n_finite: int
    unseen_values: int
    dims: int
    samples: int
    samples_used: int
    log_prob_nats: float
    standard_error_nats: float
    bits_per_dim: float
    elbo_bits_per_dim: float
    mean_ess: float
    k_hat_above_limit: float
    error_bar_not_met: int
    estimator: str
    settings: str
    kind: str
    model_sha256: str
    seed: int
    read_as: str
    anomaly: str | None
    mean_anomaly: float | None
    seconds: float


@dataclass(frozen=True)
class Scores:
    """The estimate of every item, its anomaly score (n,) in bits where asked for, and the summary."""

    estimate: Estimate
    anomaly: Floats | None
    summary: ScoreSummary


@fresh_thread()
def score(
    model: ModelFile | str | Path,
    x: NDArray[np.generic],
    *,
    samples: int | None = None,
    estimator: Estimator | None = None,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "auto",
    threads: int | None = None,
) -> Estimate:
    """Estimate log p(x) in nats for every item of an array.

    Parameters
    ----------
    model : ModelFile, str or Path
        A loaded model, a model file or a released name.
    x : ndarray
        Images (N,H,W), (N,H,W,C) or (N,C,H,W), uint8 or bool; for models of series (N,T), or bytes (n,) uint8, of which
        every whole piece is an item.
    samples : int, optional
        Importance samples an item, 64 by default.
    estimator : Estimator, optional
        Another estimator, with its own number of samples: ``Jackknife(100)``, ``Annealed(16)``,
        ``UntilStandardError(ImportanceSampling(64), 0.05)``.
    seed : int
    batch_size : int
        Pairs of item and sample in memory at once; changes no result.
    device : str
        "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
    threads : int, optional
        As many as are worth while by default.

    Returns
    -------
    Estimate
        One estimate an item. -inf for items with values that the model cannot make.

    Raises
    ------
    UsageError
        For data and settings that do not fit.
    ModelError
        For a model that is missing or not whole.

    Examples
    --------
    >>> import vaedensity as vd
    >>> digits = vd.load_digits()[-3:]
    >>> vd.score("digits", digits, samples=100).log_prob_nats.shape
    (3,)
    """
    if estimator is not None and samples is not None:
        raise UsageError("found samples and an estimator, which has its own; expected one of them")
    chosen = estimator or (ImportanceSampling() if samples is None else ImportanceSampling(samples))
    request = ScoreRequest(chosen, seed, batch_size, pick_device(device), threads)
    file = model if isinstance(model, ModelFile) else load_model(model)
    return score_array(file, plain_array(x, "array"), "array", request).estimate


def score_array(
    file: ModelFile,
    array: NDArray[np.generic],
    source: str,
    request: ScoreRequest = ScoreRequest(),
    *,
    output: Output | None = None,
    anomaly: AnomalyRule | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> Scores:
    """Score all items of ``array``, called ``source`` in messages; with ``output`` also write a row for each.

    An item with values that the model cannot make has log p(x) = -inf and, where ``anomaly`` is asked for, +inf. With
    ``output`` finished batches are kept on disk, and a stopped run can go on.

    Raises
    ------
    UsageError
        For data that do not fit and an output that cannot be written.
    Interrupted
        Where the run was stopped and batches of it are kept.
    """
    data = levels_of(file, array, source)
    if output is not None:
        output.check()
    started = time.monotonic()
    log = None
    if output is not None:
        settings = {
            "model_sha256": file.sha256,
            "file_sha256": file.file_sha256,
            "data_sha256": hashlib.sha256(np.ascontiguousarray(data.levels).data).hexdigest(),
            "unseen_sha256": hashlib.sha256(data.known.data).hexdigest(),
            "items": len(data.levels),
            "estimator": repr(request.estimator),
            "seed": request.seed,
            "anomaly": anomaly.name if anomaly else "",
        }
        log = RowLog(output.path, settings, resume=output.resume)
    estimate, bits = _scored(file, data, request, anomaly, log, progress)
    if output is not None and log is not None:
        columns = table(estimate, file.config.dims, output.names, bits, output.offsets)
        write_table(output.path, columns, overwrite=output.overwrite)
        log.remove()
    read_as = items.reading(array, data.levels) + ("" if array.ndim == 2 else items.doubt(array))
    summary = _summary(estimate, bits, file, request, read_as, anomaly, time.monotonic() - started)
    return Scores(estimate, bits, summary)


def _scored(
    file: ModelFile,
    data: ItemLevels,
    request: ScoreRequest,
    anomaly: AnomalyRule | None,
    log: RowLog | None,
    progress: Callable[[int], None],
) -> tuple[Estimate, Floats | None]:
    """The estimates and anomaly scores of all items; of those that are in ``log`` already nothing is computed."""
    parts: list[Estimate] = [] if log is None else log.estimates
    bits: list[Floats] = [] if log is None else log.anomaly
    done = sum(map(len, parts))
    progress(done)
    try:
        with full_precision(), torch_threads(request.threads):
            model = scoring_model(file, request.device)
            for part in estimate_items(model, data, request, model_sha256=file.sha256, first=done):
                more = None
                if anomaly is not None:
                    more = np.where(part.unseen, np.inf, anomaly.bits(slice(done, done + len(part)), part))
                if log is not None:
                    log.append(part, more)
                else:
                    parts.append(part)
                    bits += [] if more is None else [more]
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
    return Estimate.concatenate(parts), np.concatenate(bits) if anomaly else None


def _summary(
    estimate: Estimate,
    bits: Floats | None,
    file: ModelFile,
    request: ScoreRequest,
    read_as: str,
    anomaly: AnomalyRule | None,
    seconds: float,
) -> ScoreSummary:
    dims, good, k_hat = file.config.dims, estimate.finite, estimate.k_hat[~np.isnan(estimate.k_hat)]
    log_prob = mean(estimate.log_prob_nats, good)
    return ScoreSummary(
        n=len(estimate),
        n_finite=int(good.sum()),
        unseen_values=int(estimate.unseen.sum()),
        dims=dims,
        samples=request.estimator.samples,
        samples_used=int(estimate.samples.sum()),
        log_prob_nats=log_prob,
        standard_error_nats=estimate.mean_standard_error_nats if good.any() else float("nan"),
        bits_per_dim=units.bits_per_dim(log_prob, dims),
        elbo_bits_per_dim=units.bits_per_dim(mean(estimate.elbo_nats, good), dims),
        mean_ess=mean(estimate.ess, good),
        k_hat_above_limit=float((k_hat > K_HAT_LIMIT).mean()) if len(k_hat) else float("nan"),
        error_bar_not_met=int((~estimate.met).sum()),
        estimator=request.estimator.name,
        settings=repr(request.estimator),
        kind=str(estimate.kind),
        model_sha256=file.sha256,
        seed=request.seed,
        read_as=read_as,
        anomaly=anomaly.name if anomaly else None,
        mean_anomaly=None if bits is None else mean(bits, np.isfinite(bits)),
        seconds=seconds,
    )


def check_strict(estimator: Estimator) -> None:
    """Raise UsageError where :func:`require_reliable` could never succeed: k-hat needs 25 samples."""
    if tail_length(estimator.samples) < FEWEST_IN_TAIL:
        raise UsageError(f"k-hat needs at least {5 * FEWEST_IN_TAIL} samples, found {estimator.samples}; take more")


def require_reliable(estimate: Estimate) -> None:
    """Raise UnreliableScores where more than 1 % of the items have k-hat above 0.7, unseen values or no finite
    estimate."""
    bad = ~(estimate.k_hat <= K_HAT_LIMIT) | ~estimate.finite
    if bad.mean() > STRICT_SHARE:
        unseen = int(estimate.unseen.sum())
        values = f", {unseen} of them for values that the model cannot make" if unseen else ""
        advice = "look at them" if unseen == bad.sum() else "take more samples, or the annealed estimator"
        raise UnreliableScores(
            f"{int(bad.sum())} of {len(bad)} items have k-hat above {K_HAT_LIMIT} or no finite estimate{values}; "
            f"the strict limit is {STRICT_SHARE:.0%}; {advice}"
        )
