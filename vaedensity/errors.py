"""Every refusal a user can meet, with the exit status that the command line gives it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OK, FAILURE, USAGE, DAMAGED, MODEL_MISMATCH, UNRELIABLE, TOO_WIDE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


# Characters that end a line or move what a terminal shows: names in archives may hold any.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
LONGEST = 2000


class VaedensityError(Exception):
    """An operation that could not be done; the message is one line: found, expected, next step."""

    exit_status = FAILURE

    def __str__(self) -> str:
        line = without_controls(super().__str__())
        return line if len(line) <= LONGEST else line[: LONGEST // 2] + " ... " + line[-LONGEST // 2 :]


def without_controls(line: str) -> str:
    """``line`` as one line that does nothing to a terminal but appear on it."""
    return CONTROL.sub(lambda found: " " if found[0] in "\n\r\t" else ascii(found[0])[1:-1], line)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Refusals of what an archive says of its files begin with the archive's name."""
    try:
        yield
    except DamagedArchive as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise DamagedArchive(f"{path}: {error}") from error.__cause__


class UsageError(VaedensityError):
    """The request itself does not fit: wrong dtype, shape, option or name."""

    exit_status = USAGE


class SourceChanged(UsageError):
    """What is packed was written to, cut off or replaced while it was read. ``array``: its stored name, where it has one."""

    array: str | None = None


def changed(source: object) -> SourceChanged:
    """The refusal of a ``source`` that was not at rest."""
    return SourceChanged(f"{source} changed while it was read; try again when it is at rest, or pack a copy of it")


class AlreadyThere(UsageError):
    """What is to be made exists, and was not to be replaced."""

    def __init__(self, path: Path):
        super().__init__(f"{path} exists; choose another name or pass overwrite=True to replace it")


class DamagedArchive(VaedensityError):
    """The bytes are not a whole, unaltered archive. Nothing decoded from it is returned."""

    exit_status = DAMAGED


class ModelError(VaedensityError):
    """The model is missing, unreadable, or not the one that the archive was made with."""

    exit_status = MODEL_MISMATCH


class UnreliableScores(VaedensityError):
    """The diagnostics of ``score --strict`` failed. The rows were written."""

    exit_status = UNRELIABLE


class BoundsTooWide(VaedensityError):
    """``score --self-test``: the bounds of log p(x) are further apart than the tolerance."""

    exit_status = TOO_WIDE


class Interrupted(VaedensityError):
    """Ctrl-C; what was finished is saved."""

    exit_status = INTERRUPTED


def refuse_if_out_of_memory(error: Exception) -> None:
    """Raise VaedensityError for lack of memory, which torch reports as a RuntimeError of many words."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "out of memory" in str(error))
    ):
        raise VaedensityError("not enough memory; close other programs or use a machine with more") from error
