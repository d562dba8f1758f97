"""From decoded arrays and a note back to files, under names that stay inside the target folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.atomic import refuse_existing
from vaedensity.data.files import save_npy, save_npz
from vaedensity.errors import DamagedArchive, VaedensityError


def is_safe(name: str) -> bool:
    """Whether ``name`` is a relative path that cannot leave its folder, on any system."""
    path = PurePosixPath(name)
    return (
        not any(c in name for c in "\0\\:") and not path.is_absolute() and bool(path.parts) and ".." not in path.parts
    )


def safe_name(name: str) -> PurePosixPath:
    """``name`` as a relative path. Raises DamagedArchive where it is not safe."""
    if not is_safe(name):
        raise DamagedArchive(
            f"the archive holds the name {name!r}, which would leave the target folder; nothing was restored"
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
            if note["kind"] not in ("npy", "npz", "folder") or (note["kind"] == "folder") != ("files" in note):
                raise ValueError(f"kind {note['kind']!r} is not known")
            if note["kind"] != "npz" and len(note["arrays"]) != 1:
                raise ValueError("one array expected")
            own = list(note["arrays"].values())
            if len(set(own)) != len(own) or b"\0" in b"".join(name.encode() for name in own):
                raise ValueError("names of arrays are not as they should be")
            if not isinstance(note.get("files", []), list):
                raise ValueError("files are not a list")
            require_apart(note.get("files", []))
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
    stage = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stage = Path(tempfile.mkdtemp(prefix=".vaedensity.", suffix=".partial", dir=folder))
        except OSError as error:
            raise VaedensityError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield stage
    finally:
        if stage is not None:
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
