"""What the tests of rejections share: exit statuses, types of the fixtures, and small data."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Done = Callable[..., dict[str, Any]]
Refused = Callable[..., str]
FAILURE, USAGE, DAMAGED, MODEL, INTERRUPTED = 1, 2, 3, 4, 130
COMMAND = [sys.executable, "-m", "vaedensity.cli.main"]
NO_TRAINING = ("--preset", "tiny", "--steps", "1", "--device", "cpu")


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def refuse_data(refused: Refused, model: Path, folder: Path, spec: object, *commands: str) -> list[str]:
    """What fit, score and compress each say of data they must refuse."""
    lines = {
        "fit": ("fit", spec, "-o", folder / "new.safetensors", *NO_TRAINING),
        "score": ("score", model, spec, "-o", folder / "new.csv"),
        "compress": ("compress", spec, "-o", folder / "new.vdz", "-m", model),
    }
    return [refused(USAGE, *lines[command]) for command in commands or lines]
