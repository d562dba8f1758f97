"""Arrays that lie in .npy files while they are made, so that memory does not grow with them."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import VaedensityError

PIECE_BYTES = 1 << 22
IN_MEMORY = 1 << 16  # bytes: smaller arrays are not worth a file


class DiskArray:
    """An array (n,...) in the .npy file ``path``, which is made: written and read by slices of its first axis.

    ``shared``: what forked processes and threads write is there for all.
    """

    shared = hasattr(os, "pwrite")

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]):
        assert shape
        self.path, self.dtype, self.shape, self.ndim = path, dtype, shape, len(shape)
        self.size = int(np.prod(shape, dtype=object))
        self.nbytes = self.size * dtype.itemsize
        self.row_bytes = self.nbytes // shape[0] if shape[0] else 0
        try:
            self._file = open(path, "x+b", buffering=0)
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            text = io.BytesIO()
            np.lib.format.write_array_header_1_0(text, header)  # type: ignore[arg-type]
            self._begin = self._file.write(text.getvalue())
            self._file.truncate(self._begin + self.nbytes)
        except OSError as error:
            raise VaedensityError(f"cannot write {path}: {error.strerror or error}") from error

    def __len__(self) -> int:
        return self.shape[0]

    def __setitem__(self, rows: slice, part: NDArray[Any]) -> None:
        first, end, _ = rows.indices(len(self))
        data = np.ascontiguousarray(part, self.dtype)
        assert data.shape == (end - first, *self.shape[1:])
        try:
            self._write(memoryview(data.reshape(-1).view(np.uint8)), self._begin + first * self.row_bytes)
        except OSError as error:
            raise VaedensityError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        first, end, _ = rows.indices(len(self))
        size = (end - first) * self.row_bytes
        self._file.seek(self._begin + first * self.row_bytes)
        data = b""
        while len(data) < size and (more := self._file.read(size - len(data))):
            data += more
        return np.frombuffer(data, self.dtype).reshape(end - first, *self.shape[1:])

    def _write(self, data: memoryview, at: int) -> None:
        while data:
            if self.shared:
                written = os.pwrite(self._file.fileno(), data, at)
            else:
                self._file.seek(at)
                written = self._file.write(data)
            data, at = data[written:], at + written

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()


class DiskArrays:
    """Makes arrays in ``folder``, small ones in memory; a context manager that closes them."""

    def __init__(self, folder: Path):
        self.folder, self._made = folder, []  # type: Path, list[DiskArray]

    def __enter__(self) -> "DiskArrays":
        self.folder.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        for array in self._made:
            array.close()

    def __call__(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        """An array for ``name``, which decides nothing."""
        if not shape or int(np.prod(shape, dtype=object)) * dtype.itemsize <= IN_MEMORY:
            return np.ndarray(shape, dtype)  # np.empty makes another type of some: of |S0 |S1, of >M8 <M8
        self._made.append(DiskArray(self.folder / f"{len(self._made)}.npy", dtype, shape))
        return self._made[-1]


def in_pieces(array: Any) -> Iterator[NDArray[np.uint8]]:
    """The bytes of an array, or one on disk, in C order, a few megabytes at a time: (n,) uint8."""
    if array.ndim == 0:
        yield np.frombuffer(array.tobytes(), np.uint8)
        return
    if not array.nbytes:
        return
    rows = max(1, PIECE_BYTES * len(array) // array.nbytes)
    for begin in range(0, len(array), rows):
        yield np.frombuffer(np.ascontiguousarray(array[begin : begin + rows]).tobytes(), np.uint8)
