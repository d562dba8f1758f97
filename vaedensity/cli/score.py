"""vaedensity score"""

from pathlib import Path

import click

from vaedensity.cli.common import (
    answer,
    data_options,
    force_option,
    guarded,
    json_option,
    progress_bar,
    silence_libraries,
)


@click.command("score")
@click.argument("model")
@click.argument("data")
@click.option(
    "-k", "--samples", type=click.IntRange(1), default=64, show_default=True, help="Importance samples per item."
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Rows per item: FILE.csv or FILE.jsonl.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Item-sample pairs in memory at once."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@data_options
@force_option
@json_option
@guarded
def score_command(
    model: str,
    data: str,
    samples: int,
    out: Path | None,
    seed: int,
    batch_size: int,
    device: str,
    data_root: str,
    download: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Log-likelihood of every item of DATA under MODEL (a file or a released name), by importance sampling."""
    silence_libraries()
    from vaedensity.data.collection import LoadOptions
    from vaedensity.data.load import load_array
    from vaedensity.model.checkpoint import load_model
    from vaedensity.model.released import resolve
    from vaedensity.tasks.fitting import pick_device
    from vaedensity.tasks.scoring import check_rows_path, score_array, write_rows

    if out is not None:
        check_rows_path(out, overwrite=force)
    file = load_model(resolve(model))
    collection, array = load_array(data, LoadOptions(data_root, download))
    with progress_bar("score", len(array) if array.ndim else None) as advance:
        scores = score_array(
            file,
            array,
            collection.source,
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            device=pick_device(device),
            progress=advance,
        )
    if out is not None:
        write_rows(out, scores, overwrite=force)
    r = scores.record
    log_prob, error, rate, elbo = (
        float("nan") if r[key] is None else r[key]
        for key in ("log_prob_nats", "standard_error_nats", "bits_per_dim", "elbo_bits_per_dim")
    )
    lines = [
        f"{r['n']} items of {r['dims']} dimensions, K = {r['samples']} samples each",
        f"log p(x): {log_prob:.4f} nats per item (mean; Monte-Carlo standard error {error:.4f}; {r['kind']})",
        f"rate: {rate:.4f} bits/dim; ELBO {elbo:.4f}; gap {elbo - rate:.4f}",
        *([f"rows: {out}"] if out else []),
    ]
    answer(r, as_json, lines)
