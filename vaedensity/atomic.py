"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vaedensity.errors import UsageError, VaedensityError


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise UsageError where ``path`` exists and must not be replaced. Devices and pipes never are."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is a device or pipe; expected the name of a file to make")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path} exists; choose another name or pass -f to replace it")


@contextmanager
def atomic_file(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A new file beside ``path`` that takes its name when the block ends well, and vanishes otherwise."""
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "w+b") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            try:
                os.link(temporary, path)  # unlike rename, fails where another writer was faster
            except FileExistsError:
                refuse_existing(path, overwrite)
            except OSError:
                os.replace(temporary, path)  # a file system without hard links
    except OSError as error:
        raise VaedensityError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # not a platform that opens folders
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
