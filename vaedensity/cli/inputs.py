"""What INPUT arguments name, for compress and add."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaedensity.cli.arguments import STREAM
from vaedensity.cli.common import Command, say, say_left_out, threads_option
from vaedensity.cli.streams import stdin_as_file
from vaedensity.data.atomic import OwnFiles
from vaedensity.errors import SourceChanged, UsageError

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
        threads_option,
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
    out: Path | None,
    refused: list[str] | None = None,
) -> "list[Collection | Tree]":
    """What INPUT arguments name, without ``out``; ``-`` is standard input, once.

    ``series``: whether the images in folders are bytes to the model. ``refused``: a list that takes a line for
    everything that cannot be read, which then stops nothing.
    """
    from vaedensity.data.byte_files import load_file
    from vaedensity.data.collection import LoadOptions
    from vaedensity.data.load import load
    from vaedensity.data.tree import scan

    if inputs.count(STREAM) > 1:
        raise UsageError("- is given twice; standard input is there once")
    own, options = OwnFiles(out), LoadOptions(data_root, download)

    def read(spec: str) -> "Collection | Tree":
        path = Path(spec)
        if spec == STREAM:
            return load_file(stack.enter_context(stdin_as_file()))
        if spec:
            own.require_other(path)
        if spec and path.is_dir():
            how = {"all_bytes": as_bytes or series, "keep_times": times, "links": links}
            return scan(path, own_files=own, refused=refused, **how)  # type: ignore[arg-type]
        collection = load_file(path) if spec and as_bytes and path.exists() else load(spec, options)
        if collection.remark:
            say(collection.remark)
        return collection

    found = []
    for spec in inputs:
        try:
            found.append(read(spec))
        except UsageError as error:
            if refused is None:
                raise
            refused.append(str(error))
    if not found:
        raise UsageError(f"nothing is left to be packed: {(refused or [''])[0]}")
    say_left_out(own)
    return found


def at_rest(sources: "list[Collection | Tree]") -> "list[Collection | Tree]":
    """Those of ``sources`` that did not change since they were found; folders leave out themselves what changes."""
    from vaedensity.data.collection import Collection

    still = []
    for source in sources:
        with suppress(SourceChanged):
            if isinstance(source, Collection):
                source.require_unchanged()
            still.append(source)
    return still
