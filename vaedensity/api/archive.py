"""Items of an archive one by one, without decoding the rest."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vaedensity.api.models import model_for
from vaedensity.archive.decoding import read_rows
from vaedensity.archive.engine import Decoder
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.record import StoredArray
from vaedensity.errors import UsageError

BLOCKS_KEPT = 8


class Archive(Sequence[NDArray[Any]]):
    """The items of one array of an archive, as a sequence: ``len``, index, slice, iteration.

    Reading an item reads and decodes its block alone; the last few blocks stay decoded. Threads may share an object; a
    forked process, and a copy made by pickle, open the file anew, so that ``torch.utils.data.DataLoader`` takes it as a
    data set with any number of workers.

    Parameters
    ----------
    path : str or Path
        The archive.
    name : str, optional
        Which array, where the archive holds several.
    model : str or Path, optional
        A model file or released name, where the archive's model is neither inside nor a released one.
    models : str or Path, optional
        A folder in which to find the model by its SHA-256.
    engine : {"torch", "numpy"}
        What decodes; the result is the same.

    Raises
    ------
    DamagedArchive, ModelError, UsageError

    Examples
    --------
    >>> import numpy as np, tempfile, vaedensity as vd
    >>> path = tempfile.mkdtemp() + "/x.vdz"
    >>> _ = vd.compress({"x": np.arange(12).reshape(4, 3)}, path)
    >>> items = vd.Archive(path)
    >>> len(items), items[1], items[2:].shape
    (4, array([3, 4, 5]), (2, 3))
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        model: str | Path | None = None,
        models: str | Path | None = None,
        engine: str = "torch",
    ):
        self.path, self.given, self.engine = Path(path), models if model is None else model, engine
        with ArchiveFile(self.path) as archive:
            array = _only_array(archive) if name is None else archive.array(name)
            Limits().check_memory(archive, [array])
            self.name, self.shape, self.dtype = array.name, array.shape, array.dtype
            counts = [archive.blocks[k].items for k in array.blocks]
            self.ends = np.cumsum(counts) if counts else np.zeros(0, np.int64)
        self._open()

    def _open(self) -> None:
        self._lock, self._owner = threading.RLock(), os.getpid()
        self._archive: ArchiveFile | None = None
        self._model: Decoder | None = None
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def close(self) -> None:
        """Close the file; the next item opens it again."""
        with self._lock_here():
            if self._archive is not None:
                self._archive.file.close()
            self._archive = None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    @overload  # type: ignore[override]  # a slice gives an array
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[Any]: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any]:
        """One item, or an array of those in a slice."""
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            if not places:
                return self._room(0)
            if places.step == 1:
                with self._lock_here():
                    return read_rows(self._archived(), self.name, places.start, places.stop, self._model)
            return self.take(places)
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        if not self.ends.size:  # items without a value
            return self._room(1).reshape(self.shape[1:])
        block = int(np.searchsorted(self.ends, place, "right"))
        origin = int(self.ends[block - 1]) if block else 0
        item = self._room(1)
        item[:] = self._block(block, origin)[place - origin : place - origin + 1]
        return item.reshape(self.shape[1:])

    def take(self, places: Sequence[int]) -> NDArray[Any]:
        """The items at ``places``, in that order."""
        out = self._room(len(places))
        for k, place in enumerate(places):
            out[k] = self[place]
        return out

    def _room(self, count: int) -> NDArray[Any]:
        """An array of so many items, of whatever values; numpy's own functions make <i4 of >i4."""
        return np.ndarray((count, *self.shape[1:]), self.dtype)

    def _block(self, block: int, origin: int) -> NDArray[Any]:
        with self._lock_here():
            if block not in self._kept:
                rows = read_rows(self._archived(), self.name, origin, int(self.ends[block]), self._model, threads=1)
                self._kept[block] = rows
                if len(self._kept) > BLOCKS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(block)
            return self._kept[block]

    def _lock_here(self) -> AbstractContextManager[Any]:
        """The lock of this very process: after a fork the parent's position in the file is not ours to move."""
        if self._owner != os.getpid():
            self._open()
        return self._lock

    def _archived(self) -> ArchiveFile:
        if self._archive is None:
            archive = ArchiveFile(self.path)
            self._model = self._model or model_for(archive, self.given, self.engine)
            self._archive = archive
        return self._archive


def _only_array(archive: ArchiveFile) -> StoredArray:
    """The array that is meant where none is named: the only one, or that of images or series. Raises UsageError."""
    arrays = [a for a in archive.contents if a.shape]
    if len(arrays) != 1:
        arrays = [a for a in arrays if a.layout is not None]
    if len(arrays) != 1:
        held = ", ".join(a.name for a in archive.contents if a.shape)
        raise UsageError(f"{archive.path}: which array? It holds {held or 'none'}; name one")
    return arrays[0]
