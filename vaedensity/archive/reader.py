"""A .vdz file open for reading: all that it says of itself checked, blocks read one at a time."""

import os
import threading
from pathlib import Path
from types import TracebackType

from vaedensity.archive.block import Block, Kind
from vaedensity.archive.container import SENSELESS, payload_of, read_contents
from vaedensity.archive.record import StoredArray, check_record
from vaedensity.coding.plan import LONGEST_CHAIN
from vaedensity.errors import DamagedArchive, UsageError


class ArchiveFile:
    """An open archive; a context manager.

    Attributes
    ----------
    arrays : list of StoredArray
        All that is inside; ``model_array`` is the one of them that holds the model, if one does, ``contents`` all
        others.
    restore : list
        Restore metadata, one object a file or folder; not yet checked.
    model : NamedModel or None
        The model that decoding needs.
    blocks, digests, archive_id
        As of :class:`~vaedensity.archive.block.Contents`.

    Raises
    ------
    UsageError
        The file cannot be read.
    DamagedArchive
        It is no archive, is damaged, or makes no sense.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.file = open(self.path, "rb")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        self._lock = threading.Lock()
        try:
            self._describe()
        except SENSELESS as error:
            self.file.close()
            raise DamagedArchive(f"{self.path}: the header and the index make no sense ({error})") from error
        except BaseException:
            self.file.close()
            raise

    def _describe(self) -> None:
        found = read_contents(self.file, str(self.path))
        self.record, self.blocks, self.digests = found.record, found.blocks, found.digests
        self.blocks_begin, self.archive_id = found.blocks_begin, found.archive_id
        checked = check_record(self.record)
        self.arrays, self.restore, self.model_array = checked.arrays, checked.restore, checked.model_array
        self.contents = [array for array in self.arrays if array is not self.model_array]
        self.particles = checked.model.particles if checked.model else 1
        for place, block in enumerate(self.blocks):
            array = self.arrays[block.array]
            array.blocks.append(place)
            _check_block(array, block, checked.model is not None, self.particles)
        for array in self.arrays:
            if sum(self.blocks[k].items for k in array.blocks) != (array.rows if array.nbytes else 0):
                raise ValueError(f"array {array.name}: its blocks do not add up to its items")
        needed = any(block.codec.by_model for block in self.blocks)
        self.model = checked.model if needed else None

    def __enter__(self) -> "ArchiveFile":
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

    def payload(self, place: int) -> tuple[bytes, int]:
        """(payload of a block, CRC-32 of its items). Raises DamagedArchive."""
        block = self.blocks[place]
        which = f"{self.path}: block {place} of {len(self.blocks)}"
        if block.codec.kind == Kind.LOST:
            raise DamagedArchive(f"{which} was lost before the archive was repaired; keep going to restore the others")
        try:
            return payload_of(block, self._read_at(block.begin, block.size), self.archive_id)
        except ValueError as error:
            raise DamagedArchive(
                f"{which} is damaged ({error}); get the file again, or keep going to restore the other blocks"
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


def _check_block(array: StoredArray, block: Block, model: bool, particles: int) -> None:
    """Raise ValueError where ``block`` cannot be one of ``array``. ``model``: whether the record names one."""
    if not array.nbytes:
        raise ValueError(f"array {array.name}: a block of nothing")
    if block.items < 1:
        raise ValueError(f"array {array.name}: a block of no items")
    if block.codec.kind == Kind.LZMA_PLANES and array.dtype.itemsize < 2:
        raise ValueError(f"array {array.name}: byte planes of elements of one byte")
    if block.codec.by_model and (
        not array.item_shape
        or not model
        or block.items > LONGEST_CHAIN
        or block.codec.coupled != (particles > 1)
        or (block.codec.kind == Kind.SERIES) != (array.layout == "NT")
    ):
        raise ValueError(f"array {array.name}: a block says it needs a model that cannot fit")
