"""vaedensity decompress, vaedensity test, vaedensity repair"""

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaedensity.cli.arguments import ARCHIVE, FILE, FOLDER, MODEL, expect_archive, expect_model
from vaedensity.cli.common import (
    answer,
    elapsed,
    force_option,
    guarded,
    json_option,
    mib,
    model_or_folder,
    models_option,
    printable,
    say,
    silence_libraries,
    threads_option,
    with_flags,
)
from vaedensity.cli.progress import progress_bar
from vaedensity.cli.streams import (
    max_output_option,
    maybe_stdin,
    memory_option,
    refuse_terminal,
    temporary_folder,
    to_stdout,
)
from vaedensity.errors import DAMAGED, OK, UsageError, VaedensityError

if TYPE_CHECKING:
    from vaedensity.api.decompress import Unpacked


engine_option = click.option(
    "--engine",
    type=click.Choice(["torch", "numpy"]),
    default="torch",
    show_default=True,
    help="What decodes a model's blocks: numpy needs no torch and is slower; the result is the same.",
)


@click.command("decompress")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=FOLDER, help="Folder to restore into. [default: .]")
@click.option("-c", "--stdout", "to_pipe", is_flag=True, help="Write the one file that it holds to standard output.")
@click.option("-m", "--model", type=MODEL, help="The archive's model, if it is not inside and not a released one.")
@models_option
@threads_option
@click.option("--lockstep", type=click.IntRange(1), help="Blocks that share a batch; the result is the same.")
@click.option("--item", "items", multiple=True, metavar="NAME|INDEX", help="Restore this item only. May be repeated.")
@click.option("--range", "ranges", multiple=True, metavar="FIRST:END", help="Restore items FIRST to END - 1 only.")
@click.option("--keep-going", is_flag=True, help="Restore what is not damaged, name what is lost, exit with status 3.")
@click.option(
    "--links",
    type=click.Choice(["inside", "any", "none"]),
    default="inside",
    show_default=True,
    help="Symbolic links: refuse those that lead out of their folder, make any, or make none.",
)
@engine_option
@max_output_option
@memory_option
@force_option
@json_option
@guarded
def decompress_command(
    archive: Path,
    folder: Path | None,
    to_pipe: bool,
    model: str | None,
    models: Path | None,
    threads: int | None,
    lockstep: int | None,
    items: tuple[str, ...],
    ranges: tuple[str, ...],
    keep_going: bool,
    links: str,
    engine: str,
    max_output: int | None,
    memory: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Restore everything in ARCHIVE (- for standard input), or with --item and --range some items of its one array or
    folder, of which only their blocks are read. Nothing appears before all of it has been decoded and checked."""
    silence_libraries()
    from vaedensity.api.decompress import unpack
    from vaedensity.api.some_items import unpack_items
    from vaedensity.archive.limits import Limits

    if to_pipe:
        if as_json or folder is not None:
            raise UsageError("-c writes to standard output: leave out " + ("--json" if as_json else "-o"))
        refuse_terminal()
    expect_archive(archive)
    expect_model(model)
    model = model_or_folder(model, models)
    with ExitStack() as stack:
        source = stack.enter_context(maybe_stdin(archive))
        goal = stack.enter_context(temporary_folder()) if to_pipe else folder or Path(".")
        limits = Limits(max_output, memory)
        if items or ranges:
            if threads is not None or lockstep is not None or keep_going:
                raise UsageError("--item and --range: leave out --threads, --lockstep and --keep-going")
            r = unpack_items(source, goal, items, ranges, model, engine=engine, overwrite=force, limits=limits)
        else:
            r = unpack(
                source,
                goal,
                model,
                engine=engine,
                overwrite=force,
                threads=threads,
                lockstep=lockstep,
                keep_going=keep_going,
                links=links,
                limits=limits,
                progress=stack.enter_context(progress_bar("decompress", count_rows(source))),
            )
        for line in r.remarks:
            say(line)
        if to_pipe:
            write_one_file([Path(path) for path in r.restored])
    if not to_pipe:
        whole = f"{r.items - r.items_lost} of {r.items}" if r.items_lost else r.items
        answer(r, as_json, [*r.restored, f"{whole} items, {mib(r.bytes_out)}, {elapsed():.1f} s"])
    if r.lost:
        report_losses(r)
        sys.exit(DAMAGED)


def count_rows(path: Path) -> int | None:
    """How many entries of arrays the work on an archive will count; None where it will say what is wrong."""
    from vaedensity.archive.reader import ArchiveFile

    try:
        with ArchiveFile(path) as archive:
            return sum(array.rows for array in archive.contents if array.nbytes)
    except (VaedensityError, OSError):
        return None


def size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def write_one_file(restored: list[Path]) -> None:
    """The only file of ``restored`` on standard output. Raises UsageError."""
    if len(restored) != 1 or not restored[0].is_file():
        held = ", ".join(path.name for path in restored)
        raise UsageError(f"-c writes one file to standard output; the archive holds {held or 'nothing'}; use -o FOLDER")
    to_stdout(restored[0])


def report_losses(r: "Unpacked") -> None:
    """A line on stderr for every loss."""
    for one in r.lost:
        say(f"lost: items {one.first} to {one.end - 1} of {one.array} ({one.reason})")
    for name in r.left_out:
        say(f"not restored: {name}")
    line = f"vaedensity: {r.archive}: {r.items_lost} of {r.items} items are lost, all others are restored"
    click.echo(printable(line), err=True)


@click.command("test")
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-m", "--model", type=MODEL, help="The archives' model, if it is not inside and not a released one.")
@models_option
@threads_option
@engine_option
@max_output_option
@memory_option
@json_option
@guarded
def test_command(
    archives: tuple[Path, ...],
    model: str | None,
    models: Path | None,
    threads: int | None,
    engine: str,
    max_output: int | None,
    memory: int | None,
    as_json: bool,
) -> None:
    """Decode and check ARCHIVES, write nothing that stays."""
    silence_libraries()
    from vaedensity.api.decompress import test
    from vaedensity.archive.limits import Limits

    expect_model(model)
    model, limits = model_or_folder(model, models), Limits(max_output, memory)
    results, status, before = list[dict[str, Any]](), OK, 0.0
    for path in archives:
        try:
            expect_archive(path)
            with maybe_stdin(path) as source, progress_bar(str(path), count_rows(source)) as advance:
                tested = test(source, model, engine=engine, threads=threads, limits=limits, progress=advance)
                results.append(asdict(tested))
        except VaedensityError as error:
            line = with_flags(str(error))
            click.echo(printable(f"vaedensity: {line}"), err=True)
            results.append({"archive": str(path), "ok": False, "error": line})
            status = max(status, error.exit_status)
        else:
            results[-1]["seconds"] = elapsed() - before
        before = elapsed()
    good = [r for r in results if r["ok"]]
    lines = [f"{r['archive']}: ok, {r['items']} items, {mib(r['bytes_out'])}, {r['seconds']:.1f} s" for r in good]
    if good or as_json:
        answer({"archives": results}, as_json, lines)
    sys.exit(status)


@click.command("repair")
@click.argument("archive", type=ARCHIVE)
@click.option("-o", "--output", "out", required=True, type=FILE, help="Archive to write.")
@force_option
@json_option
@guarded
def repair_command(archive: Path, out: Path, force: bool, as_json: bool) -> None:
    """Find the whole blocks of a damaged or cut-off ARCHIVE and write them under an index made anew. Needs no model.
    Exit status 3 where items are lost; 'decompress --keep-going' then restores the others."""
    from vaedensity.archive.repair import repair

    expect_archive(archive)
    with progress_bar("repair", size_of(archive), unit="bytes") as advance:
        r = repair(archive, out, overwrite=force, progress=advance)
    if r.whole:
        answer(r, as_json, [f"{archive}: {r.blocks} blocks, nothing to repair, nothing written"])
        return
    lines = [f"lost: items {one.first} to {one.end - 1} of {one.array}" for one in r.lost]
    items = sum(one.end - one.first for one in r.lost)
    answer(r, as_json, [*lines, f"{out}: {r.blocks} whole blocks, {items} items lost, {elapsed():.1f} s"])
    sys.exit(DAMAGED if r.lost else OK)
