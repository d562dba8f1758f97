"""Parameters named by shell-style patterns.

``*`` stands for any characters, dots too, ``?`` for one, ``[ab]`` for one of these. What matches a module's
name takes all parameters below it: ``encoder`` means ``encoder`` and ``encoder.*``.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TypeVar

from vaedensity.errors import UsageError

Value = TypeVar("Value")


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Those of ``names`` that ``pattern`` matches, in their order.

    Raises UsageError where there is none, with the names that come nearest.

    >>> matching(["encoder.weight", "encoder.bias", "decoder.weight"], "encoder")
    ['encoder.weight', 'encoder.bias']
    """
    names = list(names)
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
    if not found:
        raise UsageError(f"no parameter matches {pattern!r}; {_nearest(names, pattern)}")
    return found


def assign(names: Iterable[str], values: Mapping[str, Value], default: Value) -> dict[str, Value]:
    """The value of every name: that of the last pattern in ``values`` that matches it, else ``default``.

    Raises UsageError for a pattern that matches nothing.
    """
    names = list(names)
    assigned = dict.fromkeys(names, default)
    for pattern, value in values.items():
        assigned |= dict.fromkeys(matching(names, pattern), value)
    return assigned


def _nearest(names: list[str], pattern: str) -> str:
    """What a pattern that matches nothing may have meant: modules first, then parameters."""
    modules = dict.fromkeys(name.rsplit(".", depth)[0] for name in names for depth in range(name.count("."), 0, -1))
    bare = pattern.removesuffix("*").removesuffix(".") or pattern
    near = get_close_matches(bare, [*modules, *names], n=4, cutoff=0.5)
    if near:
        return f"near: {', '.join(near)}"
    tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return f"there are: {', '.join(tops[:20])}{', ...' if len(tops) > 20 else ''}" if tops else "there are none"
