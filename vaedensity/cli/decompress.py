"""vaedensity decompress, vaedensity test"""

import sys
from pathlib import Path

import click

from vaedensity.cli.common import answer, force_option, guarded, json_option, mib, progress_bar, silence_libraries
from vaedensity.errors import OK, UsageError, VaedensityError


@click.command("decompress")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    help="Folder to restore into. [default: .]",
)
@click.option("-m", "--model", help="The archive's model, if it is not a released one.")
@click.option("--threads", type=click.IntRange(1), help="Groups of blocks decoded at once.")
@click.option("--lockstep", type=click.IntRange(1), help="Blocks that share a batch; the result is the same.")
@click.option("--item", "items", multiple=True, metavar="NAME|INDEX", help="Restore this item only. May be repeated.")
@click.option("--range", "ranges", multiple=True, metavar="FIRST:END", help="Restore items FIRST to END - 1 only.")
@click.option(
    "--engine",
    type=click.Choice(["torch", "numpy"]),
    default="torch",
    show_default=True,
    help="What decodes: numpy needs no torch and is a reader of its own; the result is the same.",
)
@force_option
@json_option
@guarded
def decompress_command(
    archive: Path,
    folder: Path,
    model: str | None,
    threads: int | None,
    lockstep: int | None,
    items: tuple[str, ...],
    ranges: tuple[str, ...],
    engine: str,
    force: bool,
    as_json: bool,
) -> None:
    """Restore everything in ARCHIVE, or with --item and --range some items of its one array or folder of images, of which only
    their blocks are read. Nothing appears before all of it has been decoded and checked."""
    silence_libraries()
    with progress_bar("decompress", None) as advance:
        if items or ranges:
            if engine == "numpy" or threads is not None or lockstep is not None:
                raise UsageError("--item and --range: leave out --engine numpy, --threads and --lockstep")
            from vaedensity.tasks.random_access import decompress_items

            r = decompress_items(archive, folder, items, ranges, model, overwrite=force)
        elif engine == "numpy":
            if threads is not None:
                raise UsageError("--threads: is of the engine torch; leave it out with --engine numpy")
            from vaedensity.plain.archive import decompress as plain_decompress

            r = plain_decompress(archive, folder, model, overwrite=force, lockstep=lockstep, progress=advance)
        else:
            from vaedensity.tasks.packing import decompress

            r = decompress(
                archive, folder, model, overwrite=force, threads=threads, lockstep=lockstep, progress=advance
            )
    lines = [f"{path}" for path in r["restored"]]
    answer(r, as_json, [*lines, f"{r['items']} items, {mib(r['bytes_out'])}, {r['seconds']:.1f} s"])


@click.command("test")
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-m", "--model", help="The archives' model, if it is not a released one.")
@json_option
@guarded
def test_command(archives: tuple[Path, ...], model: str | None, as_json: bool) -> None:
    """Decode and check ARCHIVES, write nothing."""
    silence_libraries()
    from vaedensity.tasks.packing import test

    results, status = [], OK
    for path in archives:
        try:
            with progress_bar(str(path), None) as advance:
                results.append(test(path, model, progress=advance))
        except VaedensityError as error:
            click.echo(f"vaedensity: {error}", err=True)
            results.append({"archive": str(path), "ok": False, "error": str(error)})
            status = max(status, error.exit_status)
    good = [r for r in results if r["ok"]]
    lines = [f"{r['archive']}: ok, {r['items']} items, {mib(r['bytes_out'])}, {r['seconds']:.1f} s" for r in good]
    if good or as_json:
        answer({"archives": results}, as_json, lines)
    sys.exit(status)
