"""Fields of metas, which come out of JSON and may be anything."""

from collections.abc import Mapping
from typing import Any, TypeVar

Kind = TypeVar("Kind")
WORDS = {
    type(None): "nothing",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def field(meta: Mapping[str, Any], name: str, kind: type[Kind]) -> Kind:
    """``meta[name]``. Raises ValueError, which says what is there, where it is none of ``kind``."""
    value = meta.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name}: found {WORDS[type(value)]}, expected {WORDS[kind]}")
    return value


def said(value: Any) -> str:
    """``value`` for a line of a message: a text itself, of anything else only what it is."""
    if not isinstance(value, str):
        return WORDS[type(value)]
    return ascii(value if len(value) <= 60 else value[:57] + "...")
