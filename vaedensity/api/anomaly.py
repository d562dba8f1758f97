"""The anomaly score that a user asked for, ready to be applied batch by batch."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.api.score import Anomaly, ItemLevels, ScoreRequest, estimate_items, levels_of, scoring_model
from vaedensity.data.collection import Collection
from vaedensity.data.load import load_array
from vaedensity.density.anomaly import AnomalyScore, Likelihood, LikelihoodRatio, Typicality
from vaedensity.density.complexity import Complexity
from vaedensity.density.estimate import Estimate, Floats
from vaedensity.density.estimator import score
from vaedensity.density.regret import LikelihoodRegret
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import ModelFile, load_model
from vaedensity.model.released import resolve
from vaedensity.model.sequence_config import SequenceConfig

REFERENCE_ITEMS = 1000


def anomaly_score(
    kind: str,
    file: ModelFile,
    array: NDArray[np.generic],
    source: str,
    request: ScoreRequest,
    *,
    codec: str | None = None,
    reference: str | None = None,
    background: str | None = None,
    read: Callable[[str], tuple[Collection, NDArray[np.generic]]] = load_array,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Anomaly, str]:
    """(anomaly scores of a slice of ``array`` in bits, larger is more anomalous; a line that names them).

    ``kind``: likelihood, complexity (``codec``), typicality (``reference``: DATA that ``read`` finds, at most 1000 evenly spaced
    items of it are scored), regret, or ratio (``background``: a model). What it gives for items with values that the model
    cannot make means nothing: :func:`~vaedensity.api.score.score_array` puts +inf there. Raises UsageError.
    """
    if kind in ("regret", "complexity") and isinstance(file.config, SequenceConfig):
        raise UsageError(
            f"anomaly {kind}: needs a model of images, {file.path} is one of series; use likelihood, typicality or ratio"
        )
    if kind == "regret":
        return _regret(file, array, source, request)
    if kind == "ratio":
        if background is None:
            raise UsageError("anomaly ratio needs a second model: background=MODEL")
        return _ratio(load_model(resolve(background)), array, source, request, say)
    rule: AnomalyScore
    if kind == "typicality":
        if reference is None:
            raise UsageError("anomaly typicality needs data that count as normal: reference=DATA")
        estimate, digest = _reference(file, *read(reference), request, say)
        rule, name = Typicality(estimate), f"typicality, reference {reference} ({digest})"
    elif kind == "complexity":
        rule = Complexity(codec=codec or "png")
        name = f"complexity, {codec or 'png'}"
    else:
        rule, name = Likelihood(), "likelihood"
    raw = (
        levels_of(file, array, source).levels
        if isinstance(file.config, SequenceConfig)
        else items.require_items(array, source)
    )
    return lambda part, estimate: rule.score(estimate, np.ascontiguousarray(raw[part])), name


def _reference(
    file: ModelFile,
    collection: Collection,
    array: NDArray[np.generic],
    request: ScoreRequest,
    say: Callable[[str], None],
) -> tuple[Estimate, str]:
    data = levels_of(file, array, collection.source)
    levels = data.known_levels()
    if not len(levels):
        raise UsageError(
            f"{collection.source}: all {data.unseen} items have values that the model cannot make; expected normal ones"
        )
    if data.unseen:
        say(f"{collection.source}: {data.unseen} items left out: the model cannot make their values")
    chosen = levels[np.unique(np.linspace(0, len(levels) - 1, REFERENCE_ITEMS).astype(int))]
    return _score(file, chosen, request), hashlib.sha256(chosen.tobytes()).hexdigest()[:16]


def _ratio(
    background: ModelFile,
    array: NDArray[np.generic],
    source: str,
    request: ScoreRequest,
    say: Callable[[str], None],
) -> tuple[Anomaly, str]:
    data, model = levels_of(background, array, source), scoring_model(background, request.device)
    if data.unseen:
        say(
            f"{source}: {data.unseen} items have values that the background model cannot make: their ratio is -inf, or inf where neither can"
        )

    def ratio(part: slice, estimate: Estimate) -> Floats:
        own = ItemLevels(data.levels[part], data.known[part])
        other = Estimate.concatenate([*estimate_items(model, own, request, model_sha256=background.sha256)])
        return LikelihoodRatio(background=other).score(estimate, own.levels)

    return ratio, f"ratio, background {background.sha256[:16]}"


def _regret(file: ModelFile, array: NDArray[np.generic], source: str, request: ScoreRequest) -> tuple[Anomaly, str]:
    data, model, rule = levels_of(file, array, source), scoring_model(file, request.device), LikelihoodRegret()

    def regret(part: slice, estimate: Estimate) -> Floats:
        known, bits = data.known[part], np.full(len(estimate), np.inf)
        bits[known] = rule.score(
            model,
            data.levels[part][known],
            model_sha256=file.sha256,
            seed=request.seed,
            batch_size=request.batch_size,
        )
        return bits

    return regret, "regret"


def _score(file: ModelFile, levels: NDArray[np.uint8], request: ScoreRequest) -> Estimate:
    return score(
        scoring_model(file, request.device),
        levels,
        request.estimator,
        model_sha256=file.sha256,
        seed=request.seed,
        batch_size=request.batch_size,
    )
