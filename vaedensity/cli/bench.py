"""vaedensity bench"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaedensity.cli.arguments import DATA, FILE, MODEL, expect_model
from vaedensity.cli.common import (
    answer,
    data_options,
    force_option,
    guarded,
    json_option,
    read_data,
    say,
    silence_libraries,
    strict_option,
    terminal_width,
    threads_option,
)

if TYPE_CHECKING:
    from vaedensity.api.bench import Bench


@click.command("bench")
@click.argument("data", type=DATA)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    type=MODEL,
    help="Model to measure; may be repeated. Without it the released model that compress would choose, if any.",
)
@click.option(
    "--rivals",
    help="Comma-separated: png, webp, zlib, xz, zstd, brotli, jpegls, jxl-e7, jxl-e9, zpaq. Default: all there are.",
)
@click.option(
    "--particles",
    type=click.IntRange(2),
    metavar="K",
    help="Measure each model with K coupled particles, too (see compress).",
)
@click.option(
    "--plot",
    type=FILE,
    help="Also draw rate against speed: FILE.png (matplotlib).",
)
@strict_option
@threads_option
@data_options
@force_option
@json_option
@guarded
def bench_command(
    data: str,
    models: tuple[str, ...],
    rivals: str | None,
    particles: int | None,
    plot: Path | None,
    strict: bool,
    threads: int | None,
    data_root: str,
    download: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Sizes and speeds of DATA in archives of MODELs and in general codecs: the same bytes, one run, all verified."""
    silence_libraries()
    from vaedensity.api.bench import bench, plot_rates
    from vaedensity.api.choose import choose_model
    from vaedensity.api.model_items import load_model
    from vaedensity.data.atomic import OwnFiles, atomic_file, refuse_existing
    from vaedensity.data.collection import LoadOptions
    from vaedensity.errors import UsageError
    from vaedensity.model.sequence_config import SequenceConfig
    from vaedensity.report.tables import render

    if plot is not None:
        if plot.suffix.lower() != ".png":
            raise UsageError(f"{plot}: expected a name ending in .png")
        refuse_existing(plot, force)
        if not plot.parent.is_dir():
            raise UsageError(f"{plot.parent}: no such folder; make it first")
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise UsageError("--plot needs matplotlib; pip install 'vaedensity[bench]'") from None
    for name in models:
        expect_model(name)
    series = any(isinstance(load_model(name).config, SequenceConfig) for name in models)
    own = OwnFiles(plot)
    collection, array = read_data(data, LoadOptions(data_root, download, as_bytes=series, strict=strict, own_files=own))
    names = None if rivals is None else [name.strip() for name in rivals.split(",") if name.strip()]
    if not models:
        chosen = choose_model({collection.source: array})
        models = () if chosen is None else (chosen.name,)
        say(
            f"using the released model {chosen.name}"
            if chosen
            else "no released model fits and helps: general codecs alone"
        )
    if particles is not None and not models:
        raise UsageError("--particles: no model is measured; name one with -m")
    result = bench(array, collection.source, list(models), names, particles=particles, threads=threads, say=say)
    if plot is not None:
        with atomic_file(plot, force) as f:
            plot_rates(f, result)
    answer(bench_record(result), as_json, [*render(*table(result), terminal_width()), *remarks(result)])


def bench_record(result: "Bench") -> dict[str, Any]:
    """The result's JSON object: in a row what concerns the model stands beside the rest, where there is one."""
    rows = [asdict(row) for row in result.codecs]
    for row in rows:
        row.update(row.pop("model") or {})
    return asdict(result) | {"codecs": rows}


def table(result: "Bench") -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows; with zpaq among the codecs also how many times faster the others are."""
    columns = ["codec", "layout", "bytes", "bits/dim", "MB/s in", "MB/s out"]
    zpaq = next((row for row in result.codecs if row.codec.startswith("zpaq")), None)
    rows = []
    for row in result.codecs:
        cells = [row.codec, row.layout, str(row.bytes), f"{row.bits_per_dim:.4f}"]
        cells += [f"{row.compress_mb_per_second:.3g}", f"{row.decompress_mb_per_second:.3g}"]
        if zpaq is not None:
            cells.append(f"{zpaq.compress_seconds / row.compress_seconds:.2f}")
            cells.append(f"{zpaq.decompress_seconds / row.decompress_seconds:.2f}")
        rows.append(cells)
    title = f"{result.data}: {result.items} items of {result.dims} dimensions, {result.threads} threads"
    return title, columns + (["in / zpaq", "out / zpaq"] if zpaq else []), rows


def remarks(result: "Bench") -> list[str]:
    """A line for each model: its overhead and what its own bytes cost."""
    lines = []
    for row in result.codecs:
        if row.model is None:
            continue
        if not row.model.model_items:
            lines.append(f"{row.codec}: it did not help, all items were coded without it")
            continue
        share = 100 * sum(row.model.overhead_bytes.values()) / row.bytes
        rates = ", ".join(f"{rate:.4f} for {int(n):,} items" for n, rate in row.model.bits_per_dim_with_model.items())
        lines.append(
            f"{row.codec}: overhead {share:.3f} % of the file; model {row.model.model_bytes} bytes, "
            f"with it {rates} bits/dim"
        )
    return lines
