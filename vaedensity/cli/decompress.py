"""vaedensity decompress, vaedensity test"""

import sys
from pathlib import Path

import click

from vaedensity.cli.common import answer, force_option, guarded, json_option, mib, progress_bar, silence_libraries
from vaedensity.errors import OK, VaedensityError


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
@force_option
@json_option
@guarded
def decompress_command(
    archive: Path,
    folder: Path,
    model: str | None,
    threads: int | None,
    lockstep: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Restore everything in ARCHIVE. Nothing appears before all of it has been decoded and checked."""
    silence_libraries()
    from vaedensity.tasks.packing import decompress

    with progress_bar("decompress", None) as advance:
        r = decompress(archive, folder, model, overwrite=force, threads=threads, lockstep=lockstep, progress=advance)
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
