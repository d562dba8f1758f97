"""The released checkpoints that come with the package."""

import json
from pathlib import Path
from typing import Any

from vaedensity.errors import ModelError


def checkpoint_folder() -> Path:
    """Where the released models lie: inside the installed package, else at the top of a checkout."""
    inside = Path(__file__).parent.parent / "checkpoints"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "checkpoints"


def released() -> dict[str, Path]:
    """Name -> model file."""
    return {path.stem: path for path in sorted(checkpoint_folder().glob("*.safetensors"))}


def resolve(name_or_path: str) -> Path:
    """The file of a model given by path or by released name. Raises ModelError."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = released()
    if name_or_path in known:
        return known[name_or_path]
    raise ModelError(f"model {name_or_path!r}: no such file, and the released models are {', '.join(known) or 'none'}")


def record_of(path: Path) -> dict[str, Any]:
    """The JSON record of a model file, without importing torch or reading its tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as f:
            record = json.loads((f.metadata() or {})["vaedensity"])
            assert isinstance(record, dict)
            return record
    except (SafetensorError, KeyError, ValueError, TypeError, AssertionError, OSError, RecursionError) as error:
        raise ModelError(f"{path}: not a vaedensity model ({type(error).__name__})") from error
