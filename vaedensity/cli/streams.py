"""Standard input and output as files, and sizes as people write them."""

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click

from vaedensity.cli.arguments import STREAM, ParamType
from vaedensity.data.targets import is_open_file
from vaedensity.errors import UsageError, VaedensityError

NAME_OF_STDIN = "stdin"
PIECE_BYTES = 1 << 20


def temporary_folder() -> AbstractContextManager[Path]:
    """A folder that is gone afterwards, or, where this process is killed, after the next run."""
    from vaedensity.data.staging import staging

    return staging(Path(tempfile.gettempdir()))


@contextmanager
def stdin_as_file(name: str = NAME_OF_STDIN) -> Iterator[Path]:
    """Everything on standard input in a temporary file. Raises UsageError where it is a terminal."""
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal; expected data from a pipe or file")
    with temporary_folder() as folder:
        path = folder / name
        try:
            with open(path, "xb") as f:
                shutil.copyfileobj(sys.stdin.buffer, f, PIECE_BYTES)
        except OSError as error:
            raise VaedensityError(f"cannot keep standard input in {folder}: {error.strerror or error}") from error
        yield path


@contextmanager
def maybe_stdin(path: Path) -> Iterator[Path]:
    """``path``, or a file with standard input where it is ``-``."""
    if str(path) != STREAM:
        yield path
        return
    with stdin_as_file() as kept:
        yield kept


def refuse_open_file(path: Path) -> None:
    """Raise UsageError where ``path`` is another name of standard output or of what else is open."""
    if is_open_file(path):
        raise UsageError(f"{path} is an open file, such as standard output; pass -c to write there, or name a file")


def refuse_terminal() -> None:
    """Raise UsageError where standard output is a terminal, which no binary data belong on."""
    if sys.stdout.isatty():
        raise UsageError("standard output is a terminal; expected a pipe or file for binary data")


def file_on_stdout() -> Path | None:
    """The file that standard output goes to, where the system tells its name."""
    try:
        handle = sys.stdout.buffer.fileno()
        return Path(os.readlink(f"/proc/self/fd/{handle}")) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    except OSError:  # no such stream, or no such system
        return None


def to_stdout(path: Path) -> None:
    """The bytes of a file on standard output."""
    with open(path, "rb") as f:
        shutil.copyfileobj(f, sys.stdout.buffer, PIECE_BYTES)
    sys.stdout.buffer.flush()


class Size(ParamType):
    """A number of bytes: 500, 20K, 3M, 8G, 2T, powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,15})([KMGT]?)(i?B)?", str(value), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r}: expected bytes such as 500M or 8G", param, ctx)
        return int(found[1]) << (10 * " KMGT".index(found[2].upper() or " "))


max_output_option = click.option(
    "--max-output", type=Size(), help="Refuse archives of more bytes. [default: 1G, or 2000 times the archive]"
)
memory_option = click.option(
    "--memory", type=Size(), help="Refuse archives that take more memory. [default: 3/4 of the machine's]"
)
