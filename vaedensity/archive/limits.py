"""What an archive may cost before any of it is allocated: files that claim too much are refused."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.record import StoredArray
from vaedensity.errors import UsageError, VaedensityError
from vaedensity.machine import usable_memory

FREE_OUTPUT, USUAL_RATIO = 1 << 30, 2000
COPIES = 3  # of a block's bytes that are in memory while it is decoded


@dataclass(frozen=True)
class Limits:
    """What decoding an archive may cost.

    Parameters
    ----------
    max_output : int, optional
        Bytes that all arrays may take. By default 1 GiB or 2000 times the archive, whichever is more.
    memory : int, optional
        Bytes of memory that decoding may take. By default three quarters of the machine's or container's.

    Examples
    --------
    >>> Limits(max_output=10 << 20)
    Limits(max_output=10485760, memory=None)
    """

    max_output: int | None = None
    memory: int | None = None

    def check(self, archive: ArchiveFile, folder: Path | None = None) -> None:
        """Raise UsageError where ``archive`` is beyond the limits, VaedensityError where ``folder`` has no room for it.

        Without a folder, arrays are decoded in memory.
        """
        path, output = archive.path, sum(array.nbytes for array in archive.arrays)
        most = usual_output(path) if self.max_output is None else self.max_output
        if output > most:
            raise UsageError(
                f"{path}: {path.stat().st_size} bytes would become {output}, the limit is {most}; if you trust the "
                f"archive, pass max_output={output}"
            )
        self._check_memory(archive, archive.arrays, output if folder is None else 0)
        if folder is not None:
            there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
            if (free := shutil.disk_usage(there).free) < output:
                raise VaedensityError(f"{there}: {free} bytes are free, {path} needs {output}; make room")

    def check_memory(self, archive: ArchiveFile, arrays: Iterable[StoredArray]) -> None:
        """Raise UsageError where a block of ``arrays`` takes more memory to decode than there may be."""
        self._check_memory(archive, arrays, 0)

    def _check_memory(self, archive: ArchiveFile, arrays: Iterable[StoredArray], besides: int) -> None:
        block = max((archive.blocks[k].items * array.row_bytes for array in arrays for k in array.blocks), default=0)
        memory = usable_memory() if self.memory is None else self.memory
        needed = COPIES * block + besides
        if needed > memory:
            raise UsageError(
                f"{archive.path}: decoding takes {needed} bytes of memory, the limit is {memory}; if the machine has "
                f"more, pass memory={needed}"
            )


def usual_output(path: Path) -> int:
    """Bytes that what is in the archive ``path`` may take unless told otherwise."""
    return max(FREE_OUTPUT, USUAL_RATIO * path.stat().st_size)
