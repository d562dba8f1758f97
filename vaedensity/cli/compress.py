"""vaedensity compress, vaedensity add"""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaedensity.cli.arguments import ARCHIVE, INPUT, MODEL, STREAM, expect_archive, expect_model
from vaedensity.cli.common import (
    answer,
    data_options,
    elapsed,
    fail,
    force_option,
    guarded,
    json_option,
    mib,
    model_or_folder,
    models_option,
    say,
    silence_libraries,
)
from vaedensity.cli.inputs import at_rest, input_options, read_inputs
from vaedensity.cli.progress import progress_bar
from vaedensity.cli.streams import (
    file_on_stdout,
    refuse_open_file,
    refuse_terminal,
    temporary_folder,
    to_stdout,
)
from vaedensity.errors import DAMAGED, SourceChanged, UsageError

if TYPE_CHECKING:
    from vaedensity.api.compress import Packed
    from vaedensity.api.packing import Coded


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
@click.option(
    "--keep-going",
    is_flag=True,
    help="Leave out what cannot be read or changes while it is read, name it, exit with status 3.",
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
    keep_going: bool,
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
    """Pack INPUTS (data set names, .npy, .npz, folders with anything in them, any file, - for standard input) into
    one archive that decodes to the same bits anywhere. Images in folders come back pixel for pixel with their metadata,
    or byte for byte with --bytes; all else byte for byte."""
    silence_libraries()
    from vaedensity.api.choose import choose_model, groups_of, open_model
    from vaedensity.api.compress import pack
    from vaedensity.api.packing import cut_bytes
    from vaedensity.api.settle import settle
    from vaedensity.archive.model_blocks import fits
    from vaedensity.data.atomic import refuse_existing

    to_pipe = to_pipe or str(out) == STREAM
    if to_pipe and (as_json or (out is not None and str(out) != STREAM)):
        raise UsageError("-c writes the archive to standard output: leave out " + ("--json" if as_json else "-o"))
    if to_pipe:
        refuse_terminal()
    elif out is None:
        raise UsageError("no output: expected -o ARCHIVE, or -c for standard output")
    else:
        refuse_open_file(out)
        refuse_existing(out, force)
    expect_model(model)
    with ExitStack() as stack:
        refused: list[str] | None = [] if keep_going else None
        coder = open_model(model) if model else None
        series = coder is not None and coder.is_series
        sources = read_inputs(
            inputs,
            stack,
            data_root=data_root,
            download=download,
            as_bytes=as_bytes,
            series=series,
            links=links,
            times=not no_times,
            out=file_on_stdout() if to_pipe else out,
            refused=refused,
        )
        target = stack.enter_context(temporary_folder()) / "archive.vdz" if to_pipe or not out else out

        def packed() -> "Packed":
            chosen = coder or choose_model(groups_of(sources))
            if chosen is None:
                say("no released model fits and helps: using the fallback codec")
            elif not model:
                say(f"using the released model {chosen.name}")
            if embed_model and chosen is None:
                say("--embed-model: no model is used, none is stored")
            collections = settle(sources, chosen)
            cut = [cut_bytes(collection, chosen) for collection in collections]
            if refused and chosen and not any(fits(chosen, a) for c in cut for a in c.arrays.values()):
                say(f"nothing is left that the model {chosen.name} codes: using the fallback codec")
                chosen, collections = None, settle(sources, None)
                cut = collections
            total = sum(len(a) if a.ndim else 1 for c in cut for a in c.arrays.values())
            with progress_bar("compress", total) as advance:
                return pack(
                    collections,
                    target,
                    chosen,
                    overwrite=force,
                    verify=not no_verify,
                    particles=particles,
                    embed=(model or chosen.name) if embed_model and chosen is not None else None,
                    threads=threads,
                    progress=advance,
                    say=say,
                )

        while True:
            try:
                result = packed()
                break
            except SourceChanged as error:
                still = at_rest(sources)
                if refused is None or not 0 < len(still) < len(sources):
                    raise
                refused.append(str(error))
                sources = still
        if to_pipe:
            to_stdout(target)
            for line in summary(result, Path("standard output")):
                say(line)
        else:
            left_out = {} if refused is None else {"left_out": refused}
            answer(asdict(result) | left_out, as_json, summary(result, target))
    if refused:
        for line in refused:
            say(f"left out: {line}")
        fail(f"{target.name}: {len(refused)} left out, all else is packed", DAMAGED)


@click.command("add")
@click.argument("archive", type=ARCHIVE)
@click.argument("inputs", nargs=-1, required=True, type=INPUT)
@click.option("-m", "--model", type=MODEL, help="The archive's model, if it is not inside and not a released one.")
@models_option
@click.option("--to", metavar="ARRAY", help="Put the items of INPUTS (.npy, .npz) after those of this array.")
@input_options
@data_options
@json_option
@guarded
def add_command(
    archive: Path,
    inputs: tuple[str, ...],
    model: str | None,
    models: Path | None,
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
    """Put INPUTS, as those of compress, into ARCHIVE beside what it holds. It is replaced when all is written: whatever
    happens, it holds what it held, or that and INPUTS. What it holds is copied, not coded again."""
    silence_libraries()
    from vaedensity.api.add import add

    expect_archive(archive, inputs)
    expect_model(model)
    model = model_or_folder(model, models)
    with ExitStack() as stack:
        sources = read_inputs(
            inputs,
            stack,
            data_root=data_root,
            download=download,
            as_bytes=as_bytes,
            links=links,
            times=not no_times,
            out=archive,
        )
        with progress_bar("add", None) as advance:
            result = add(
                archive, sources, model, to=to, verify=not no_verify, threads=threads, progress=advance, say=say
            )
    sizes = f"{read_in(result)} added as {mib(result.bytes_added)}, {mib(result.bytes_out)} now"
    lines = [f"{archive}: {result.items} items, {sizes}, {elapsed():.1f} s"]
    answer(result, as_json, lines + remarks(result, result.bytes_added))


def read_in(r: "Coded") -> str:
    """What went in: bytes on disk where there are files, and of arrays where that is another number."""
    raw = f" ({mib(r.bytes_raw)} as arrays)" if abs(r.bytes_raw - r.bytes_in) > r.bytes_in / 100 else ""
    return f"{mib(r.bytes_in)} of {r.bytes_in_from}{raw}"


def remarks(r: "Coded", size: int) -> list[str]:
    """What may surprise: that ``size`` bytes are no gain, and files that come back with other bytes."""
    lines = []
    if size >= r.bytes_in:
        lines.append(f"not smaller: {size} bytes for {r.bytes_in} bytes of {r.bytes_in_from}")
    if r.model and not r.model_inside and not r.model_released:
        lines.append(
            f"decoding needs the model {r.model} (sha256 {r.model_sha256}): keep its file beside the archive, or store "
            "it inside with compress --embed-model"
        )
    if r.files_of_same_pixels:
        lines.append(
            f"{r.files_of_same_pixels} of {r.files} files will come back with the same pixels and metadata, not the "
            "same bytes (--bytes keeps those)"
        )
    return lines


def of_model(r: "Packed") -> list[str]:
    """How much of the work the model did, and whether it was worth it."""
    name, tried, without = r.model_tried, r.model_tried_items, r.bytes_without_model
    if r.model is None:
        with_model = r.bytes_with_model or 0
        took = f" (with it {with_model} bytes, without {r.bytes_out})" if with_model > r.bytes_out else ""
        return [f"model {name} did not help{took}: 0 of {tried} items are coded by it"]
    lines = []
    if r.model_items < tried:
        lines.append(f"model {name}: {tried - r.model_items} of {tried} items take less without it")
    if without is not None and without <= r.bytes_out:
        lines.append(f"the model inside does not pay: {without} bytes without a model, {r.bytes_out} with it")
    return lines


def summary(r: "Packed", out: Path) -> list[str]:
    """What became of the inputs, for people."""
    share = f" ({100 * r.bytes_out / r.bytes_in:.1f} %)" if r.bytes_in else ""
    rate = f", {r.bits_per_dim:.4f} bits/dim" if r.bits_per_dim is not None else ""
    lines = [f"{out}: {read_in(r)} -> {mib(r.bytes_out)}{share}{rate}, {elapsed():.1f} s"]
    if r.model:
        parts = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in r.overhead_bytes.items())
        particles = f", {r.particles} particles" if r.particles > 1 else ""
        expected = f"expected {r.expected_bits_per_dim:.4f} bits/dim"
        lines.append(f"model {r.model} ({mib(r.model_bytes)}): {r.model_items} items{particles}, {expected}")
        lines.append(f"overhead in bytes: {parts}")
    if r.fallback_blocks:
        lines.append(f"fallback codec: {r.fallback_blocks} blocks")
    return lines + (of_model(r) if r.model_tried else []) + remarks(r, r.bytes_out)
