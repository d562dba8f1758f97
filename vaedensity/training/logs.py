"""Where the numbers of a run go: JSON lines beside the model, TensorBoard where it is installed."""

from pathlib import Path
from typing import IO, Any

from vaedensity.units import json_line


class JSONLines:
    """Appends every ``every``-th record, the first, and all that carry a validation rate or an event."""

    def __init__(self, path: Path, every: int = 20, *, append: bool = False):
        self.every, self.path, self.mode = every, path, "a" if append else "w"
        self.file: IO[str] | None = None  # opened with the first record: a run that is refused leaves no file

    def __call__(self, record: dict[str, Any]) -> None:
        telling = "event" in record or "valid_bits_per_dim" in record or self.file is None
        if telling or record["step"] % self.every == 0:
            if self.file is None:
                self.file = open(self.path, self.mode, encoding="utf-8")
            self.file.write(json_line(record) + "\n")
            self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class TensorBoard:
    """Writes scalars for TensorBoard; raises ImportError where it is not installed."""

    def __init__(self, folder: Path, every: int = 20):
        from torch.utils.tensorboard import SummaryWriter

        self.every, self.writer = every, SummaryWriter(str(folder))

    def __call__(self, record: dict[str, Any]) -> None:
        if record["step"] % self.every == 0 or "valid_bits_per_dim" in record:
            for name, value in record.items():
                if isinstance(value, float):
                    self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.writer.close()
