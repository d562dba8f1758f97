"""Restore archives, or check them. Needs no torch with the numpy engine."""

import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from numpy.typing import NDArray

from vaedensity.api.models import model_for
from vaedensity.archive.decoding import Lost, read_arrays
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import ArchiveFile
from vaedensity.coding.plan import Tick, silent
from vaedensity.data import restore
from vaedensity.data.disk_array import DiskArrays
from vaedensity.data.restore_metadata import check_restore_metadata
from vaedensity.data.staging import staging
from vaedensity.errors import naming


@dataclass(frozen=True)
class Decoded:
    """What was decoded: items, bytes of the archive and of the arrays, the model's name."""

    archive: str
    items: int
    bytes_in: int
    bytes_out: int
    model: str | None


@dataclass(frozen=True)
class Tested(Decoded):
    """An archive that is as it should be."""

    ok: bool
    seconds: float


@dataclass(frozen=True)
class Unpacked(Decoded):
    """What was restored.

    ``restored``: paths; ``remarks``: what a file system could not hold; ``lost``: ranges of items that could not be
    decoded; ``left_out``: files that are therefore not restored; ``items_lost``: how many of the items.
    """

    restored: list[str]
    remarks: list[str]
    seconds: float
    lost: list[Lost] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    items_lost: int = 0


def decompress(
    path: str | Path,
    *,
    model: str | Path | None = None,
    models: str | Path | None = None,
    engine: str = "torch",
    limits: Limits = Limits(),
    threads: int | None = None,
) -> dict[str, NDArray[Any]]:
    """All arrays of an archive, in memory.

    Parameters
    ----------
    path : str or Path
        The archive.
    model : str or Path, optional
        A model file or released name, where the archive's model is neither inside nor a released one.
    models : str or Path, optional
        A folder in which to find the model by its SHA-256.
    engine : {"torch", "numpy"}
        What decodes; the result is the same.
    limits : Limits
        What decoding may cost.
    threads : int, optional
        How many to use; None: as many as are worth while here now.

    Returns
    -------
    dict of str to ndarray
        The arrays by name, the same to the bit as those that were compressed, checked against their SHA-256.

    Raises
    ------
    DamagedArchive, ModelError, UsageError, VaedensityError

    Examples
    --------
    >>> import numpy as np, tempfile, vaedensity as vd
    >>> path = tempfile.mkdtemp() + "/x.vdz"
    >>> _ = vd.compress({"x": np.arange(5)}, path)
    >>> vd.decompress(path)
    {'x': array([0, 1, 2, 3, 4])}
    """
    with ArchiveFile(path) as archive:
        limits.check(archive)
        return read_arrays(archive, model_for(archive, models if model is None else model, engine), threads=threads)


def unpack(
    path: Path,
    folder: Path,
    model: str | Path | None = None,
    *,
    engine: str = "torch",
    overwrite: bool = False,
    threads: int | None = None,
    lockstep: int | None = None,
    keep_going: bool = False,
    links: str = "inside",
    limits: Limits = Limits(),
    progress: Tick = silent,
) -> Unpacked:
    """Restore all files and folders of an archive in ``folder``; nothing appears there before all of it is checked.

    Parameters
    ----------
    path, folder : Path
    model : str or Path, optional
        A model file, released name, or folder to find the model in.
    engine, threads, limits
        As of :func:`decompress`.
    overwrite : bool
        Whether what is there is replaced.
    lockstep : int, optional
        Chains that share a batch; the result is the same.
    keep_going : bool
        What damaged blocks held is left out (files of a folder) or zeros (items of an array), instead of an error.
    links : {"inside", "any", "none"}
        Links that lead out of their folder: refused; made; no links at all.
    progress : callable
        Hears how many items are done.

    Returns
    -------
    Unpacked

    Raises
    ------
    DamagedArchive, ModelError, UsageError, VaedensityError
    """
    started = time.monotonic()
    with ArchiveFile(path) as archive:
        metas = checked_metadata(archive)
        goals = restore.targets(metas, folder, overwrite, links)
        limits.check(archive, folder)
        decoder = model_for(archive, model, engine)
        lost, left_out, remarks = list[Lost](), list[str](), list[str]()
        with staging(folder) as stage, DiskArrays(stage / token_hex(8)) as disk:
            arrays = read_arrays(
                archive,
                decoder,
                allocate=disk,
                threads=threads,
                lockstep=lockstep,
                lost=lost if keep_going else None,
                progress=progress,
            )
            holes = defaultdict[str, list[tuple[int, int]]](list)
            for one in lost:
                holes[one.array].append((one.first, one.end))
            with naming(archive.path):
                staged = [
                    restore.write_collection(meta, arrays, stage, holes, left_out, links=links, remarks=remarks)
                    for meta in metas
                ]
            restore.place(metas, staged, goals, overwrite)
        return Unpacked(
            **_decoded(archive),
            restored=[str(goal) for goal in goals],
            remarks=remarks,
            seconds=time.monotonic() - started,
            lost=lost,
            left_out=left_out,
            items_lost=restore.count_lost(metas, holes, left_out),
        )


def test(
    path: Path,
    model: str | Path | None = None,
    *,
    engine: str = "torch",
    threads: int | None = None,
    limits: Limits = Limits(),
    progress: Tick = silent,
) -> Tested:
    """Decode and check everything, write nothing that stays. Parameters as of :func:`unpack`."""
    started, scratch = time.monotonic(), Path(tempfile.gettempdir())
    with ArchiveFile(path) as archive:
        metas = checked_metadata(archive)
        limits.check(archive, scratch)
        decoder = model_for(archive, model, engine)
        with staging(scratch) as stage, DiskArrays(stage / token_hex(8)) as disk:
            arrays = read_arrays(archive, decoder, allocate=disk, threads=threads, progress=progress)
            with naming(archive.path):
                for meta in metas:
                    restore.check_collection(meta, arrays)
        return Tested(**_decoded(archive), ok=True, seconds=time.monotonic() - started)


def checked_metadata(archive: ArchiveFile) -> list[Any]:
    """How the archive's arrays become files. Raises DamagedArchive."""
    with naming(archive.path):
        check_restore_metadata(archive.restore, [array.name for array in archive.contents])
    return archive.restore


def _decoded(archive: ArchiveFile) -> dict[str, Any]:
    """The fields of :class:`Decoded`."""
    return {
        "archive": str(archive.path),
        "items": restore.count_items(archive.restore, {array.name: array.rows for array in archive.contents}),
        "bytes_in": archive.path.stat().st_size,
        "bytes_out": sum(array.nbytes for array in archive.contents),
        "model": archive.model.name if archive.model else None,
    }
