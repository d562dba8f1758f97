"""Arrays that lie in a file and are read piece by piece, so that a file that changes meanwhile is noticed."""

import math
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import changed

LONGEST_READ = 1 << 26


class FileArray:
    """An array (n,...) of the bytes of an open file from ``offset`` on, in C order. A slice is read when it is taken.

    Unlike a memory map, reading a file that was cut off meanwhile does not end the process: it raises SourceChanged.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        offset: int = 0,
        since: os.stat_result | None = None,
    ):
        """``since``: what the file was when its type and shape were found. Raises OSError."""
        assert shape and not dtype.hasobject
        self.path, self.dtype, self.shape, self.offset = path, dtype, shape, offset
        self._file = open(path, "rb", buffering=0)
        self._lock = threading.Lock()
        self._before = _state(since or os.fstat(self._file.fileno()))
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

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

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def part(self, first: int, end: int, row_shape: tuple[int, ...] | None = None) -> "FileArray":
        """Items ``first`` .. ``end`` - 1, not yet read; with ``row_shape``, cut into as many of that shape as there are."""
        shape = self.shape[1:] if row_shape is None else row_shape
        values = (end - first) * math.prod(self.shape[1:])
        out = FileArray.__new__(FileArray)
        out.__dict__ |= self.__dict__
        out.offset = self.offset + first * self._row_bytes
        out.shape = (values // math.prod(shape), *shape)
        out._row_bytes = math.prod(shape) * self.dtype.itemsize
        assert out.size == values
        return out

    def require_unchanged(self) -> None:
        """Raise SourceChanged where the file is not what it was when it was opened: its size, its time of change, or
        which file has the name."""
        try:
            same = self._before == _state(os.fstat(self._file.fileno())) == _state(os.stat(self.path))
        except OSError:
            same = False
        if not same:
            raise changed(self.path)

    def _read(self, room: NDArray[np.uint8], row: int) -> None:
        at = self.offset + row * self._row_bytes
        while len(room):
            data = read_at(self._file, min(len(room), LONGEST_READ), at, self._lock)
            if not data:
                raise changed(self.path)
            room[: len(data)] = np.frombuffer(data, np.uint8)
            room, at = room[len(data) :], at + len(data)


def read_at(file: BinaryIO, size: int, at: int, lock: threading.Lock) -> bytes:
    """At most ``size`` bytes of ``file`` from ``at`` on, wherever other threads and processes are reading."""
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), size, at)
    with lock:
        file.seek(at)
        return file.read(size)


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
