"""A .vdz file open for reading: every statement of its record checked, blocks read one at a time."""

import os
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from vaedensity.archive.block import (
    COUPLED_CODERS,
    LONGEST_CHAIN,
    LOST,
    MODEL_CODERS,
    MOST_PARTICLES,
    SERIES_CODER,
    Block,
    Directory,
)
from vaedensity.archive.container import payload_of, read_directory
from vaedensity.archive.stored_array import StoredArray
from vaedensity.archive.streams import described
from vaedensity.errors import DamagedArchive, UsageError

SERIES_SINCE, FRAMED_SINCE = 4, 5
MODEL_DTYPE = "<i2"
PROBE = re.compile("[0-9a-f]{16}")


class Archive:
    """An open archive; a context manager.

    ``arrays`` describes what is inside, ``model_array`` the one of them that holds the model, if any does; ``contents``: all
    others. ``meta`` is what the writer said of them, ``model`` is None or the {"sha256", "name"} of the model that decoding
    needs. ``blocks`` in file order; ``digests`` as in Directory. Raises UsageError, DamagedArchive.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.file = open(self.path, "rb")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        self._lock = threading.Lock()
        try:
            self._describe(read_directory(self.file, str(self.path)))
        except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
            self.file.close()
            raise DamagedArchive(f"{self.path}: the directory makes no sense ({error})") from error
        except BaseException:
            self.file.close()
            raise

    def _describe(self, directory: Directory) -> None:
        record, self.version, self.digests = directory.record, directory.version, directory.digests
        self.record, self.blocks, self.stamp = record, directory.blocks, directory.stamp
        self.blocks_begin = directory.blocks_begin
        self.arrays, self.model_array, self.particles = check_record(record, self.version)
        self.contents = [array for array in self.arrays if array is not self.model_array]
        self.meta: dict[str, Any] = record["meta"]
        for index, block in enumerate(self.blocks):
            self.arrays[block.array].blocks.append(index)
            check_block(self.arrays[block.array], block, self)
        for array in self.arrays:
            if sum(self.blocks[k].items for k in array.blocks) != (array.rows if array.nbytes else 0):
                raise ValueError(f"array {array.name}: its blocks do not add up to its items")
        needed = any(block.coder in MODEL_CODERS for block in self.blocks)
        self.model: dict[str, str] | None = record["model"] if needed else None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def array(self, name: str) -> StoredArray:
        """The array of that name, to be read by its items. Raises UsageError."""
        for array in self.contents:
            if array.name == name and array.shape:
                return array
        held = ", ".join(a.name for a in self.contents if a.shape)
        raise UsageError(f"{self.path}: no array {name!r} of items; it holds {held or 'none'}")

    def payload(self, index: int) -> tuple[bytes, int | None]:
        """(payload of a block, CRC-32 of its items where the archive has it). Raises DamagedArchive."""
        block = self.blocks[index]
        if block.coder == LOST:
            raise DamagedArchive(
                f"{self.path}: block {index} of {len(self.blocks)} was lost before the archive was repaired; "
                "keep going to restore the others"
            )
        try:
            return payload_of(block, self._read_at(block.begin, block.size), self.stamp)
        except ValueError as error:
            raise DamagedArchive(
                f"{self.path}: block {index} of {len(self.blocks)} is damaged ({error}); get the file again, "
                "or keep going to restore the other blocks"
            ) from error

    def _read_at(self, begin: int, size: int) -> bytes:
        """So many bytes of the file, fewer at its end, wherever other threads and processes are reading."""
        parts = []
        while size > 0:
            if hasattr(os, "pread"):
                part = os.pread(self.file.fileno(), size, begin)
            else:
                with self._lock:
                    self.file.seek(begin)
                    part = self.file.read(size)
            if not part:
                break
            parts.append(part)
            begin, size = begin + len(part), size - len(part)
        return b"".join(parts)


def check_record(record: dict[str, Any], version: int) -> tuple[list[StoredArray], StoredArray | None, int]:
    """(arrays, the one that holds the model, particles) of a record. Raises ValueError, KeyError or TypeError."""
    arrays = [StoredArray(entry) for entry in described(record)]
    if version < SERIES_SINCE and any(array.layout == "NT" for array in arrays):
        raise ValueError(f"series in format version {version}")
    named = {array.name: array for array in arrays}
    if not isinstance(record.get("meta"), dict) or len(named) != len(arrays):
        raise ValueError("meta or names are not as they should be")
    model = record.get("model")
    if model is None:
        return arrays, None, 1
    if not isinstance(model, dict) or not all(isinstance(model.get(key), str) for key in ("sha256", "name")):
        raise ValueError("the model is not named")
    particles = model.get("particles", 1)
    if type(particles) is not int or not 1 <= particles <= MOST_PARTICLES:
        raise ValueError(f"{particles} particles, expected 1 to {MOST_PARTICLES}")
    if "probe" in model and not (isinstance(model["probe"], str) and PROBE.fullmatch(model["probe"])):
        raise ValueError("the probe is not 16 hexadecimal digits")
    if version < FRAMED_SINCE or "array" not in model:
        return arrays, None, particles
    inside = named.get(model["array"]) if isinstance(model["array"], str) else None
    if inside is None:
        raise ValueError("the model is in an array that is not described")
    if inside.dtype.str != MODEL_DTYPE or len(inside.shape) != 1 or inside.layout is not None:
        raise ValueError(f"array {inside.name} cannot hold a model")
    return arrays, inside, particles


def check_block(array: StoredArray, block: Block, archive: Archive) -> None:
    """Raise ValueError where ``block`` cannot be one of ``array``."""
    if not array.nbytes:
        raise ValueError(f"array {array.name}: a block of nothing")
    if block.items < 1 and archive.version >= FRAMED_SINCE:
        raise ValueError(f"array {array.name}: a block of no items")
    if block.coder in MODEL_CODERS and (
        not array.item_shape
        or archive.record.get("model") is None
        or not 0 < block.items <= LONGEST_CHAIN
        or (block.coder in COUPLED_CODERS) != (archive.particles > 1)
        or (block.coder == SERIES_CODER) != (array.layout == "NT")
    ):
        raise ValueError(f"array {array.name}: a block says it needs a model that cannot fit")
