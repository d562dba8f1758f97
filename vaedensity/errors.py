"""Every error that a user can meet, with the exit status that the command line gives it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OK, FAILURE, USAGE, DAMAGED, MODEL_MISMATCH, UNRELIABLE, TOO_WIDE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

# Characters that end a line or change how a terminal shows the rest: names in archives may hold any.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
LONGEST = 2000


class VaedensityError(Exception):
    """Something could not be done. The message is one line: what was found, what was expected, what to do next."""

    exit_status = FAILURE

    def __str__(self) -> str:
        line = without_controls(super().__str__())
        return line if len(line) <= LONGEST else line[: LONGEST // 2] + " ... " + line[-LONGEST // 2 :]


class UsageError(VaedensityError):
    """The request does not fit: a wrong dtype, shape, option or name."""

    exit_status = USAGE


class SourceChanged(UsageError):
    """A file changed, was cut off or replaced while it was read. ``array``: its name in the archive, if it has one."""

    array: str | None = None


class AlreadyThere(UsageError):
    """Something exists at ``path``, and the caller did not allow replacing it."""

    def __init__(self, path: Path):
        super().__init__(f"{path} exists; choose another name or pass overwrite=True to replace it")


class DamagedArchive(VaedensityError):
    """The bytes are not a whole, unaltered archive. Nothing decoded from it is returned."""

    exit_status = DAMAGED


class ModelError(VaedensityError):
    """The model is missing, unreadable, or not the one that made the archive."""

    exit_status = MODEL_MISMATCH


class UnreliableScores(VaedensityError):
    """The diagnostics of strict scoring failed. The rows were written."""

    exit_status = UNRELIABLE


class BoundsTooWide(VaedensityError):
    """The lower and upper bound of log p(x) in the self-test are further apart than the tolerance."""

    exit_status = TOO_WIDE


class Interrupted(VaedensityError):
    """Ctrl-C was pressed. What was finished is saved."""

    exit_status = INTERRUPTED


def changed(source: object) -> SourceChanged:
    """The error to raise for a ``source`` that changed while it was read."""
    return SourceChanged(f"{source} changed while it was read; try again when it is at rest, or pack a copy of it")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put ``path``, the archive's, in front of every DamagedArchive message that does not begin with it."""
    try:
        yield
    except DamagedArchive as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise DamagedArchive(f"{path}: {error}") from error.__cause__


@contextmanager
def writing(name: object) -> Iterator[None]:
    """Turn an OSError into a VaedensityError that says ``name`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise VaedensityError(f"cannot write {name}: {error.strerror or error}") from error


def refuse_if_out_of_memory(error: Exception) -> None:
    """Raise VaedensityError if ``error`` means lack of memory, which torch reports as a RuntimeError of many words."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "out of memory" in str(error))
    ):
        raise VaedensityError("not enough memory; close other programs or use a machine with more") from error


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, or its class where it says nothing."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return (str(error).splitlines() or [type(error).__name__])[0]


def without_controls(line: str) -> str:
    r"""``line`` without characters that a terminal would obey rather than show.

    >>> without_controls("a\nb\x1b[2J")
    'a b\\x1b[2J'
    """
    return CONTROL.sub(lambda found: " " if found[0] in "\n\r\t" else ascii(found[0])[1:-1], line)
