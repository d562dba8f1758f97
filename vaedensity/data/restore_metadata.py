"""What restore metadata must be like, checked before arrays are decoded, and which names are safe (docs/format.md).

Restore metadata says how the arrays of an archive become files again: a list with one object, here ``meta``, for each
file or folder.
"""

import os
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from vaedensity.data.tree_meta import LONGEST_NAME, WORDS, check_tree_meta, field, said
from vaedensity.errors import DamagedArchive

KINDS = ("npy", "npz", "file", "tree")


def is_safe(name: str) -> bool:
    """Whether ``name`` is a relative path that cannot leave its folder, where ``/`` alone separates folders.

    The rules of other systems are checked when files are made there.

    >>> is_safe("a/b.txt"), is_safe("../b.txt"), is_safe("/b.txt")
    (True, False, False)
    """
    if len(name) > LONGEST_NAME:
        return False
    path = PurePosixPath(name)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return "\0" not in name and not path.is_absolute() and bool(path.parts) and ".." not in path.parts


def safe_name(name: str) -> PurePosixPath:
    """``name`` as a relative path. Raises DamagedArchive where it is not safe."""
    if not is_safe(name):
        short = name if len(name) <= 80 else name[:77] + "..."
        raise DamagedArchive(
            f"the archive holds the name {short!r}, which would leave the target folder or can name no file; "
            "nothing was restored"
        )
    return PurePosixPath(name)


def _require_apart(names: list[PurePosixPath]) -> None:
    """Raise ValueError where two names are one file, or one would lie inside the other."""
    parts = sorted(name.parts for name in names)
    # In this order what lies inside a name follows it at once, or is behind another that does.
    if any(after[: len(before)] == before for before, after in pairwise(parts)):
        raise ValueError("two names are in each other's way")


def check_restore_metadata(metas: list[Any], arrays: list[str]) -> None:
    """Raise DamagedArchive unless ``metas`` say how to restore ``arrays``, these names and no others."""
    try:
        for meta in metas:
            _check_collection(meta)
        _require_apart([safe_name(meta["name"]) for meta in metas])
        if sorted(name for meta in metas for name in meta["arrays"]) != sorted(arrays):
            raise ValueError("the arrays are not those that are described")
    except ValueError as error:
        raise DamagedArchive(f"the archive's restore metadata makes no sense ({error})") from error


def _check_collection(meta: Any) -> None:
    """Raise ValueError or DamagedArchive unless ``meta`` describes one file or folder."""
    if not isinstance(meta, dict):
        raise ValueError(f"a collection is {WORDS[type(meta)]}, expected an object")
    kind, own = field(meta, "kind", str), field(meta, "arrays", dict)
    field(meta, "name", str)
    if kind not in KINDS:
        raise ValueError(f"kind {said(kind)} is not known")
    if (kind == "npy" and len(own) != 1) or (kind == "file" and not own):
        raise ValueError(f"{len(own)} arrays, one expected")
    _check_original_names(list(own.values()))
    if kind == "tree":
        check_tree_meta(meta)


def _check_original_names(names: list[Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"arrays: found {said(name)} as an original name, expected a text")
        if "\0" in name or (not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name)):
            raise ValueError(f"an array has the original name {said(name)}, which can be none")
    if len(set(names)) != len(names):
        raise ValueError("two arrays have one original name")
