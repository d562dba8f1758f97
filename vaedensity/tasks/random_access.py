"""Items of an archive one by one, without decoding the rest."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vaedensity.coding.lowering import CodingModel
from vaedensity.coding.reader import Archive as ArchiveFile
from vaedensity.data import restore
from vaedensity.errors import DamagedArchive, UsageError
from vaedensity.tasks.packing import model_for

BLOCKS_KEPT = 8


class Archive(Sequence[NDArray[Any]]):
    """The items of one array of an archive, as a sequence: ``len``, index, slice, iteration.

    ``name``: which array, where the archive holds several; ``model``: file or released name, where the archive's is not a released
    one. Reading an item reads and decodes its block alone; the last few blocks stay decoded. Threads may share an object; a
    forked process, and a copy made by pickle, open the file anew, so that ``torch.utils.data.DataLoader`` takes it as a
    data set with any number of workers.

    >>> items = Archive("mnist.vdz")                                        # doctest: +SKIP
    >>> items[17].shape, items[100:110].shape                                    # doctest: +SKIP
    ((28, 28), (10, 28, 28))
    """

    def __init__(self, path: str | Path, name: str | None = None, *, model: str | Path | None = None):
        self.path, self.model_name = Path(path), None if model is None else str(model)
        with ArchiveFile(self.path) as archive:
            arrays = [a for a in archive.arrays if a.shape]
            if name is None and len(arrays) != 1:
                held = ", ".join(a.name for a in arrays)
                raise UsageError(f"{path}: which array? It holds {held or 'none'}; name one")
            self.name = arrays[0].name if name is None else name
            archive.read_rows(self.name, 0, 0)  # is it there?
            array = next(a for a in archive.arrays if a.name == self.name)
            self.shape, self.dtype = array.shape, array.dtype
            first = archive.first_block[self.name]
            counts = [block.items for block in archive.blocks[first : first + array.blocks]]
            self.ends = np.cumsum(counts) if counts else np.zeros(0, np.int64)
        self._open()

    def _open(self) -> None:
        self._lock, self._owner = threading.RLock(), os.getpid()
        self._archive: ArchiveFile | None = None
        self._model: CodingModel | None = None
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
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[Any]: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any]:
        """One item, or an array of those in a slice."""
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            if not places:
                return np.empty((0, *self.shape[1:]), self.dtype)
            if places.step == 1:
                with self._lock_here():
                    return self._archived().read_rows(self.name, places.start, places.stop, self._model)
            return np.stack([self[i] for i in places])
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        if not self.ends.size:  # items without a value
            return np.empty(self.shape[1:], self.dtype)
        block = int(np.searchsorted(self.ends, place, "right"))
        origin = int(self.ends[block - 1]) if block else 0
        return np.array(self._block(block, origin)[place - origin])

    def _block(self, block: int, origin: int) -> NDArray[Any]:
        with self._lock_here():
            if block not in self._kept:
                rows = self._archived().read_rows(self.name, origin, int(self.ends[block]), self._model, threads=1)
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
            self._model = self._model or model_for(archive, self.model_name)
            self._archive = archive
        return self._archive


def decompress_items(
    path: Path,
    folder: Path,
    wanted: Sequence[str],
    ranges: Sequence[str] = (),
    model_name: str | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Restore some items of an archive of one array or one folder of images: ``wanted``, indices or file names, then those of
    ``ranges`` "a:b". Nothing appears before all of them are decoded. Returns the record of ``decompress --item --json``."""
    started = time.monotonic()
    with ArchiveFile(path) as archive:
        notes = archive.note.get("collections", [])
        restore.check_note(notes, [a.name for a in archive.arrays])
        if len(notes) != 1 or notes[0]["kind"] not in ("npy", "folder") or not archive.arrays[0].shape:
            held = ", ".join(f"{note['kind']} {note['name']}" for note in notes)
            raise UsageError(f"{path}: single items are of one array or folder of images; it holds {held or 'nothing'}")
        names = notes[0].get("files", [])
        if notes[0]["kind"] == "folder" and len(names) != archive.arrays[0].rows:
            raise DamagedArchive(f"{path}: {len(names)} file names for {archive.arrays[0].rows} images")
    with Archive(path, model=model_name) as items:
        chosen = choose(path, len(items), names, wanted, ranges)
        note = dict(notes[0])
        if "files" in note:
            note["files"] = [names[i] for i in chosen]
        goals = restore.targets([note], folder, overwrite)
        rows = np.stack([items[i] for i in chosen])
        with restore.staging(folder) as stage:
            staged = restore.write_collection(note, {next(iter(note["arrays"])): rows}, stage)
            restore.move_into_place(staged, goals[0])
    return {
        "archive": str(path),
        "items": len(chosen),
        "bytes_in": path.stat().st_size,
        "bytes_out": rows.nbytes,
        "restored": [str(goals[0])],
        "seconds": time.monotonic() - started,
    }


def choose(path: Path, count: int, names: list[str], wanted: Sequence[str], ranges: Sequence[str]) -> list[int]:
    """Indices, each once and in the order asked for. Raises UsageError."""
    place, found = {name: i for i, name in enumerate(names)}, []
    for item in wanted:
        index = place.get(item, int(item) if item.isascii() and item.isdigit() else -1)
        if not 0 <= index < count:
            raise UsageError(
                f"--item {item}: {path} holds items 0 to {count - 1}" + (" and their names" if names else "")
            )
        found.append(index)
    for text in ranges:
        ends = text.split(":")
        if len(ends) != 2 or any(end and not (end.isascii() and end.isdigit()) for end in ends):
            raise UsageError(f"--range {text}: expected FIRST:END, items FIRST to END - 1")
        low, high = int(ends[0] or 0), int(ends[1] or count)
        if not low < high <= count:
            raise UsageError(f"--range {text}: expected a range within 0:{count}")
        found += range(low, high)
    return list(dict.fromkeys(found))
