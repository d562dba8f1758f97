"""What all commands share: one-line errors with their exit status, remarks, results, options."""

import functools
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vaedensity.cli.arguments import ParamType
from vaedensity.errors import FAILURE, INTERRUPTED, UsageError, VaedensityError, without_controls
from vaedensity.units import json_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

    from vaedensity.data.atomic import OwnFiles
    from vaedensity.data.collection import Collection, LoadOptions

SCHEMA_VERSION = 1
STARTED = "vaedensity.started"  # in the context of every command
MOST_THREADS = 1024
Command = TypeVar("Command", bound=Callable[..., Any])


# Arguments that messages name as Python callers pass them. On the command line they are flags.
NAMES = "overwrite|resume|keep_going|download|data_root|model|background|reference|max_output|memory|links"
ARGUMENTS = re.compile(rf"(?<=\s)({NAMES})=([^\s;,.)]+)")
SHORT = {"overwrite": "-f", "model": "-m"}


def with_flags(message: str) -> str:
    """``message`` with flags for arguments: ``-f`` for ``overwrite=True``, ``--memory 8`` for ``memory=8``."""

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        own = SHORT.get(name, "--" + name.replace("_", "-"))
        return own if value == "True" else f"{own} {value}"

    return ARGUMENTS.sub(flag, message)


def guarded(command: Command) -> Command:
    """Turn what can go wrong into one line on stderr and the documented exit status."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except VaedensityError as error:
            fail(str(error), error.exit_status)
        except KeyboardInterrupt:
            fail("interrupted; nothing was written", INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILURE)
        except (OSError, MemoryError, RuntimeError) as error:
            if verbosity() > 1:
                raise
            fail(f"{type(error).__name__}: {error}", FAILURE)
        except Exception as error:
            if verbosity() > 1:
                raise
            fail(f"unexpected {type(error).__name__}: {error}; run again with 'vaedensity -v' and report it", FAILURE)

    return run  # type: ignore[return-value]


def fail(message: str, status: int) -> None:
    click.echo(printable("vaedensity: " + with_flags(" ".join(message.split()))), err=True)
    sys.exit(status)


def verbosity() -> int:
    """0 quiet, 1 normal, 2 verbose: set by -q and -v before the command."""
    context = click.get_current_context(silent=True)
    while context is not None:
        if context.obj is not None:
            return int(context.obj)
        context = context.parent
    return 1


def printable(line: str) -> str:
    """``line`` as one line, in characters that standard output can show.

    What moves a terminal's cursor is left out, and bytes of file names that are not UTF-8 are escaped.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return without_controls(line).encode(encoding, "backslashreplace").decode(encoding)


def terminal_width() -> int | None:
    """How many columns standard output has; None where it is no terminal and nobody said."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return None


def say(line: str) -> None:
    """A remark on stderr, unless quiet."""
    if verbosity() > 0:
        click.echo(printable(with_flags(line)), err=True)


def elapsed() -> float:
    """Seconds since the command was given, imports and all: what a user waits."""
    context = click.get_current_context()
    return time.monotonic() - float(context.meta.get(STARTED, time.monotonic()))


def answer(result: "dict[str, Any] | DataclassInstance", as_json: bool, lines: list[str]) -> None:
    """Print the result: one JSON object of its fields, or ``lines`` for people.

    Its ``seconds``, if it has any, are those that the user waited.
    """
    if as_json:
        record = result if isinstance(result, dict) else asdict(result)
        record = record | ({"seconds": elapsed()} if "seconds" in record else {})
        click.echo(json_line(_in_characters({"schema_version": SCHEMA_VERSION, **record})))
    else:
        for line in lines:
            click.echo(printable(line))


def _in_characters(value: Any) -> Any:
    """``value`` of a record with its names in characters alone: no other JSON can be read everywhere."""
    from vaedensity.data.tree_names import escaped

    if isinstance(value, dict):
        return {_in_characters(key): _in_characters(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_characters(one) for one in value]
    return escaped(value) if isinstance(value, str) else value


def data_options(command: Command) -> Command:
    """--data-root and --download, for commands that take a data set's name."""
    command = click.option("--download", is_flag=True, help="Let torchvision download a named data set.")(command)
    return click.option("--data-root", default="data", show_default=True, help="Where torchvision's data sets lie.")(
        command
    )


models_option = click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder in which to find the archive's model by its SHA-256, before those of VAEDENSITY_MODELS.",
)


class Threads(ParamType):
    """A number of threads, or ``auto``, which is None to the rest of the package."""

    name = "threads"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if isinstance(value, int):
            return value
        if not str(value).isdecimal() or not 0 < int(value) <= MOST_THREADS:
            self.fail(f"{value!r}: expected auto or a number of threads from 1 to {MOST_THREADS}", param, ctx)
        return int(value)


threads_option = click.option(
    "--threads",
    type=Threads(),
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="How many cores to work on; auto: those that this process may use and others leave free.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a summary.")
strict_option = click.option("--strict", is_flag=True, help="Refuse a folder with files that are no images.")
force_option = click.option("-f", "--force", is_flag=True, help="Replace what exists.")


def say_left_out(own_files: "OwnFiles") -> None:
    """A remark for each file that was not read because this command writes it."""
    for path in own_files.met:
        say(f"{path} is written by this command: left out of what is read")


def read_data(spec: str, options: "LoadOptions") -> "tuple[Collection, NDArray[Any]]":
    """The data that fit, score and others work on; what was left out or can be taken otherwise is said."""
    from vaedensity.data.load import load_array
    from vaedensity.items import doubt, layout_of, reading, series_layout, to_items

    collection, array = load_array(spec, options)
    say_left_out(options.own_files)
    if collection.remark:
        say(collection.remark)
    if collection.skipped:
        count = len(collection.skipped)
        say(f"{collection.source}: files that are no images, left out: {count}; vaedensity -v names them")
    if verbosity() > 1:
        for name in collection.skipped:
            say(f"left out: {name}")
    layout = layout_of(array) or (series_layout(array) if options.as_bytes is None else None)
    if layout is not None and collection.item_names is None and doubt(array):
        say(f"{collection.source}: read as {reading(array, to_items(array, layout))}{doubt(array)}")
    return collection, array


def silence_libraries() -> None:
    """Keep libraries' warnings off stdout and, unless verbose, off stderr."""
    if verbosity() < 2:
        logging.disable(logging.WARNING)
        import warnings

        warnings.simplefilter("ignore")


def model_or_folder(model: str | None, models: Path | None) -> str | None:
    """What names an archive's model: the model itself, or a folder that it is in."""
    if model is not None and models is not None:
        raise UsageError("-m names the model and --models a folder to find it in: give one of them")
    return model if models is None else str(models)


def mib(n: int) -> str:
    return f"{n / 2**20:.2f} MiB" if n >= 2**20 else f"{n / 1024:.1f} KiB" if n >= 1024 else f"{n} bytes"
