"""vaedensity sample and reconstruct: see what a model has learnt."""

from dataclasses import asdict
from pathlib import Path

import click

from vaedensity.cli.arguments import DATA, FILE, MODEL, expect_model
from vaedensity.cli.common import (
    answer,
    data_options,
    force_option,
    guarded,
    json_option,
    mib,
    read_data,
    silence_libraries,
)
from vaedensity.cli.progress import progress_bar
from vaedensity.data.atomic import OwnFiles


@click.command("sample")
@click.argument("model", type=MODEL)
@click.option("-n", "--items", "n", type=click.IntRange(1), default=64, show_default=True, help="Items to draw.")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=FILE,
    help="FILE.png, a mosaic, or FILE.npy, an array.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--entropy",
    type=click.FloatRange(0),
    metavar="FRACTION",
    help="Draw every value from the power of its distribution that has this fraction of its entropy: below 1 sharper, "
    "above 1 flatter.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@force_option
@json_option
@guarded
def sample_command(
    model: str, n: int, out: Path, seed: int, entropy: float | None, device: str, force: bool, as_json: bool
) -> None:
    """Draw new items from MODEL (a file or a released name).

    FILE.npy holds them as uint8 (N,H,W), or (N,H,W,C) in colour, with the values of the data that MODEL was fitted
    to. FILE.png shows them in one mosaic, scaled so that the model's highest level (16 for the digits) is white.
    The first items are the same whatever -n is.
    """
    silence_libraries()
    from vaedensity.api.fit import pick_device
    from vaedensity.api.model_items import load_model
    from vaedensity.api.sample import check_output, write_samples

    expect_model(model)
    check_output(out, (".npy", ".png"), overwrite=force)
    place = pick_device(device)
    file = load_model(model)
    with progress_bar("sample", n) as advance:
        r = write_samples(file, out, n, seed=seed, entropy=entropy, device=place, overwrite=force, progress=advance)
    record = asdict(r) | {"output": str(r.output)}
    answer(record, as_json, [f"{out}  {mib(r.bytes)}, {n} items of {'x'.join(map(str, r.shape))}, seed {seed}"])


@click.command("reconstruct")
@click.argument("model", type=MODEL)
@click.argument("data", type=DATA)
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=FILE,
    help="FILE.png: items above their reconstructions.",
)
@click.option("-n", "--items", "n", type=click.IntRange(1), default=16, show_default=True, help="First items to take.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@data_options
@force_option
@json_option
@guarded
def reconstruct_command(
    model: str,
    data: str,
    out: Path,
    n: int,
    device: str,
    data_root: str,
    download: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Show the first items of DATA above what MODEL (a file or a released name) makes of them: the expected
    picture given the posterior's mean. White is the model's highest level."""
    silence_libraries()
    from vaedensity.api.fit import pick_device
    from vaedensity.api.model_items import load_model
    from vaedensity.api.sample import check_output, write_reconstructions
    from vaedensity.data.collection import LoadOptions

    expect_model(model, data)
    check_output(out, (".png",), overwrite=force)
    place = pick_device(device)
    file = load_model(model)
    collection, array = read_data(data, LoadOptions(data_root, download, own_files=OwnFiles(out)))
    r = write_reconstructions(file, array, collection.source, out, n=n, device=place, overwrite=force)
    error = f"mean absolute error {r.mean_absolute_error_levels:.3f} of {file.config.levels - 1} levels"
    line = f"{out}  {mib(r.bytes)}, {r.n} items above their reconstructions, {error}"
    answer(asdict(r) | {"output": str(r.output)}, as_json, [line])
