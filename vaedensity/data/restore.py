"""From decoded arrays and a note back to files, under names that stay inside the target folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.atomic import refuse_existing
from vaedensity.data.files import save_npy, save_npz
from vaedensity.errors import DamagedArchive, VaedensityError

KINDS_OF_BYTES = ("file", "files")
KINDS = ("npy", "npz", "folder", *KINDS_OF_BYTES)


def is_safe(name: str) -> bool:
    """Whether ``name`` is a relative path that cannot leave its folder, on any system, and can be one here."""
    path = PurePosixPath(name)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return (
        not any(c in name for c in "\0\\:") and not path.is_absolute() and bool(path.parts) and ".." not in path.parts
    )


def safe_name(name: str) -> PurePosixPath:
    """``name`` as a relative path. Raises DamagedArchive where it is not safe."""
    if not is_safe(name):
        raise DamagedArchive(
            f"the archive holds the name {name!r}, which would leave the target folder or can name no file; "
            "nothing was restored"
        )
    return PurePosixPath(name)


def require_apart(names: list[str]) -> None:
    """Raise ValueError where two names are one file, or one would lie inside the other."""
    paths = {safe_name(name) for name in names}
    if len(paths) != len(names) or any(parent in paths for path in paths for parent in path.parents):
        raise ValueError("two names are in each other's way")


def check_note(notes: list[Any], arrays: list[str]) -> None:
    """Raise DamagedArchive unless ``notes`` say how to restore exactly ``arrays``."""
    try:
        named = [name for note in notes for name in note["arrays"]]
        for note in notes:
            kind, count = note["kind"], len(note["arrays"])
            if kind not in KINDS or (kind in ("folder", "files")) != ("files" in note):
                raise ValueError(f"kind {kind!r} is not known")
            if (kind in ("npy", "folder") and count != 1) or (kind in KINDS_OF_BYTES and count < 1):
                raise ValueError(f"{count} arrays, one expected")
            own = list(note["arrays"].values())
            if len(set(own)) != len(own) or b"\0" in b"".join(name.encode() for name in own):
                raise ValueError("names of arrays are not as they should be")
            if not isinstance(note.get("files", []), list):
                raise ValueError("files are not a list")
            require_apart(note.get("files", []))
            if kind in KINDS_OF_BYTES:
                _require_sizes(note)
        require_apart([note["name"] for note in notes])
        if sorted(named) != sorted(arrays):
            raise ValueError("the arrays are not those that are described")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedArchive(f"the archive's note on how to restore it makes no sense ({error})") from error


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder``, of this call alone, that is gone afterwards; so are the folders
    made on the way to it that then hold nothing."""
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    stage = folder / f".vaedensity.{token_hex(8)}.partial"  # known before it is there: an interrupt may come between
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stage.mkdir(mode=0o700)
        except OSError as error:
            raise VaedensityError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # not empty: what was restored
            for path in made:
                path.rmdir()


def targets(notes: list[Any], folder: Path, overwrite: bool) -> list[Path]:
    """What restoring will make; raises UsageError where something exists and must stay."""
    paths = [folder / safe_name(note["name"]) for note in notes]
    for path in paths:
        refuse_existing(path, overwrite)
    return paths


