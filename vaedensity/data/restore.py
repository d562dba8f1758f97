"""From decoded arrays and restore metadata to files, under names that stay inside the target folder."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.array_files import save_npy, save_npz
from vaedensity.data.atomic import refuse_existing
from vaedensity.data.disk_array import DiskArray
from vaedensity.data.long_paths import make_folders
from vaedensity.data.restore_metadata import KINDS_OF_BYTES, require_apart, require_sizes, safe_name
from vaedensity.data.staging import Move, heal, move_into_place
from vaedensity.data.tree_contents import Pool, check_metadata
from vaedensity.data.tree_meta import MODES, SUFFIXES, check_tree
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
            require_names((meta["name"], *meta.get("files", ())))
    heal(folder)
    for meta, path in zip(metas, paths):
        refuse_existing(path, overwrite)
        if meta["kind"] not in ("tree", "folder", "files") and path.is_dir():
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
        Items that could not be decoded. Files of a folder that need them are not made, but added to ``left_out``.
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
        require_names((meta["name"], *meta.get("files", ())))
    lost, left_out = lost or {}, [] if left_out is None else left_out
    with writing(path.name):
        make_folders(path.parent)
        own = {original: arrays[stored] for stored, original in meta["arrays"].items()}
        match meta["kind"]:
            case "folder":
                _write_folder(meta, next(iter(own.values())), path, lost.get(next(iter(meta["arrays"])), ()), left_out)
            case "file" | "files":
                _write_files(meta, arrays, path, lost, left_out)
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
    """How many items an archive holds: entries of arrays along their first axis, and files of folders.

    ``rows``: by stored name of an array, the length of its first axis.
    """
    count = 0
    for meta in metas:
        if meta["kind"] == "tree":
            count += meta["types"].count("f") + meta["types"].count("i")
        elif meta["kind"] in KINDS_OF_BYTES:
            count += len(meta.get("files", [""]))
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
    if meta["kind"] == "folder":
        check_folder(meta, arrays[next(iter(meta["arrays"]))])
    elif meta["kind"] in KINDS_OF_BYTES:
        check_files(meta, arrays)
    elif meta["kind"] == "tree":
        check_tree(meta, arrays)
        check_metadata(meta, arrays)


def check_folder(meta: dict[str, Any], images: NDArray[Any]) -> None:
    """Raise DamagedArchive unless ``images`` can be written under the names and in the mode of ``meta``."""
    files, mode = meta["files"], meta.get("mode")
    if (
        images.dtype != np.uint8
        or images.ndim < 3
        or images.shape[3:] != ((3,) if mode == "RGB" else ())
        or 0 in images.shape
        or len(files) != len(images)
        or mode not in MODES
        or any(Path(f).suffix.lower() not in SUFFIXES for f in files)
    ):
        raise DamagedArchive("the archive's file names do not fit its images; nothing was restored")


def _write_folder(
    meta: dict[str, Any], images: Any, path: Path, lost: Sequence[tuple[int, int]], left_out: list[str]
) -> None:
    from vaedensity.data.image_files import save_image

    check_folder(meta, images)

    files, mode = meta["files"], meta["mode"]
    make_folders(path)
    for i, name in enumerate(files):
        if any(first <= i < end for first, end in lost):
            left_out.append(f"{meta['name']}/{name}")
            continue
        file = path / safe_name(name)
        make_folders(file.parent)
        with open(file, "xb") as f:
            try:
                save_image(f, np.ascontiguousarray(images[i : i + 1][0]), mode, file.suffix)
            except (ValueError, TypeError, KeyError, SystemError) as error:
                raise DamagedArchive(f"the archive's image {name} cannot be written ({error})") from error


def check_files(meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Raise DamagedArchive unless the arrays of ``meta`` (of kind "file" or "files") are bytes, as many as its files.

    ``arrays``: by stored name, of any shapes; others may be among them.
    """
    own = [arrays[stored] for stored in meta["arrays"]]
    try:
        require_apart(meta.get("files", []))
        require_sizes(meta)
        if other := {str(a.dtype) for a in own if a.dtype != np.uint8}:
            raise ValueError(f"dtype {', '.join(sorted(other))}, expected uint8")
        found, expected = sum(a.size for a in own), sum(meta.get("sizes", []))
        if meta["kind"] == "files" and found != expected:
            raise ValueError(f"{found} bytes, expected {expected}")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedArchive(
            f"the archive's file names do not fit its bytes ({error}); nothing was restored"
        ) from error


def _write_files(
    meta: dict[str, Any], arrays: dict[str, Any], path: Path, lost: LostItems, left_out: list[str]
) -> None:
    """Write the arrays' bytes, one after the other, to the file ``path`` or to the files of that folder."""
    check_files(meta, arrays)
    own = [arrays[stored] for stored in meta["arrays"]]
    if meta["kind"] == "file":
        _write_pieces(Pool(own, {}).take(sum(array.size for array in own)) or (), path)
        return
    make_folders(path)
    pool = Pool(own, {k: lost.get(stored, ()) for k, stored in enumerate(meta["arrays"])})
    for name, size in zip(meta["files"], meta["sizes"]):
        pieces, file = pool.take(size), path / safe_name(name)
        if pieces is None:
            left_out.append(f"{meta['name']}/{name}")
            continue
        make_folders(file.parent)
        _write_pieces(pieces, file)


def _write_pieces(pieces: Iterable[NDArray[np.uint8]], file: Path) -> None:
    with open(file, "xb") as f:
        for piece in pieces:
            f.write(piece.data)
