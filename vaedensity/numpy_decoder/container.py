"""An open archive before its blocks are decoded: the version in its head decides how it is laid out (section 16)."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from vaedensity.errors import DamagedArchive
from vaedensity.numpy_decoder.early import read_early
from vaedensity.numpy_decoder.frames import OPENING, get_frame, read_framed
from vaedensity.numpy_decoder.layout import FRAMED, HEAD, MAGIC, TAIL
from vaedensity.numpy_decoder.record import WRONG, Block, Entry, Record

NEWEST = 5


class Directory:
    """All that an open archive says of itself before a block is read. Raises DamagedArchive.

    ``arrays``, ``blocks``, ``meta``, ``model``, ``particles``, ``inside``: as of ``Record``. ``digests``: as of
    ``Layout``. ``restored``: the arrays that were packed, those but the model's.
    """

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path
        self.version, size = self._head()
        framed = self.version >= FRAMED
        try:
            layout = (read_framed if framed else read_early)(file, path, size, self.version)
            record = Record(layout, self.version)
        except WRONG as error:
            where = "the opening or the closing" if framed else "the directory"
            raise DamagedArchive(f"{path}: {where} makes no sense ({error})") from error
        self.digests, self.meta, self.model, self.particles = (
            layout.digests,
            record.meta,
            record.model,
            record.particles,
        )
        self.stamp = layout.stamp
        self.arrays, self.blocks, self.inside = record.arrays, record.blocks, record.inside
        self.restored = [array for array in self.arrays if array is not self.inside]

    @property
    def nbytes(self) -> int:
        """Of all arrays, decoded."""
        return sum(array.nbytes for array in self.arrays)

    def largest_block(self, arrays: Iterable[Entry] | None = None) -> int:
        """Bytes that the items of a block of ``arrays``, or of any, take at most."""
        arrays = self.arrays if arrays is None else arrays
        return max((block.items * array.row_bytes for array in arrays for block in array.blocks), default=0)

    def _head(self) -> tuple[int, int]:
        """(version, bytes of the file)."""
        size = self.file.seek(0, 2)
        few = f"{self.path}: {size} bytes are too few for a .vdz archive; it is cut off or another file"
        if size < HEAD + TAIL:
            raise DamagedArchive(few)
        self.file.seek(0)
        head = self.file.read(HEAD)
        version, zero = struct.unpack("<HH", head[8:])
        if head[:8] != MAGIC:
            raise DamagedArchive(
                f"{self.path}: not a .vdz archive (it begins with {head[:8].hex()}, not {MAGIC.hex()})"
            )
        if not 1 <= version <= NEWEST or zero:
            raise DamagedArchive(
                f"{self.path}: format version {version}.{zero}, expected 1.0 to {NEWEST}.0; update vaedensity"
            )
        if version >= FRAMED and size < OPENING + TAIL:
            raise DamagedArchive(few)
        return version, size

    def payload(self, block: Block) -> tuple[bytes, int | None]:
        """(what the coder of a block made, its CRC-32 checked; the CRC-32 that its items must have, if known)."""
        self.file.seek(block.begin)
        data = self.file.read(block.length)
        try:
            if len(data) != block.length:
                raise ValueError("it is cut off")
            if block.checksum is not None:
                payload, checksum, items_checksum = data, block.checksum, None
            else:
                frame = get_frame(data, self.stamp)
                payload, checksum, items_checksum = data[frame.size :], frame.checksum, frame.items_checksum
                said = (frame.array, frame.first, frame.items, frame.coder, frame.length)
                if said != (block.array, block.first, block.items, block.coder, len(payload)):
                    raise ValueError("its frame is not the one that the closing describes")
            if zlib.crc32(payload, zlib.crc32(self.stamp)) != checksum:
                raise ValueError("its checksum does not match")
        except ValueError as error:
            raise DamagedArchive(
                f"{self.path}: block {block.index} of {len(self.blocks)} is damaged ({error}); get the file again, "
                "or keep going to restore the other blocks"
            ) from error
        return payload, items_checksum