def write_collection(note: dict[str, Any], arrays: dict[str, NDArray[Any]], stage: Path) -> Path:
    """Write one collection under ``stage`` and return its path there."""
    path = stage / safe_name(note["name"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {original: arrays[stored] for stored, original in note["arrays"].items()}
        if note["kind"] == "folder":
            _write_folder(note, next(iter(own.values())), path)
        elif note["kind"] in KINDS_OF_BYTES:
            _write_files(note, arrays, path)
        else:
            with open(path, "wb") as f:
                if note["kind"] == "npz":
                    save_npz(f, own)
                else:
                    save_npy(f, next(iter(own.values())))
    except OSError as error:
        raise VaedensityError(f"cannot write {path.name}: {error.strerror or error}") from error
    return path


def move_into_place(staged: Path, target: Path) -> None:
    """Rename what is finished onto its place, the old one (if any) away first."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        old = staged.with_name(staged.name + ".old")
        if os.path.lexists(target):
            target.rename(old)
        try:
            staged.rename(target)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(target):
                old.rename(target)
            raise
    except OSError as error:
        raise VaedensityError(f"cannot write {target}: {error.strerror or error}") from error


def check_folder(note: dict[str, Any], images: NDArray[Any]) -> None:
    """Raise DamagedArchive unless ``images`` can be written under the names and in the mode of ``note``."""
    from vaedensity.data.folder import MODES, WRITERS

    files, mode = note["files"], note.get("mode")
    if (
        images.dtype != np.uint8
        or images.ndim < 3
        or images.shape[3:] != ((3,) if mode == "RGB" else ())
        or 0 in images.shape
        or len(files) != len(images)
        or mode not in MODES
        or any(Path(f).suffix.lower() not in WRITERS for f in files)
    ):
        raise DamagedArchive("the archive's file names do not fit its images; nothing was restored")


def _write_folder(note: dict[str, Any], images: NDArray[np.uint8], path: Path) -> None:
    from vaedensity.data.folder import save_image

    check_folder(note, images)

    files, mode = note["files"], note["mode"]
    path.mkdir(parents=True)
    for name, pixels in zip(files, images):
        file = path / safe_name(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "xb") as f:
            try:
                save_image(f, np.ascontiguousarray(pixels), mode, file.suffix)
            except (ValueError, TypeError, KeyError, SystemError) as error:
                raise DamagedArchive(f"the archive's image {name} cannot be written ({error})") from error


def check_files(note: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Raise DamagedArchive unless the arrays that ``note`` (of kind "file" or "files") lists hold bytes, and as many
    as its files. ``arrays``: by stored name, others may be among them; any shapes."""
    own = [arrays[stored] for stored in note["arrays"]]
    try:
        require_apart(note.get("files", []))
        _require_sizes(note)
        if other := {str(a.dtype) for a in own if a.dtype != np.uint8}:
            raise ValueError(f"dtype {', '.join(sorted(other))}, expected uint8")
        found, expected = sum(a.size for a in own), sum(note.get("sizes", []))
        if note["kind"] == "files" and found != expected:
            raise ValueError(f"{found} bytes, expected {expected}")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedArchive(
            f"the archive's file names do not fit its bytes ({error}); nothing was restored"
        ) from error


def _require_sizes(note: dict[str, Any]) -> None:
    """Raise ValueError unless a note of kind "files", and no other, has a size for each of its files."""
    if note["kind"] != "files":
        if "sizes" in note:
            raise ValueError("sizes without files")
        return
    files, sizes = note["files"], note.get("sizes")
    if not isinstance(files, list) or not isinstance(sizes, list) or not 0 < len(files) == len(sizes):
        raise ValueError("not one size for each file")
    if any(type(n) is not int or n < 0 for n in sizes):
        raise ValueError("sizes are not whole numbers")


def _write_files(note: dict[str, Any], arrays: dict[str, NDArray[Any]], path: Path) -> None:
    """The bytes of the note's arrays, one after the other, as the file ``path`` or as the files of that folder."""
    check_files(note, arrays)
    parts = [np.ascontiguousarray(arrays[stored]).reshape(-1) for stored in note["arrays"]]
    if note["kind"] == "file":
        with open(path, "xb") as f:
            for part in parts:
                f.write(part.data)
        return
    path.mkdir(parents=True)
    for name, size in zip(note["files"], note["sizes"]):
        file = path / safe_name(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "xb") as f:
            while size:
                part, parts[0] = parts[0][:size], parts[0][size:]
                f.write(part.data)
                size -= len(part)
                if not len(parts[0]):
                    parts.pop(0)
