"""Every refusal a user can meet, with the exit status that the command line gives it."""

OK, FAILURE, USAGE, DAMAGED, MODEL_MISMATCH, UNRELIABLE, TOO_WIDE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


class VaedensityError(Exception):
    """An operation that could not be done; the message is one line: found, expected, next step."""

    exit_status = FAILURE


class UsageError(VaedensityError):
    """The request itself does not fit: wrong dtype, shape, option or name."""

    exit_status = USAGE


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
    """Raise VaedensityError where torch gave up for lack of memory, which it reports as a RuntimeError of many words."""
    if isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "out of memory" in str(error)):
        raise VaedensityError("not enough memory; close other programs or use a machine with more") from error
