"""What an archive may cost before any of it is allocated: files that claim too much are refused."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vaedensity.archive.reader import Archive
from vaedensity.archive.stored_array import StoredArray
from vaedensity.errors import UsageError, VaedensityError
from vaedensity.machine import usable_memory

FREE_OUTPUT, USUAL_RATIO = 1 << 30, 2000
COPIES = 3  # of a block's bytes that are in memory while it is decoded


@dataclass(frozen=True)
class Limits:
    """``max_output``: bytes that all arrays may take, by default 1 GiB or 2000 times the archive, whichever is more;
    ``memory``: bytes that decoding may take, by default three quarters of the machine's or container's."""

    max_output: int | None = None
    memory: int | None = None

    def check(self, archive: Archive, folder: Path | None = None) -> None:
        """Raise UsageError where ``archive`` is beyond the limits, VaedensityError where ``folder`` has no room for it. Without a
        folder, arrays are decoded in memory."""
        output = sum(array.nbytes for array in archive.arrays)
        self.check_sizes(
            archive.path, output, _largest_block(archive, archive.arrays), folder, in_memory=folder is None
        )

    def check_memory(self, archive: Archive, arrays: Iterable[StoredArray]) -> None:
        """Raise UsageError where a block of ``arrays`` takes more memory to decode than there may be."""
        self.check_block(archive.path, _largest_block(archive, arrays))

    def check_sizes(self, path: Path, output: int, block: int, folder: Path | None, *, in_memory: bool) -> None:
        """As :meth:`check`, whatever reads the archive ``path``, of which all arrays take ``output`` bytes and the largest block
        ``block``. ``in_memory``: whether the arrays are kept there."""
        size = path.stat().st_size
        most = _usual_output(path) if self.max_output is None else self.max_output
        if output > most:
            raise UsageError(
                f"{path}: {size} bytes would become {output}, the limit is {most}; if you trust the archive, "
                f"pass max_output={output}"
            )
        self.check_block(path, block, output if in_memory else 0)
        if folder is not None:
            there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
            if (free := shutil.disk_usage(there).free) < output:
                raise VaedensityError(f"{there}: {free} bytes are free, {path} needs {output}; make room")

    def check_block(self, path: Path, block: int, besides: int = 0) -> None:
        """Raise UsageError where a block of so many bytes takes more memory to decode than there may be, ``besides`` these."""
        memory = usable_memory() if self.memory is None else self.memory
        needed = COPIES * block + besides
        if needed > memory:
            raise UsageError(
                f"{path}: decoding takes {needed} bytes of memory, the limit is {memory}; if the machine has more, "
                f"pass memory={needed}"
            )


def _largest_block(archive: Archive, arrays: Iterable[StoredArray]) -> int:
    """Bytes that the items of a block of ``arrays`` take at most."""
    return max((archive.blocks[k].items * array.row_bytes for array in arrays for k in array.blocks), default=0)


def usual_output(archive: Archive) -> int:
    """Bytes that what is in ``archive`` may take unless told otherwise."""
    return _usual_output(archive.path)


def _usual_output(path: Path) -> int:
    return max(FREE_OUTPUT, USUAL_RATIO * path.stat().st_size)
