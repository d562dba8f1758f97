"""From an open archive to its arrays: checked before, while and after they are decoded."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.archive.block_decoder import BlockDecoder, Lost
from vaedensity.archive.engine import Decoder
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.record import StoredArray
from vaedensity.coding.plan import Tick, silent
from vaedensity.errors import ModelError, UsageError, VaedensityError

Allocate = Callable[[str, np.dtype[Any], tuple[int, ...]], Any]
"""Something with the slices of an array (n,...), to be written and read; and ``shared``, where forked processes may
write them."""


def read_arrays(
    archive: ArchiveFile,
    model: Decoder | None = None,
    *,
    allocate: Allocate | None = None,
    threads: int | None = None,
    lockstep: int | None = None,
    lost: list[Lost] | None = None,
    progress: Tick = silent,
) -> dict[str, Any]:
    """All arrays of an archive but the model's, decoded and checked against the SHA-256 of the original data.

    Parameters
    ----------
    archive : ArchiveFile
        The open archive.
    model : Decoder, optional
        The model that it needs, where it needs one.
    allocate : callable, optional
        Makes the array (a file, say) for a name, dtype and shape. By default arrays lie in memory.
    threads : int, optional
        Processes that decode side by side. By default as many as the machine has cores.
    lockstep : int, optional
        Chains that go through the network as one batch. By default as many as memory allows.
    lost : list of Lost, optional
        Where given, damaged blocks do not stop the work: their items are zeros, and the list is extended by them.
    progress : callable
        Called with the number of items that are done.

    Returns
    -------
    dict of str to numpy.ndarray
        The arrays by name, or what ``allocate`` made.

    Raises
    ------
    DamagedArchive
        A block is damaged, or an array is not what was packed.
    ModelError
        ``model`` is not the one that the archive was made with.
    VaedensityError
        This machine computes the model's integers otherwise, or has too little memory.
    """
    check_model(archive, model)
    decoder, out = BlockDecoder(archive, model, threads, lockstep, lost, progress), {}
    for number, array in enumerate(archive.arrays):
        try:
            if allocate is None or array is archive.model_array:
                target = _empty(archive, array, array.shape)
            else:
                target = allocate(array.name, array.dtype, array.shape)
        except (MemoryError, ValueError) as error:
            raise _too_large(archive, array, array.nbytes) from error
        before = len(lost or ())
        if array.nbytes:
            decoder.decode(array, array.blocks, target)
        if lost:
            lost[before:] = sorted(lost[before:], key=lambda one: one.first)  # chains come later than others
        if len(lost or ()) == before:
            decoder.require_digest(number, target)
        if array is not archive.model_array:
            out[array.name] = target
    return out


def read_rows(
    archive: ArchiveFile, name: str, start: int, stop: int, model: Decoder | None = None, *, threads: int | None = None
) -> NDArray[Any]:
    """Some items of one array. Only the blocks that hold them are read.

    Each block is checked by its own checksums and must end with an empty stack. The SHA-256 of all data is not checked.

    Parameters
    ----------
    archive : ArchiveFile
        The open archive.
    name : str
        The array's name.
    start, stop : int
        Items ``start`` .. ``stop`` - 1 of it.
    model : Decoder, optional
        The model that the archive needs, where these blocks need it.
    threads : int, optional
        Processes that decode side by side.

    Returns
    -------
    numpy.ndarray
        (stop - start, ...), of the array's dtype.

    Raises
    ------
    UsageError
        The archive has no such array or items.
    DamagedArchive, ModelError, VaedensityError
        As of :func:`read_arrays`.

    Examples
    --------
    >>> import tempfile
    >>> from vaedensity.archive.writer import write_archive
    >>> with tempfile.NamedTemporaryFile(suffix=".vdz") as f:
    ...     tally = write_archive(f, {"x": np.arange(100)}, [], None, threads=1)
    ...     f.flush()
    ...     with ArchiveFile(f.name) as archive:
    ...         archive.arrays[0].shape, read_rows(archive, "x", 40, 43, threads=1).tolist()
    ((100,), [40, 41, 42])
    """
    array = archive.array(name)
    if not 0 <= start <= stop <= array.rows:
        raise UsageError(f"{archive.path}: items {start} to {stop} of {name}, expected 0 to {array.rows}")
    if not array.nbytes or start == stop:
        return _empty(archive, array, (stop - start, *array.shape[1:]))
    firsts = np.array([archive.blocks[k].first for k in array.blocks])
    low, high = np.searchsorted(firsts, (start, stop - 1), "right")
    used = array.blocks[int(low) - 1 : int(high)]
    if any(archive.blocks[k].codec.by_model for k in used):
        check_model(archive, model)
    origin, last = archive.blocks[used[0]].first, archive.blocks[used[-1]]
    target = _empty(archive, array, (last.first + last.items - origin, *array.shape[1:]))
    BlockDecoder(archive, model, threads).decode(array, used, target)
    return target[start - origin : stop - origin]


def read_whole(archive: ArchiveFile, array: StoredArray) -> NDArray[Any]:
    """All of one array whose blocks need no model, checked."""
    target = _empty(archive, array, array.shape)
    if array.nbytes:
        BlockDecoder(archive, None).decode(array, array.blocks, target)
    return target


def _empty(archive: ArchiveFile, array: StoredArray, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.ndarray(shape, array.dtype)  # np.empty makes another type of some: of |S0 |S1, of >M8 <M8
    except (MemoryError, ValueError) as error:
        raise _too_large(archive, array, array.row_bytes * (shape[0] if shape else 1)) from error


def _too_large(archive: ArchiveFile, array: StoredArray, size: int) -> VaedensityError:
    return VaedensityError(f"{archive.path}: array {array.name} needs {size} bytes, more than there is")


def check_model(archive: ArchiveFile, model: Decoder | None) -> None:
    """Raise ModelError unless ``model`` is the one that ``archive`` needs, if any, and VaedensityError where it
    computes otherwise here."""
    if archive.model is None:
        return
    wanted = f"{archive.model.name} (sha256 {archive.model.sha256[:16]}...)"
    if model is None:
        raise ModelError(f"{archive.path}: needs the model {wanted}; name it")
    if model.sha256 != archive.model.sha256:
        raise ModelError(
            f"{archive.path}: made with model {wanted}, found {model.name} (sha256 {model.sha256[:16]}...)"
        )
    if archive.model.probe != model.probe:
        raise VaedensityError(
            f"{archive.path}: this machine computes the model's integers differently from the one that wrote the "
            "archive; nothing was read or written; try another engine or another machine"
        )
