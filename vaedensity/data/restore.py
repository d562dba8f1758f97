"""From decoded arrays and a note back to files, under names that stay inside the target folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.atomic import refuse_existing
from vaedensity.data.files import save_npz
from vaedensity.errors import DamagedArchive, VaedensityError


def safe_name(name: str) -> PurePosixPath:
    """``name`` as a relative path that cannot leave its folder. Raises DamagedArchive."""
    path = PurePosixPath(name)
    if (
        not name
        or "\0" in name
        or "\\" in name
        or path.is_absolute()
        or not path.parts
        or any(p in ("..", ".") or ":" in p for p in path.parts)
    ):
        raise DamagedArchive(
            f"the archive holds the name {name!r}, which would leave the target folder; nothing was restored"
        )
    return path


def check_note(notes: list[Any], arrays: list[str]) -> None:
    """Raise DamagedArchive unless ``notes`` say how to restore exactly ``arrays``."""
    try:
        named = [name for note in notes for name in note["arrays"]]
        for note in notes:
            safe_name(note["name"])
            if note["kind"] not in ("npy", "npz", "folder") or (note["kind"] == "folder") != ("files" in note):
                raise ValueError(f"kind {note['kind']!r} is not known")
            if note["kind"] != "npz" and len(note["arrays"]) != 1:
                raise ValueError("one array expected")
            for file in note.get("files", []):
                safe_name(file)
        if sorted(named) != sorted(arrays) or len({note["name"] for note in notes}) != len(notes):
            raise ValueError("the arrays are not those that are described")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedArchive(f"the archive's note on how to restore it makes no sense ({error})") from error


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder`` that is gone afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = folder / ".vaedensity.partial"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
    except OSError as error:
        raise VaedensityError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


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
                    np.lib.format.write_array(f, next(iter(own.values())), allow_pickle=False)
    except OSError as error:
        raise VaedensityError(f"cannot write {path.name}: {error.strerror or error}") from error
    return path


def move_into_place(staged: Path, target: Path) -> None:
    """Rename what is finished onto its place, the old one (if any) away first."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not target.is_symlink():
            old = staged.with_name(staged.name + ".old")
            target.rename(old)
        staged.rename(target) if staged.is_dir() else staged.replace(target)
    except OSError as error:
        raise VaedensityError(f"cannot write {target}: {error.strerror or error}") from error


def _write_folder(note: dict[str, Any], images: NDArray[np.uint8], path: Path) -> None:
    from vaedensity.data.folder import MODES, WRITERS, save_image

    files, mode = note["files"], note.get("mode")
    if len(files) != len(images) or mode not in MODES or any(Path(f).suffix.lower() not in WRITERS for f in files):
        raise DamagedArchive("the archive's file names do not fit its images; nothing was restored")
    path.mkdir(parents=True)
    for name, pixels in zip(files, images):
        file = path / safe_name(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "xb") as f:
            save_image(f, np.ascontiguousarray(pixels), mode, file.suffix)
