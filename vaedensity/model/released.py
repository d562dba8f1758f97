"""Where models lie: the released ones that come with the package, and how an archive's model is found by its
SHA-256."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from vaedensity.errors import ModelError

SEARCH_PATH = "VAEDENSITY_MODELS"  # folders, apart by os.pathsep
SUFFIX = ".safetensors"
KEY = "vaedensity"
VERSION = 1
MAX_HEADER_BYTES = 1 << 22


def checkpoint_folder() -> Path:
    """Where the released models lie: inside the installed package, else at the top of a checkout."""
    inside = Path(__file__).parent.parent / "checkpoints"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "checkpoints"


def released() -> dict[str, Path]:
    """Name -> model file."""
    return {path.stem: path for path in sorted(checkpoint_folder().glob(f"*{SUFFIX}"))}


def resolve(name_or_path: str) -> Path:
    """The file of a model given by path or by released name. Raises ModelError."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = released()
    if name_or_path in known:
        return known[name_or_path]
    raise ModelError(f"model {name_or_path!r}: no such file, and the released models are {', '.join(known) or 'none'}")


def search(sha256: str, name: str, archive: Path, folder: Path | None = None) -> Iterator[Path]:
    """Model files that say that they are the one with this SHA-256; only headers are read, so the caller checks.

    In order: those in ``folder``, in the folders of VAEDENSITY_MODELS, in that of ``archive``, and the released ones.
    """
    folders = [Path(part) for part in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if part]
    places = [*([] if folder is None else [folder]), *folders, archive.parent, checkpoint_folder()]
    for path in (path for place in places for path in _named_first(place, name)):
        with suppress(ModelError):
            if record_of(path).get("sha256") == sha256:
                yield path


def _named_first(folder: Path, name: str) -> list[Path]:
    files = [path for path in folder.glob(f"*{SUFFIX}") if path.is_file()]
    return sorted(files, key=lambda path: (path.stem != name, path))


def not_found(archive: Path, sha256: str, name: str, folder: Path | None = None) -> ModelError:
    """The error where :func:`search` has found nothing."""
    places = [*([] if folder is None else [str(folder)]), f"the folders of {SEARCH_PATH}", "the archive's own folder"]
    return ModelError(
        f"{archive}: needs the model {said(sha256, name)}, which is neither in {', '.join(places)} nor a released one; "
        "get its file from whoever wrote the archive, and put it beside the archive, or pass model=FILE"
    )


def said(sha256: str, name: str) -> str:
    """A model's name and SHA-256 in messages."""
    return f"{name} (sha256 {sha256[:16]}...)"


def not_readable(record: dict[str, Any]) -> str | None:
    """Why a model file with this record cannot be read here, None where it can."""
    if "format" in record:
        return f"model format {record['format']!r:.40} was never released; fit the model anew"
    if record.get("version") != VERSION:
        return f"model version {record.get('version')!r:.40} is not known, expected {VERSION}; update vaedensity"
    return None


def record_of(path: Path) -> dict[str, Any]:
    """The JSON record of a model file, without importing torch or reading its tensors. Raises ModelError."""
    try:
        with open(path, "rb") as f:
            return read_record(f)
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: not a vaedensity model ({error})") from error


def read_record(f: BinaryIO) -> dict[str, Any]:
    """What a model file says of itself. Raises ValueError."""
    head = f.read(8)
    size = int.from_bytes(head, "little")
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes, {MAX_HEADER_BYTES} at most")
    header = f.read(size)
    if len(head) < 8 or len(header) < size:
        raise ValueError("it is cut off within its header")
    try:
        record = json.loads(json.loads(header)["__metadata__"][KEY])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("it holds no record of one, or one nested too deep") from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise ValueError("its record has no configuration")
    return record
