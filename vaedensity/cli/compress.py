"""vaedensity compress, vaedensity add"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaedensity.cli.arguments import ARCHIVE, INPUT, MODEL, expect_archive, expect_model
from vaedensity.cli.common import (
    Command,
    answer,
    data_options,
    force_option,
    guarded,
    json_option,
    mib,
    say,
    silence_libraries,
)
from vaedensity.cli.progress import progress_bar
from vaedensity.cli.streams import STREAM, refuse_terminal, stdin_as_file, temporary_folder, to_stdout
from vaedensity.errors import UsageError

if TYPE_CHECKING:
    from vaedensity.data.collection import Collection
    from vaedensity.data.tree import Tree


def input_options(command: Command) -> Command:
    """How what is named on the command line is read."""
    for option in (
        click.option("--bytes", "as_bytes", is_flag=True, help="Keep every file byte for byte, images too."),
        click.option(
            "--links",
            type=click.Choice(["store", "refuse"]),
            default="store",
            show_default=True,
            help="Symbolic links in folders; they are never followed.",
        ),
        click.option("--no-times", is_flag=True, help="Do not keep when files of folders were modified."),
        click.option("--no-verify", is_flag=True, help="Do not decode every block to compare it with the input."),
        click.option(
            "--threads", type=click.IntRange(1), help="Groups of blocks coded at once; the archive is the same."
        ),
    ):
        command = option(command)
    return command


def read_inputs(
    inputs: tuple[str, ...],
    stack: ExitStack,
    *,
    data_root: str,
    download: bool,
    as_bytes: bool,
    series: bool = False,
    links: str,
    times: bool,
) -> "list[Collection | Tree]":
    """What INPUT arguments name; ``-`` is standard input, once. ``series``: whether the images in folders are bytes to the model."""
    from vaedensity.data.byte_files import load_file
    from vaedensity.data.collection import LoadOptions
    from vaedensity.data.load import load
    from vaedensity.data.tree import scan

    if inputs.count(STREAM) > 1:
        raise UsageError("- is given twice; standard input is there once")
    found: list[Collection | Tree] = []
    for spec in inputs:
        if spec == STREAM:
            found.append(load_file(stack.enter_context(stdin_as_file())))
        elif spec and Path(spec).is_dir():
            found.append(scan(Path(spec), all_bytes=as_bytes or series, keep_times=times, links=links))
        elif spec and as_bytes and Path(spec).exists():
            found.append(load_file(Path(spec)))
        else:
            found.append(load(spec, LoadOptions(data_root, download)))
    return found


@click.command("compress")
@click.argument("inputs", nargs=-1, required=True, type=INPUT)
@click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path, dir_okay=False), help="Archive to write (.vdz); - as -c."
)
@click.option("-c", "--stdout", "to_pipe", is_flag=True, help="Write the archive to standard output.")
@click.option(
    "-m",
    "--model",
    type=MODEL,
    help="Model file or released name; without it the released model that fits best, if any.",
)
@click.option("--embed-model", is_flag=True, help="Store the model in the archive: decoding then needs nothing else.")
@click.option(
    "--particles",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="K",
    help="Code each item with K coupled particles: smaller, and about K times slower, both ways.",
)
@input_options
@data_options
@force_option
@json_option
@guarded
def compress_command(
    inputs: tuple[str, ...],
    out: Path | None,
    to_pipe: bool,
    model: str | None,
    embed_model: bool,
    particles: int,
    as_bytes: bool,
    links: str,
    no_times: bool,
    no_verify: bool,
    threads: int | None,
    data_root: str,
    download: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Pack INPUTS (data set names, .npy, .npz, folders with anything in them, any file, - for standard input) into one archive that
    decodes to the same bits anywhere. Images in folders come back pixel for pixel with their metadata, or byte for byte
    with --bytes; all else byte for byte."""
    silence_libraries()
    from vaedensity.atomic import refuse_existing
    from vaedensity.tasks.models import choose_model, groups_of, open_model
    from vaedensity.tasks.packing import compress, cut_bytes, settle

    to_pipe = to_pipe or str(out) == STREAM
    if to_pipe and (as_json or (out is not None and str(out) != STREAM)):
        raise UsageError("-c writes the archive to standard output: leave out " + ("--json" if as_json else "-o"))
    if to_pipe:
        refuse_terminal()
    elif out is None:
        raise UsageError("no output: expected -o ARCHIVE, or -c for standard output")
    else:
        refuse_existing(out, force)
    expect_model(model)
    with ExitStack() as stack:
        coder = open_model(model) if model else None
        series = coder is not None and coder.integers.is_sequence
        sources = read_inputs(
            inputs,
            stack,
            data_root=data_root,
            download=download,
            as_bytes=as_bytes,
            series=series,
            links=links,
            times=not no_times,
        )
        if coder is None:
            coder = choose_model(groups_of(sources))
        if coder is None:
            say("no released model fits and helps: using the classical coder")
        elif not model:
            say(f"using the released model {coder.name}")
        if embed_model and coder is None:
            say("--embed-model: no model is used, none is stored")
        collections = settle(sources, coder)
        target = stack.enter_context(temporary_folder()) / "archive.vdz" if to_pipe or not out else out
        cut = [cut_bytes(collection, coder) for collection in collections]
        total = sum(len(a) if a.ndim else 1 for c in cut for a in c.arrays.values())
        with progress_bar("compress", total) as advance:
            record = compress(
                collections,
                target,
                coder,
                overwrite=force,
                verify=not no_verify,
                particles=particles,
                embed=(model or coder.name) if embed_model and coder is not None else None,
                threads=threads,
                progress=advance,
                say=say,
            )
        if to_pipe:
            to_stdout(target)
            for line in summary(record, Path("standard output")):
                say(line)
            return
    answer(record, as_json, summary(record, target))


@click.command("add")
@click.argument("archive", type=ARCHIVE)
@click.argument("inputs", nargs=-1, required=True, type=INPUT)
@click.option("-m", "--model", type=MODEL, help="The archive's model, if it is not inside and not a released one.")
@click.option("--to", metavar="ARRAY", help="Put the items of INPUTS (.npy, .npz) after those of this array.")
@input_options
@data_options
@json_option
@guarded
def add_command(
    archive: Path,
    inputs: tuple[str, ...],
    model: str | None,
    to: str | None,
    as_bytes: bool,
    links: str,
    no_times: bool,
    no_verify: bool,
    threads: int | None,
    data_root: str,
    download: bool,
    as_json: bool,
) -> None:
    """Put INPUTS, as those of compress, into ARCHIVE beside what it holds. It is replaced when all is written: whatever happens, it
    holds what it held, or that and INPUTS. What it holds is copied, not coded again."""
    silence_libraries()
    from vaedensity.tasks.adding import add

    expect_archive(archive, inputs)
    expect_model(model)
    with ExitStack() as stack:
        sources = read_inputs(
            inputs,
            stack,
            data_root=data_root,
            download=download,
            as_bytes=as_bytes,
            links=links,
            times=not no_times,
        )
        with progress_bar("add", None) as advance:
            record = add(
                archive, sources, model, to=to, verify=not no_verify, threads=threads, progress=advance, say=say
            )
    line = f"{archive}: {record['items']} items, {mib(record['bytes_in'])} added, {mib(record['bytes_out'])} now, {record['seconds']:.1f} s"
    answer(record, as_json, [line])


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
