"""What all commands share: one-line errors with their exit status, JSON, progress."""

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from vaedensity.errors import FAILURE, INTERRUPTED, UsageError, VaedensityError, without_controls

SCHEMA_VERSION = 1
STARTED = "vaedensity.started"  # in the context of every command
MOST_THREADS = 1024
Command = TypeVar("Command", bound=Callable[..., Any])


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
    click.echo(printable("vaedensity: " + " ".join(message.split())), err=True)
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
    """``line`` without what is no character, as bytes of file names that are not UTF-8, and what moves a terminal's cursor."""
    return without_controls(line).encode("utf-8", "backslashreplace").decode()


def say(line: str) -> None:
    """A remark on stderr, unless quiet."""
    if verbosity() > 0:
        click.echo(printable(line), err=True)


def elapsed() -> float:
    """Seconds since the command was given, imports and all: what a user waits."""
    context = click.get_current_context()
    return time.monotonic() - float(context.meta.get(STARTED, time.monotonic()))


def answer(record: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """The result: one JSON object, or lines for people. Its ``seconds`` are what the user waited."""
    if as_json:
        record = record | ({"seconds": elapsed()} if "seconds" in record else {})
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **record}))
    else:
        for line in lines:
            click.echo(printable(line))


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while it is a terminal; yields the function that advances it."""
    if verbosity() == 0 or not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)


class FitBar:
    """An observer that shows a run's progress: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self.tty = verbosity() > 0 and sys.stderr.isatty()
        self.last = -1
        if self.tty:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("fit"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=1.0)

    def __enter__(self) -> "FitBar":
        if self.tty:
            self.bar.start()
        self.valid = ""
        return self

    def __exit__(self, *_: object) -> None:
        if self.tty:
            self.bar.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        if "event" in record:
            say(record["event"])
        if "valid_bits_per_dim" in record:
            self.valid = f"  valid {record['valid_bits_per_dim']:.4f}"
        rate = record.get("bits_per_dim", float("nan"))
        line = f"step {record['step']}  {rate:.4f} bits/dim{self.valid}"
        if self.tty:
            self.bar.update(self.task, completed=record["progress"], description=line)
        elif int(record["progress"] * 10) > self.last:
            self.last = int(record["progress"] * 10)
            say(f"{self.last * 10:3d}%  {line}")


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


class Threads(click.ParamType[int]):
    """A number of threads, or ``auto``, which is None to the rest of the package."""

    name = "threads"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:  # type: ignore[override]
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
force_option = click.option("-f", "--force", is_flag=True, help="Replace what exists.")


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
