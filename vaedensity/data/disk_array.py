"""Arrays that lie in files and are read, or made, a slice at a time, so that memory does not grow with them."""

import copy
import io
import math
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import changed, writing

IN_MEMORY = 1 << 16  # bytes: smaller arrays are not worth a file
LONGEST_READ = 1 << 26


class _InFile:
    """Items (n,...) of ``dtype`` in an open file from ``offset`` on, in C order. A slice is read when it is taken.

    Threads and processes may read side by side. Unlike a memory map, reading a file that was cut off meanwhile does not
    end the process: it raises SourceChanged.
    """

    def __init__(self, path: Path, file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int):
        self.path, self.dtype, self.offset = path, dtype, offset
        self._file, self._lock = file, threading.Lock()
        self._set_shape(shape)

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        assert shape
        self.shape, self.ndim, self.size = shape, len(shape), math.prod(shape)
        self.nbytes = self.size * self.dtype.itemsize
        self._row_bytes = math.prod(shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Items as an array of its own; where ``rows`` has a step, they are read one by one."""
        wanted = range(len(self))[rows]
        out = np.ndarray((len(wanted), *self.shape[1:]), self.dtype)
        room = out.reshape(-1).view(np.uint8) if out.nbytes else np.empty(0, np.uint8)
        if wanted.step == 1:
            self._read(room, wanted.start)
        else:
            for k, row in enumerate(wanted):
                self._read(room[k * self._row_bytes : (k + 1) * self._row_bytes], row)
        return out

    def _read(self, room: NDArray[np.uint8], row: int) -> None:
        at = self.offset + row * self._row_bytes
        while len(room):
            data = self._read_at(min(len(room), LONGEST_READ), at)
            if not data:
                raise changed(self.path)
            room[: len(data)] = np.frombuffer(data, np.uint8)
            room, at = room[len(data) :], at + len(data)

    def _read_at(self, size: int, at: int) -> bytes:
        """At most ``size`` bytes of the file from ``at`` on."""
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, at)
        with self._lock:
            self._file.seek(at)
            return self._file.read(size)


class FileArray(_InFile):
    """An array in a file of somebody else, read a slice at a time; that the file changes meanwhile is noticed.

    Parameters
    ----------
    path
        The file; OSError where it cannot be opened.
    dtype, shape, offset
        What is in it, from which byte on; in C order.
    since
        What the file was when its dtype and shape were found; None: what it is now.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        offset: int = 0,
        since: os.stat_result | None = None,
    ):
        assert not dtype.hasobject
        super().__init__(path, open(path, "rb", buffering=0), dtype, shape, offset)
        self._before = _state(since or os.fstat(self._file.fileno()))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def part(self, first: int, end: int, row_shape: tuple[int, ...] | None = None) -> "FileArray":
        """Items ``first`` .. ``end`` - 1, not yet read; with ``row_shape``, cut into as many of it as there are."""
        shape = self.shape[1:] if row_shape is None else row_shape
        values = (end - first) * math.prod(self.shape[1:])
        out = copy.copy(self)
        out.offset = self.offset + first * self._row_bytes
        out._set_shape((values // math.prod(shape), *shape))
        assert out.size == values
        return out

    def require_unchanged(self) -> None:
        """Raise SourceChanged where the file has another size or time of change than when it was opened, or the name
        is another file's."""
        try:
            same = self._before == _state(os.fstat(self._file.fileno())) == _state(os.stat(self.path))
        except OSError:
            same = False
        if not same:
            raise changed(self.path)


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class DiskArray(_InFile):
    """An array (n,...) in a new .npy file, written and read a slice of the first axis at a time.

    Where ``shared`` is true, what forked processes and threads write is there for all. Raises VaedensityError where
    the disk refuses.
    """

    shared = hasattr(os, "pwrite")

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]):
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        text = io.BytesIO()
        np.lib.format.write_array_header_1_0(text, header)
        with writing(path):
            file = open(path, "x+b", buffering=0)
            super().__init__(path, file, dtype, shape, file.write(text.getvalue()))
            file.truncate(self.offset + self.nbytes)

    def __setitem__(self, rows: slice, part: NDArray[Any]) -> None:
        first, end, _ = rows.indices(len(self))
        data = np.ascontiguousarray(part, self.dtype)
        assert data.shape == (end - first, *self.shape[1:])
        room, at = data.reshape(-1).view(np.uint8).data, self.offset + first * self._row_bytes
        with writing(self.path):
            while room:
                if self.shared:
                    written = os.pwrite(self._file.fileno(), room, at)
                else:
                    self._file.seek(at)
                    written = self._file.write(room)
                room, at = room[written:], at + written

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()


class DiskArrays:
    """Makes arrays in ``folder``, small ones in memory; a context manager that makes the folder and closes them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._made: list[DiskArray] = []

    def __enter__(self) -> "DiskArrays":
        self.folder.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        for array in self._made:
            array.close()

    def __call__(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        """A new array, a numpy array or a DiskArray; ``name`` decides nothing."""
        if not shape or math.prod(shape) * dtype.itemsize <= IN_MEMORY:
            return np.ndarray(shape, dtype)  # np.empty makes another type of some: of |S0 |S1, of >M8 <M8
        self._made.append(DiskArray(self.folder / f"{len(self._made)}.npy", dtype, shape))
        return self._made[-1]
