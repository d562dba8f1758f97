"""The anomaly score that a user asked for, ready to be applied batch by batch."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.api.model_items import (
    ItemLevels,
    ScoreRequest,
    estimate_items,
    levels_of,
    load_model,
    scoring_model,
)
from vaedensity.api.score import AnomalyRule
from vaedensity.data.collection import Collection
from vaedensity.data.load import load_array
from vaedensity.density.anomaly import AnomalyScore, Likelihood, LikelihoodRatio, Typicality
from vaedensity.density.complexity import Complexity
from vaedensity.density.estimate import Estimate, Floats
from vaedensity.density.estimator import score
from vaedensity.density.regret import LikelihoodRegret
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import ModelFile
from vaedensity.model.sequence_config import SequenceConfig

REFERENCE_ITEMS = 1000
Say = Callable[[str], None]


def anomaly_rule(
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
    say: Say = lambda line: None,
) -> AnomalyRule:
    """The anomaly score ``kind`` of the items of ``array``.

    What it gives for items with values that the model cannot make means nothing;
    :func:`~vaedensity.api.score.score_array` puts +inf there.

    Parameters
    ----------
    kind : str
        "likelihood", "complexity", "typicality", "regret" or "ratio" (docs/anomaly.md).
    file, array, source, request
        As for :func:`~vaedensity.api.score.score_array`.
    codec : str, optional
        Of complexity; "png" by default.
    reference : str, optional
        Of typicality, which needs it: data that count as normal. At most 1000 evenly spaced items are scored.
    background : str, optional
        Of ratio, which needs it: a second model.
    read : callable
        Finds the data that ``reference`` names.
    say : callable
        Told in one line what is left out.

    Raises
    ------
    UsageError
        Where something is missing or does not fit.
    """
    series = isinstance(file.config, SequenceConfig)
    if kind in ("regret", "complexity") and series:
        raise UsageError(
            f"anomaly {kind}: needs a model of images, {file.path} is one of series; "
            "use likelihood, typicality or ratio"
        )
    if kind == "regret":
        return _regret(file, array, source, request)
    if kind == "ratio":
        if background is None:
            raise UsageError("anomaly ratio needs a second model: background=MODEL")
        return _ratio(load_model(background), array, source, request, say)
    rule, name = _rule_of_estimates(kind, file, request, codec, reference, read, say)
    raw = levels_of(file, array, source).levels if series else items.require_items(array, source)
    return AnomalyRule(name, lambda part, estimate: rule.score(estimate, np.ascontiguousarray(raw[part])))


def _rule_of_estimates(
    kind: str,
    file: ModelFile,
    request: ScoreRequest,
    codec: str | None,
    reference: str | None,
    read: Callable[[str], tuple[Collection, NDArray[np.generic]]],
    say: Say,
) -> tuple[AnomalyScore, str]:
    if kind == "likelihood":
        return Likelihood(), kind
    if kind == "complexity":
        return Complexity(codec=codec or "png"), f"complexity, {codec or 'png'}"
    if reference is None:
        raise UsageError("anomaly typicality needs data that count as normal: reference=DATA")
    collection, array = read(reference)
    data = levels_of(file, array, collection.source)
    levels = data.known_levels()
    if not len(levels):
        raise UsageError(
            f"{collection.source}: all {data.unseen} items have values that the model cannot make; expected normal ones"
        )
    if data.unseen:
        say(f"{collection.source}: {data.unseen} items left out: the model cannot make their values")
    chosen = levels[np.unique(np.linspace(0, len(levels) - 1, REFERENCE_ITEMS).astype(int))]
    estimate = score(
        scoring_model(file, request.device),
        chosen,
        request.estimator,
        model_sha256=file.sha256,
        seed=request.seed,
        batch_size=request.batch_size,
    )
    digest = hashlib.sha256(chosen.tobytes()).hexdigest()[:16]
    return Typicality(estimate), f"typicality, reference {reference} ({digest})"


def _ratio(
    background: ModelFile, array: NDArray[np.generic], source: str, request: ScoreRequest, say: Say
) -> AnomalyRule:
    data, model = levels_of(background, array, source), scoring_model(background, request.device)
    if data.unseen:
        say(
            f"{source}: {data.unseen} items have values that the background model cannot make: their ratio is -inf, "
            "or inf where neither can"
        )

    def ratio(part: slice, estimate: Estimate) -> Floats:
        own = ItemLevels(data.levels[part], data.known[part])
        other = Estimate.concatenate([*estimate_items(model, own, request, model_sha256=background.sha256)])
        return LikelihoodRatio(background=other).score(estimate, own.levels)

    return AnomalyRule(f"ratio, background {background.sha256[:16]}", ratio)


def _regret(file: ModelFile, array: NDArray[np.generic], source: str, request: ScoreRequest) -> AnomalyRule:
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

    return AnomalyRule("regret", regret)
