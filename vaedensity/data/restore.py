"""From decoded arrays and restore metadata back to files, under names that stay inside the target folder."""

import os
import shutil
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.array_files import save_npy, save_npz
from vaedensity.data.atomic import refuse_existing
from vaedensity.data.disk_array import DiskArray, in_pieces
from vaedensity.data.long_paths import make_folders
from vaedensity.data.restore_metadata import KINDS_OF_BYTES, meta_path, require_apart, require_sizes, safe_name
from vaedensity.data.restore_metadata import check_restore_metadata as check_restore_metadata
from vaedensity.data.restore_metadata import is_safe as is_safe
from vaedensity.data.staging import Move, heal, move_into_place
from vaedensity.data.staging import staging as staging
from vaedensity.data.tree_contents import check_metadata
from vaedensity.data.tree_meta import MODES, SUFFIXES, check_tree
from vaedensity.data.tree_write import require_names, require_restorable, write_tree
from vaedensity.errors import DamagedArchive, UsageError, VaedensityError

LostItems = dict[str, list[tuple[int, int]]]


def targets(metas: list[Any], folder: Path, overwrite: bool, links: str = "any") -> list[Path]:
    """What restoring will make; raises UsageError where something exists and must stay, and where ``links``, as of
    :func:`write_collection`, or this system's names forbid a tree."""
    paths = [folder / meta_path(meta) for meta in metas]
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
    """Give what :func:`write_collection` has made its place: all or, where the system refuses, nothing. Folders that
    have their own permissions in the archive keep those, the others take over what they replace had."""
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
    """Write one collection under ``stage`` and return its path there. ``arrays``: numpy's, or :class:`DiskArray`.

    ``lost``: by stored name, the ranges of items that could not be decoded and are zeros: files of a folder that they touch are
    not written but added to ``left_out``. ``links`` and ``remarks`` of a tree: as of :func:`write_tree`.
    """
    path = stage / meta_path(meta)
    if meta["kind"] != "tree":
        require_names((meta["name"], *meta.get("files", ())))
    lost, left_out = lost or {}, [] if left_out is None else left_out
    try:
        make_folders(path.parent)
        own = {original: arrays[stored] for stored, original in meta["arrays"].items()}
        if meta["kind"] == "folder":
            _write_folder(meta, next(iter(own.values())), path, lost.get(next(iter(meta["arrays"])), ()), left_out)
        elif meta["kind"] in KINDS_OF_BYTES:
            _write_files(meta, arrays, path, lost, left_out)
        elif meta["kind"] == "tree":
            left_out += write_tree(meta, arrays, path, links, lost, remarks)
        elif meta["kind"] == "npz":
            with open(path, "xb") as f:
                save_npz(f, own)
        else:
            _write_npy(next(iter(own.values())), path)
    except OSError as error:
        raise VaedensityError(f"cannot write {path.name}: {error.strerror or error}") from error
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
    """What archives with such metas hold: entries of arrays along their first axis (``rows``, by stored name), files of folders."""
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
    """How many of the items that :func:`count_items` counts are lost: entries of arrays that are zeros now, files that are
    not whole."""
    count = len(left_out)
    for meta in metas:
        ranges = [lost[name] for name in meta["arrays"] if name in lost]
        if meta["kind"] in ("npy", "npz"):
            count += sum(end - first for own in ranges for first, end in own)
        elif meta["kind"] == "file":
            count += bool(ranges)
    return count


def check_collection(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Raise DamagedArchive unless decoded ``arrays`` can be restored as ``meta`` says."""
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
        if touches(lost, i, i + 1):
            left_out.append(f"{meta['name']}/{name}")
            continue
        file = path / safe_name(name)
        make_folders(file.parent)
        with open(file, "xb") as f:
            try:
                save_image(f, np.ascontiguousarray(images[i : i + 1][0]), mode, file.suffix)
            except (ValueError, TypeError, KeyError, SystemError) as error:
                raise DamagedArchive(f"the archive's image {name} cannot be written ({error})") from error


def touches(ranges: Sequence[tuple[int, int]], first: int, end: int) -> bool:
    """Whether ``first`` .. ``end`` - 1 and any of ``ranges`` (first, end) overlap."""
    return any(low < end and first < high for low, high in ranges)


def check_files(meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Raise DamagedArchive unless the arrays that ``meta`` (of kind "file" or "files") lists hold bytes, and as many
    as its files. ``arrays``: by stored name, others may be among them; any shapes."""
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
    """The bytes of restore metadata's arrays, one after the other, as the file ``path`` or as the files of that folder."""
    check_files(meta, arrays)
    bytes_of = chain.from_iterable(in_pieces(arrays[stored]) for stored in meta["arrays"])
    if meta["kind"] == "file":
        with open(path, "xb") as f:
            for part in bytes_of:
                f.write(part.data)
        return
    make_folders(path)
    holes, rest, at = lost_bytes(meta["arrays"], arrays, lost), np.empty(0, np.uint8), 0
    for name, size in zip(meta["files"], meta["sizes"]):
        file = path / safe_name(name)
        make_folders(file.parent)
        with open(file, "xb") as f:
            left = size
            while left:
                rest = rest if len(rest) else next(bytes_of)
                f.write(rest[:left].data)
                left, rest = left - min(left, len(rest)), rest[left:]
        if size and touches(holes, at, at + size):
            left_out.append(f"{meta['name']}/{name}")
            file.unlink()
        at += size


def lost_bytes(names: Iterable[str], arrays: dict[str, Any], lost: LostItems) -> list[tuple[int, int]]:
    """What is ``lost`` of arrays that hold bytes, as ranges of the bytes of all of them, one array after the other."""
    holes, begin = [], 0
    for name in names:
        array = arrays[name]
        row = array.nbytes // len(array) if array.ndim and len(array) else array.nbytes
        holes += [(begin + low * row, begin + high * row) for low, high in lost.get(name, ())]
        begin += array.nbytes
    return holes
