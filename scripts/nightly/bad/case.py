"""What a bad archive or model is, beside its bytes."""

from typing import Any, NamedTuple

FAILURE, USAGE, DAMAGED, MODEL = 1, 2, 3, 4
BOTH = "test decompress"


class Case(NamedTuple):
    """A file that ``commands``, run with ``options``, must reject with ``status``.

    A model has the suffix of a model file: with it an archive is decoded that needs a model.
    """

    name: str
    status: int
    data: bytes
    options: str = ""
    commands: str = BOTH
    suffix: str = ".vdz"


def changed(thing: Any, **fields: Any) -> None:
    """Set fields of ``thing``."""
    for name, value in fields.items():
        setattr(thing, name, value)
