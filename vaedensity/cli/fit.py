"""vaedensity fit"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaedensity.cli.arguments import DATA, FILE, MODEL
from vaedensity.cli.common import (
    answer,
    data_options,
    elapsed,
    force_option,
    guarded,
    json_option,
    mib,
    read_data,
    say,
    silence_libraries,
    strict_option,
    threads_option,
)
from vaedensity.cli.progress import FitBar
from vaedensity.data.atomic import OwnFiles
from vaedensity.errors import UsageError
from vaedensity.units import parse_duration

if TYPE_CHECKING:
    from vaedensity.api.fit import Fitted


def duration(text: str) -> float:
    """Seconds of a number with s, m or h."""
    try:
        return parse_duration(text)
    except UsageError as error:
        raise click.BadParameter(str(error)) from error


@click.command("fit")
@click.argument("data", type=DATA)
@click.option("-o", "--output", "out", required=True, type=FILE, help="Model file to write.")
@click.option(
    "--preset",
    type=click.Choice(["fast", "tiny", "small", "medium", "base"]),
    default="small",
    show_default=True,
    help="Size of the network.",
)
@click.option(
    "--kind",
    type=click.Choice(["image", "sequence"]),
    help="What DATA holds: images, or series: an array (N,T), any file, or a folder of files, as bytes. "
    "Default: what it looks like.",
)
@click.option(
    "--noise",
    type=click.Choice(["gumbel", "exponential", "normal", "uniform"]),
    help="Of a sequence model's latents: a category is the greatest of as many numbers plus this noise. "
    "Default: gumbel.",
)
@click.option(
    "--likelihood",
    type=click.Choice(["mixture", "categorical"]),
    help="Of images with more than two values: mixtures of logistics, or a probability for each value on its own, for "
    "palettes, labels and others whose values have no order. Default: mixture.",
)
@click.option("--budget", type=duration, help="Time to train, e.g. 10m. Default by preset: 3m, 3m, 20m, 40m, 2h.")
@click.option("--epochs", type=click.FloatRange(max=1e9), help="Passes over the data, instead of --budget.")
@click.option("--steps", type=int, help="Optimiser steps, instead of --budget.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@threads_option
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 65536),
    help="Items a step. Default: 64 images, series of 8192 values together.",
)
@click.option("--optimizer", type=click.Choice(["muon", "adam", "egdd", "two-rate"]), default="muon", show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1, min_open=True),
    help="Peak learning rate. Default: 0.002 for images, 0.004 with the presets fast and tiny, 0.008 for series.",
)
@click.option(
    "--lr-scale",
    "scales",
    multiple=True,
    metavar="PATTERN=SCALE",
    help="Factor of the learning rate for the parameters that match, e.g. 'decoder.*=0.1'; 0 freezes them. "
    "May be repeated, later patterns win.",
)
@click.option(
    "--grad",
    "transforms",
    multiple=True,
    metavar="[PATTERN=]SPEC",
    help="What to do to gradients, e.g. 'clip_adaptive(0.01)' or 'decoder.*=clip_norm(1.0)'. May be repeated, in "
    "this order, and replaces the default clip_global_norm(1.0). Also clip_value, centralise, add_noise, sign, "
    "skip_on_spike.",
)
@click.option(
    "--term",
    "terms",
    multiple=True,
    metavar="SPEC",
    help="What to do to the loss: 'flood(LEVEL)', in bits per dimension, or 'penalise_gradient(WEIGHT)'. "
    "May be repeated.",
)
@click.option("--valid-fraction", type=float, default=0.05, show_default=True, help="Share of items to validate on.")
@click.option(
    "--init",
    metavar="MODEL",
    type=MODEL,
    help="Begin with the weights of MODEL (file or released name) of this preset.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run with the same options.")
@strict_option
@data_options
@force_option
@json_option
@guarded
def fit_command(
    data: str,
    out: Path,
    preset: str,
    kind: str | None,
    noise: str | None,
    likelihood: str | None,
    budget: float | None,
    epochs: float | None,
    steps: int | None,
    device: str,
    threads: int | None,
    seed: int,
    batch_size: int | None,
    optimizer: str,
    rate: float | None,
    scales: tuple[str, ...],
    transforms: tuple[str, ...],
    terms: tuple[str, ...],
    valid_fraction: float,
    init: str | None,
    resume: bool,
    strict: bool,
    data_root: str,
    download: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Fit a model to DATA: digits, mnist, cifar10, ... (name or name:split), a .npy or .npz file (file.npz:array),
    a folder of images, series (N,T), any file or a folder of files. Ctrl-C saves the run; --resume continues it."""
    silence_libraries()
    from vaedensity.api.fit import beside, fit_model
    from vaedensity.api.fit_request import FitRequest
    from vaedensity.cli.gradient_spec import parse_scales, parse_terms, parse_transforms
    from vaedensity.data.collection import LoadOptions

    factors = parse_scales(scales)
    gradient = parse_transforms(transforms) if transforms else FitRequest().gradient
    as_bytes = None if kind is None else kind == "sequence"
    own = OwnFiles(out, *beside(out))
    collection, array = read_data(
        data, LoadOptions(data_root, download, as_bytes=as_bytes, strict=strict, own_files=own)
    )
    request = FitRequest(
        preset=preset,
        kind=kind,
        noise=noise,
        likelihood=likelihood,
        steps=steps,
        epochs=epochs,
        seconds=budget,
        device=device,
        threads=threads,
        seed=seed,
        valid_fraction=valid_fraction,
        batch_size=batch_size,
        rate=rate,
        optimizer=optimizer,
        gradient=gradient,
        terms=parse_terms(terms),
        scales=factors,
        init=init,
        resume=resume,
        overwrite=force,
    )
    with FitBar() as bar:
        fitted = fit_model(array, collection.source, out, request, observers=(bar,), say=say)
    lines = [
        f"{out}  {mib(fitted.model_bytes)}, {fitted.parameters} parameters, sha256 {fitted.model_sha256}",
        f"{fitted.steps} steps, {fitted.epochs:.1f} epochs, {elapsed():.0f} s on {fitted.device}",
        f"validation: {fitted.valid_bits_per_dim:.4f} bits/dim (-ELBO), {fitted.integer_bits_per_dim:.4f} as coded",
    ]
    answer(fit_record(fitted), as_json, lines)


def fit_record(fitted: "Fitted") -> dict[str, Any]:
    """What --json says of a fit."""
    return asdict(fitted) | {"model": str(fitted.model)}
