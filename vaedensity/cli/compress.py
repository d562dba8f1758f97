"""vaedensity compress"""

from pathlib import Path
from typing import Any

import click

from vaedensity.cli.common import (
    answer,
    data_options,
    force_option,
    guarded,
    json_option,
    mib,
    progress_bar,
    say,
    silence_libraries,
)


@click.command("compress")
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Archive to write (.vdz).",
)
@click.option(
    "-m", "--model", help="Model file or released name; without it the released model that fits best, if any."
)
@click.option(
    "--particles",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="K",
    help="Code each item with K coupled particles: smaller, and about K times slower, both ways.",
)
@click.option("--no-verify", is_flag=True, help="Do not decode every block to compare it with the input.")
@click.option("--threads", type=click.IntRange(1), help="Groups of blocks coded at once; the archive is the same.")
@data_options
@force_option
@json_option
@guarded
def compress_command(
    inputs: tuple[str, ...],
    out: Path,
    model: str | None,
    particles: int,
    no_verify: bool,
    threads: int | None,
    data_root: str,
    download: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Pack INPUTS (data set names, .npy, .npz, folders of images, any file) into one archive that decodes to the same
    bits anywhere. With a sequence model -m, folders are folders of files of any kind."""
    silence_libraries()
    from vaedensity.atomic import refuse_existing
    from vaedensity.data.collection import LoadOptions
    from vaedensity.data.load import load
    from vaedensity.tasks.packing import choose_model, compress, open_model

    refuse_existing(out, force)
    coder = open_model(model) if model else None
    options = LoadOptions(data_root, download, as_bytes=coder is not None and coder.integers.is_sequence)
    collections = [load(spec, options) for spec in inputs]
    arrays = {f"{i}/{name}": a for i, c in enumerate(collections) for name, a in c.arrays.items()}
    if coder is None:
        coder = choose_model(arrays)
    if coder is None:
        say("no released model fits and helps: using the classical coder")
    elif not model:
        say(f"using the released model {coder.name}")
    total = sum(len(a) if a.ndim else 1 for a in arrays.values())
    with progress_bar("compress", total) as advance:
        record = compress(
            collections,
            out,
            coder,
            overwrite=force,
            verify=not no_verify,
            particles=particles,
            threads=threads,
            progress=advance,
            say=say,
        )
    answer(record, as_json, summary(record, out))


def summary(r: dict[str, Any], out: Path) -> list[str]:
    share = f" ({100 * r['bytes_out'] / r['bytes_in']:.1f} %)" if r["bytes_in"] else ""
    rate = f", {r['bits_per_dim']:.4f} bits/dim" if r["bits_per_dim"] is not None else ""
    lines = [f"{out}: {mib(r['bytes_in'])} -> {mib(r['bytes_out'])}{share}{rate}, {r['seconds']:.1f} s"]
    if r["model"]:
        parts = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in r["overhead_bytes"].items())
        particles = f", {r['particles']} particles" if r["particles"] > 1 else ""
        lines.append(
            f"model {r['model']} ({mib(r['model_bytes'])}): {r['model_items']} items{particles}, expected {r['expected_bits_per_dim']:.4f} bits/dim"
        )
        lines.append(f"overhead in bytes: {parts}")
    if r["classical_blocks"]:
        lines.append(f"classical coder: {r['classical_blocks']} blocks")
    return lines
