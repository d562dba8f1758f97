"""vaedensity score"""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from vaedensity.cli.arguments import DATA, FILE, MODEL, expect_model
from vaedensity.cli.common import (
    answer,
    data_options,
    elapsed,
    force_option,
    guarded,
    json_option,
    read_data,
    say,
    silence_libraries,
    threads_option,
)
from vaedensity.cli.progress import progress_bar
from vaedensity.data.atomic import OwnFiles

if TYPE_CHECKING:
    from vaedensity.api.model_items import ScoreRequest
    from vaedensity.api.score import Scores, ScoreSummary
    from vaedensity.density.estimator import Estimator
    from vaedensity.model.checkpoint import ModelFile

ESTIMATORS = ["importance", "jackknife", "annealed"]
SHOWN = 10


@click.command("score")
@click.argument("model", type=MODEL)
@click.argument("data", required=False, type=DATA)
@click.option(
    "--estimator",
    "name",
    type=click.Choice(ESTIMATORS),
    default="importance",
    show_default=True,
    help="How log p(x) is estimated (docs/estimators.md).",
)
@click.option(
    "-k",
    "--samples",
    type=click.IntRange(1),
    help="Samples per item, or chains of the annealed estimator. Default: 64, annealed 16.",
)
@click.option("--order", type=click.IntRange(1), help="jackknife: order of the bias removed. Default: 1.")
@click.option("--start", type=click.Choice(["posterior", "prior"]), help="annealed: where chains begin.")
@click.option(
    "--entropy-share",
    type=float,
    help="annealed: share of the entropy that a step's weights keep; nearer 1, more temperatures. Default: 0.97.",
)
@click.option("--leapfrog", type=click.IntRange(1), help="annealed: leapfrog steps per transition. Default: 10.")
@click.option(
    "--until-stderr", type=float, help="Add samples, item by item, until the standard error is this many nats."
)
@click.option("--max-samples", type=int, help="Where --until-stderr gives up. Default: 65536.")
@click.option(
    "--strict",
    is_flag=True,
    help="Exit 5 when more than 1 % of the items have k-hat above 0.7 or values that the model cannot make; refuse a "
    "folder with files that are no images.",
)
@click.option("--self-test", is_flag=True, help="No DATA: bounds of log p from both sides on items drawn from MODEL.")
@click.option("--items", type=click.IntRange(1), help="--self-test: how many items. Default: 32.")
@click.option(
    "--tolerance",
    type=float,
    help="--self-test: exit 6 unless the bounds are closer, in nats, by two standard errors. Default: 1.",
)
@click.option(
    "--anomaly",
    type=click.Choice(["likelihood", "complexity", "typicality", "regret", "ratio"]),
    help="Also an anomaly score per item, larger is more anomalous (docs/anomaly.md).",
)
@click.option("--codec", type=click.Choice(["png", "webp", "zstd"]), help="--anomaly complexity. Default: png.")
@click.option("--reference", type=DATA, help="--anomaly typicality: DATA that counts as normal, not trained on.")
@click.option("--background", type=MODEL, help="--anomaly ratio: the second MODEL.")
@click.option(
    "-o",
    "--output",
    "out",
    type=FILE,
    help="Rows per item: FILE.csv, FILE.jsonl or FILE.parquet.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run that wrote FILE.partial.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Item-sample pairs in memory at once; changes no result.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@threads_option
@data_options
@force_option
@json_option
@guarded
def score_command(model: str, data: str | None, **options: Any) -> None:
    """Log-likelihood of every item of DATA under MODEL (a file or a released name), with error bars."""
    silence_libraries()
    from vaedensity.api.fit import pick_device
    from vaedensity.api.model_items import ScoreRequest, load_model
    from vaedensity.api.score import check_strict
    from vaedensity.errors import UsageError

    if (data is None) != options["self_test"]:
        raise UsageError("expected DATA to score, or --self-test without DATA")
    expect_model(model, data)
    expect_model(options["background"])
    needs = {
        "--items": ("items", options["self_test"], "--self-test"),
        "--tolerance": ("tolerance", options["self_test"], "--self-test"),
        "--codec": ("codec", options["anomaly"] == "complexity", "--anomaly complexity"),
        "--reference": ("reference", options["anomaly"] == "typicality", "--anomaly typicality"),
        "--background": ("background", options["anomaly"] == "ratio", "--anomaly ratio"),
        "--resume": ("resume", options["out"] is not None, "-o"),
    }
    for flag, (key, present, wanted) in needs.items():
        if options[key] not in (None, False) and not present:
            raise UsageError(f"{flag} goes with {wanted}")
    estimator = make_estimator(options)
    if options["strict"]:
        check_strict(estimator)
    request = ScoreRequest(
        estimator, options["seed"], options["batch_size"], pick_device(options["device"]), options["threads"]
    )
    if data is None:
        for flag, key in (("-o", "out"), ("--strict", "strict"), ("--anomaly", "anomaly")):
            if options[key]:
                raise UsageError(f"{flag} does not go with --self-test")
        _self_test(load_model(model), request, options)
    else:
        _score(model, data, request, options)


def make_estimator(options: dict[str, Any]) -> "Estimator":
    """The estimator that the options describe. Raises UsageError for options of another one."""
    from vaedensity.density.annealed import Annealed
    from vaedensity.density.importance import ImportanceSampling
    from vaedensity.density.jackknife import Jackknife
    from vaedensity.density.until import UntilStandardError
    from vaedensity.errors import UsageError

    name = options["name"]
    owners = {"order": "jackknife", "start": "annealed", "entropy_share": "annealed", "leapfrog": "annealed"}
    for key, owner in owners.items():
        if options[key] is not None and name != owner:
            raise UsageError(f"--{key.replace('_', '-')} goes with --estimator {owner}, found {name}")
    own = {key: options[key] for key in owners if options[key] is not None}
    if "leapfrog" in own:
        own["leapfrog_steps"] = own.pop("leapfrog")
    if options["samples"] is not None:
        own["samples"] = options["samples"]
    kinds: dict[str, Callable[..., Estimator]] = {
        "importance": ImportanceSampling,
        "jackknife": Jackknife,
        "annealed": Annealed,
    }
    estimator = kinds[name](**own)
    most = options["max_samples"]
    if options["until_stderr"] is None:
        if most is not None:
            raise UsageError("--max-samples goes with --until-stderr")
        return estimator
    return UntilStandardError(estimator, options["until_stderr"], **({} if most is None else {"most": most}))


def _score(model: str, data: str, request: "ScoreRequest", options: dict[str, Any]) -> None:
    from dataclasses import replace

    import numpy as np

    from vaedensity.api.anomaly import anomaly_rule
    from vaedensity.api.model_items import load_model
    from vaedensity.api.score import require_reliable, score_array
    from vaedensity.data.byte_files import places
    from vaedensity.data.collection import LoadOptions
    from vaedensity.items import pieces
    from vaedensity.model.sequence_config import SequenceConfig
    from vaedensity.report.rows import Output, partial_path

    out = options["out"]
    output = None if out is None else Output(out, options["force"], options["resume"])
    if output is not None:
        output.check()
    file = load_model(model)
    own = OwnFiles(out, None if out is None else partial_path(out))
    where = LoadOptions(options["data_root"], options["download"], strict=options["strict"], own_files=own)
    if series := isinstance(file.config, SequenceConfig):
        where = replace(where, as_bytes=True)
    collection, array = read_data(data, where)
    names, offsets = collection.item_names, None
    if series and array.ndim == 1 and array.dtype == np.uint8 and len(array) >= file.config.dims:
        array, rest = pieces(array, file.config.dims)
        names, offsets = places(collection, file.config.dims, len(array))
        if rest.size:
            say(
                f"{collection.source}: scored in pieces of {file.config.dims} bytes; the last {len(rest)} bytes are not"
            )
    if output is not None:
        output = replace(output, names=names, offsets=offsets)
    rule = None
    if options["anomaly"] is not None:
        chosen = {key: options[key] for key in ("codec", "reference", "background")}
        rule = anomaly_rule(
            options["anomaly"],
            file,
            array,
            collection.source,
            request,
            read=lambda spec: read_data(spec, where),
            say=say,
            **chosen,
        )
    with progress_bar("score", len(array) if array.ndim else None) as advance:
        scores = score_array(file, array, collection.source, request, output=output, anomaly=rule, progress=advance)
    lines = _lines(scores, file, None if offsets else names, options)
    answer(score_record(scores.summary), options["as_json"], lines)
    if options["strict"]:
        require_reliable(scores.estimate)


def score_record(summary: "ScoreSummary") -> dict[str, Any]:
    """The summary's JSON object."""
    return {{"k_hat_above_limit": "k_hat_above_0.7"}.get(key, key): value for key, value in asdict(summary).items()}


def _lines(scores: "Scores", file: "ModelFile", names: list[str] | None, options: dict[str, Any]) -> list[str]:
    """What a person wants to know of the scores; ``names`` of the items, None where their numbers name them."""
    from vaedensity.api.model_items import known_values
    from vaedensity.density.estimate import spread

    s, e = scores.summary, scores.estimate
    rate, elbo = s.bits_per_dim, s.elbo_bits_per_dim
    lines = [f"{s.n} items of {s.dims} dimensions, {s.settings}, K = {spread(e.samples[~e.unseen])}", str(e)]
    if math.isfinite(rate) and math.isfinite(elbo):
        lines.append(f"rate: {rate:.4f} bits/dim; ELBO {elbo:.4f}; gap {elbo - rate:.4f}")
    if s.unseen_values:
        lines.append(
            f"{s.unseen_values} items have values that the model, fitted to {known_values(file)}, cannot make: "
            "their log p(x) is -inf, and so is the mean with them"
        )
    if math.isfinite(s.k_hat_above_limit):
        ess = s.mean_ess if math.isfinite(s.mean_ess) else 0.0
        lines.append(f"k-hat above 0.7: {100 * s.k_hat_above_limit:.1f} % of the items; mean ESS {ess:.1f}")
    if s.error_bar_not_met:
        unmet = [str(i) if names is None else names[i] for i in (~e.met).nonzero()[0][:SHOWN]]
        more = f" and {s.error_bar_not_met - SHOWN} more" if s.error_bar_not_met > SHOWN else ""
        lines.append(f"error bar of {options['until_stderr']:g} nats not met by {', '.join(unmet)}{more}")
    if scores.anomaly is not None and s.mean_anomaly is not None:
        average = f"mean {s.mean_anomaly:.2f} bits" if math.isfinite(s.mean_anomaly) else "none is finite"
        lines.append(f"anomaly ({s.anomaly}): {average}, largest {scores.anomaly.max():.2f}")
    if options["out"] is not None:
        lines.append(f"rows: {options['out']}")
    return lines


def _self_test(file: "ModelFile", request: "ScoreRequest", options: dict[str, Any]) -> None:
    from vaedensity.api.self_test import USUAL_ITEMS, require_width, self_test, within
    from vaedensity.errors import UsageError

    items, tolerance = options["items"] or USUAL_ITEMS, 1.0 if options["tolerance"] is None else options["tolerance"]
    if not 0 < tolerance < float("inf"):
        raise UsageError(f"--tolerance {tolerance}: expected a number of nats above 0")
    with progress_bar("self-test", items) as advance:
        bounds = self_test(
            file,
            request.estimator,
            items,
            seed=request.seed,
            batch_size=request.batch_size,
            device=request.device,
            threads=request.threads,
            progress=advance,
        )
    lower, upper = (float(bound.log_prob_nats.mean()) for bound in (bounds.lower, bounds.upper))
    width, error = bounds.mean_width_nats, bounds.standard_error_nats
    record = {
        "n": items,
        "dims": file.config.dims,
        "samples": request.estimator.samples,
        "lower_nats": lower,
        "upper_nats": upper,
        "width_nats": width,
        "standard_error_nats": error,
        "estimator": request.estimator.name,
        "settings": repr(request.estimator),
        "model_sha256": file.sha256,
        "seed": request.seed,
        "seconds": elapsed(),
        "tolerance_nats": tolerance,
        "passed": within(bounds, tolerance),
    }
    lines = [
        f"{items} items drawn from the model, {request.estimator!r}",
        f"lower bound {lower:.4f} nats, upper bound {upper:.4f} nats per item",
        f"width {width:.4f} nats per item (standard error {error:.4f}), tolerance {tolerance:g}",
    ]
    answer(record, options["as_json"], lines)
    require_width(bounds, tolerance)
