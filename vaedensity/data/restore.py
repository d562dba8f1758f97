"""From decoded arrays and restore metadata to files, under names that stay inside the target folder."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaedensity.data.array_files import save_npy, save_npz
from vaedensity.data.atomic import refuse_existing
from vaedensity.data.disk_array import DiskArray
from vaedensity.data.long_paths import make_folders
from vaedensity.data.restore_metadata import safe_name
from vaedensity.data.staging import Move, heal, move_into_place
from vaedensity.data.tree_contents import Pool, check_metadata
from vaedensity.data.tree_meta import check_tree
from vaedensity.data.tree_names import shown
from vaedensity.data.tree_write import require_names, require_restorable, write_tree
from vaedensity.errors import DamagedArchive, UsageError, writing

LostItems = dict[str, list[tuple[int, int]]]
"""By stored name of an array, ranges (first, last + 1) of items that could not be decoded and are zeros."""


def targets(metas: list[Any], folder: Path, overwrite: bool, links: str = "any") -> list[Path]:
    """The paths that restoring will make, once it is known that they can be made.

    Parameters
    ----------
    metas
        Checked restore metadata.
    folder
        Where to restore.
    overwrite
        Whether what is there may be replaced.
    links
        Of trees, as of :func:`~vaedensity.data.tree_write.require_restorable`.

    Raises
    ------
    UsageError
        If something is there that must stay, or this system cannot hold a name, or ``links`` forbids a tree.
    """
    paths = [folder / safe_name(meta["name"]) for meta in metas]
    for meta in metas:
        if meta["kind"] == "tree":
            require_restorable(meta, links)
        else:
            require_names([meta["name"]])
    heal(folder)
    for meta, path in zip(metas, paths):
        refuse_existing(path, overwrite)
        if meta["kind"] != "tree" and path.is_dir():
            raise UsageError(f"{path} is a folder, which no file replaces; remove it or choose another place")
    return paths


def place(metas: list[Any], staged: list[Path], goals: list[Path], overwrite: bool) -> None:
    """Move what :func:`write_collection` has made to its place: all or, where the system refuses, nothing.

    Folders keep the permissions that the archive has for them; other things take over those of what they replace.
    """
    moves = [Move(path, goal, "rights" not in meta) for meta, path, goal in zip(metas, staged, goals)]
    move_into_place(moves, overwrite)


def write_collection(
    meta: dict[str, Any],
    arrays: dict[str, Any],
    stage: Path,
    lost: LostItems | None = None,
    left_out: list[str] | None = None,
    *,
    links: str = "inside",
    remarks: list[str] | None = None,
) -> Path:
    """Make one file or folder under ``stage``, and return its path there.

    Parameters
    ----------
    meta
        Its restore metadata, checked.
    arrays
        By stored name: numpy arrays, or :class:`~vaedensity.data.disk_array.DiskArray`; others may be among them.
    stage
        A folder of this call alone.
    lost
        Items that could not be decoded. Files of a tree that need them are not made, but added to ``left_out``.
    links, remarks
        Of trees, as of :func:`~vaedensity.data.tree_write.write_tree`.

    Raises
    ------
    DamagedArchive
        If ``arrays`` are not as ``meta`` says.
    UsageError
        If this system cannot hold a name, or ``links`` forbids a tree.
    VaedensityError
        If the disk refuses.
    """
    path = stage / safe_name(meta["name"])
    if meta["kind"] != "tree":
        require_names([meta["name"]])
    lost, left_out = lost or {}, [] if left_out is None else left_out
    with writing(path.name):
        make_folders(path.parent)
        own = {original: arrays[stored] for stored, original in meta["arrays"].items()}
        match meta["kind"]:
            case "file":
                _require_bytes(meta["name"], own.values())
                with open(path, "xb") as f:
                    for piece in Pool([*own.values()], {}).take(sum(array.size for array in own.values())) or ():
                        f.write(piece.data)
            case "tree":
                left_out += write_tree(meta, arrays, path, links, lost, remarks)
            case "npz":
                with open(path, "xb") as f:
                    save_npz(f, own)
            case _:
                _write_npy(next(iter(own.values())), path)
    return path


def _write_npy(array: Any, path: Path) -> None:
    if isinstance(array, DiskArray):
        try:
            os.link(array.path, path)
        except (OSError, AttributeError):  # a file system without hard links
            shutil.copyfile(array.path, path)
        return
    with open(path, "xb") as f:
        save_npy(f, array)


def count_items(metas: list[Any], rows: dict[str, int]) -> int:
    """How many items an archive holds: entries of arrays along their first axis, and files.

    ``rows``: by stored name of an array, the length of its first axis.
    """
    count = 0
    for meta in metas:
        if meta["kind"] == "tree":
            count += meta["types"].count("f") + meta["types"].count("i")
        elif meta["kind"] == "file":
            count += 1
        else:
            count += sum(rows[name] for name in meta["arrays"])
    return count


def count_lost(metas: list[Any], lost: LostItems, left_out: list[str]) -> int:
    """How many items are lost, counted as by :func:`count_items`: entries of arrays, and files that are not whole."""
    count = len(left_out)
    for meta in metas:
        ranges = [lost[name] for name in meta["arrays"] if name in lost]
        if meta["kind"] in ("npy", "npz"):
            count += sum(end - first for own in ranges for first, end in own)
        elif meta["kind"] == "file":
            count += bool(ranges)
    return count


def check_collection(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Raise DamagedArchive unless decoded ``arrays``, by stored name, can be restored as ``meta`` says."""
    if meta["kind"] == "file":
        _require_bytes(meta["name"], [arrays[stored] for stored in meta["arrays"]])
    elif meta["kind"] == "tree":
        check_tree(meta, arrays)
        check_metadata(meta, arrays)


def _require_bytes(name: str, arrays: Iterable[Any]) -> None:
    """Raise DamagedArchive unless the ``arrays`` of the file ``name`` are uint8, of any shapes."""
    if others := {str(array.dtype) for array in arrays} - {"uint8"}:
        raise DamagedArchive(
            f"the archive holds {', '.join(sorted(others))} for the file {shown(name)}, expected uint8; "
            "nothing was restored"
        )
