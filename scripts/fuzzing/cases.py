"""What a bad archive or model is, beside its bytes."""

from typing import Any, NamedTuple

FAILURE, USAGE, DAMAGED, MODEL = 1, 2, 3, 4
BOTH = "test decompress"


class Case(NamedTuple):
    """A file that must be refused with ``status`` by ``commands``, run with ``options``; ``suffix`` is that of a model file for
    models, with which an archive is decoded that needs one."""

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
