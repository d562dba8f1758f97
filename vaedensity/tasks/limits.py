"""What an archive may cost before any of it is allocated: files that claim too much are refused."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vaedensity.coding.reader import Archive
from vaedensity.coding.stored_array import StoredArray
from vaedensity.errors import UsageError, VaedensityError

FREE_OUTPUT, USUAL_RATIO = 1 << 30, 2000
MEMORY_SHARE = 0.75
COPIES = 3  # of a block's bytes that are in memory while it is decoded


@dataclass(frozen=True)
class Limits:
    """``max_output``: bytes that all arrays may take, by default 1 GiB or 2000 times the archive, whichever is more;
    ``memory``: bytes that decoding may take, by default three quarters of the machine's."""

    max_output: int | None = None
    memory: int | None = None

    def check(self, archive: Archive, folder: Path | None = None) -> None:
        """Raise UsageError where ``archive`` is beyond the limits, VaedensityError where ``folder`` has no room for it. Without a
        folder, arrays are decoded in memory."""
        size, output = archive.path.stat().st_size, sum(array.nbytes for array in archive.arrays)
        most = usual_output(archive) if self.max_output is None else self.max_output
        if output > most:
            raise UsageError(
                f"{archive.path}: {size} bytes would become {output}, the limit is {most}; if you trust the archive, "
                f"pass --max-output {output}"
            )
        self.check_memory(archive, archive.arrays, output if folder is None else 0)
        if folder is not None:
            there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
            if (free := shutil.disk_usage(there).free) < output:
                raise VaedensityError(f"{there}: {free} bytes are free, {archive.path} needs {output}; make room")

    def check_memory(self, archive: Archive, arrays: Iterable[StoredArray], besides: int = 0) -> None:
        """Raise UsageError where a block of ``arrays`` takes more memory to decode than there may be, ``besides`` these bytes."""
        memory = usable_memory() if self.memory is None else self.memory
        blocks = (archive.blocks[k].items * array.row_bytes for array in arrays for k in array.blocks)
        needed = COPIES * max(blocks, default=0) + besides
        if needed > memory:
            raise UsageError(
                f"{archive.path}: decoding takes {needed} bytes of memory, the limit is {memory}; if the machine has more, "
                f"pass --memory {needed}"
            )


def usual_output(archive: Archive) -> int:
    """Bytes that what is in ``archive`` may take unless told otherwise."""
    return max(FREE_OUTPUT, USUAL_RATIO * archive.path.stat().st_size)


def usable_memory() -> int:
    """Bytes that decoding may take unless told otherwise."""
    try:
        return int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return 4 << 30
