"""Names in trees: sequences of bytes, kept as str with a lone surrogate for each byte that is not UTF-8."""

import os
import re

ESCAPES = "surrogateescape"
WINDOWS = os.name == "nt"
FORBIDDEN_ON_WINDOWS = frozenset('\\:*?"<>|') | frozenset(map(chr, range(32)))
DEVICES_OF_WINDOWS = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in (*"123456789", *"\xb9\xb2\xb3"))]
)


def from_system(name: str | bytes) -> str:
    """A name as the operating system gave it. On POSIX its bytes decide, not how the locale has Python read them.

    Raises ValueError (UnicodeEncodeError) for a name of Windows that is no Unicode.
    """
    if WINDOWS:
        name = os.fsdecode(name)
        name.encode()
        return name
    return os.fsencode(name).decode("utf-8", ESCAPES)


def link_from_system(target: str | bytes) -> str:
    """What a link points to, with ``/`` between folders."""
    name = from_system(target)
    return name.removeprefix("\\\\?\\").replace("\\", "/") if WINDOWS else name


def to_system(name: str) -> str | bytes:
    """Undoes :func:`from_system`: what the functions of `os` take. ``/`` separates folders in ``name``."""
    return name.replace("/", "\\") if WINDOWS else name.encode("utf-8", ESCAPES)


def is_text(name: str) -> bool:
    """Whether ``name`` stands for a sequence of bytes without NUL, and is the only str that does."""
    if name.isascii():
        return "\0" not in name
    try:
        return "\0" not in name and name.encode("utf-8", ESCAPES).decode("utf-8", ESCAPES) == name
    except UnicodeEncodeError:
        return False


ESCAPE = re.compile(r"\\\\|\\x[89a-f][0-9a-f]")


def escaped(name: str) -> str:
    r"""``name`` in characters alone: a byte that is not UTF-8 becomes ``\xe9``.

    In such names, and where a name could be taken for one, each backslash becomes two.

    >>> escaped("caf\udce9"), escaped("caf\u00e9")
    ('caf\\xe9', 'café')
    """
    if not any("\udc80" <= c <= "\udcff" for c in name) and ESCAPE.search(name) is None:
        return name
    return "".join(
        f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else "\\\\" if c == "\\" else c for c in name
    )


def unescaped(text: str) -> str:
    """Undoes :func:`escaped`."""
    return ESCAPE.sub(lambda found: "\\" if found[0] == "\\\\" else chr(0xDC00 + int(found[0][2:], 16)), text)


def fits_system(name: str, windows: bool = WINDOWS) -> bool:
    """Whether a file of this relative path, or a link to it, can be made on this system and means the same here."""
    if not windows:
        return True
    return all(_fits_windows(part) for part in name.split("/") if part not in ("", ".", ".."))


def _fits_windows(part: str) -> bool:
    if FORBIDDEN_ON_WINDOWS.intersection(part) or part[-1] in ". " or any("\ud800" <= c <= "\udfff" for c in part):
        return False
    return part.partition(".")[0].rstrip(" ").upper() not in DEVICES_OF_WINDOWS


def shown(name: str) -> str:
    """``name`` for one line of a message."""
    return name if name.isprintable() else ascii(name)
