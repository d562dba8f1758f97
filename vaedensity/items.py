"""Arrays of images, however they are laid out, as items (N,C,H,W) and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import UsageError

LAYOUTS = ("NHW", "NHWC", "NCHW", "NT")


def layout_of(array: NDArray[np.generic]) -> str | None:
    """Layout of an array of grey or RGB images, or None where it is not one.

    Three dimensions are (N,H,W). Four are (N,H,W,C) when the last is 1 or 3, else (N,C,H,W) when
    the second is.
    """
    if array.dtype not in (np.uint8, np.bool_) or array.size == 0:
        return None
    if array.ndim == 3:
        return "NHW"
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return "NHWC"
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return "NCHW"
    return None


def series_layout(array: NDArray[np.generic]) -> str | None:
    """Layout of an array of series (N,T) uint8 or bool, or None where it is not one."""
    plain = array.dtype in (np.uint8, np.bool_) and array.ndim == 2 and array.size > 0
    return "NT" if plain else None


def to_items(array: NDArray[np.generic], layout: str) -> NDArray[np.uint8]:
    """A view or copy (N,C,H,W) uint8."""
    values = array.view(np.uint8) if array.dtype == np.bool_ else array
    if layout == "NHW":
        return values[:, None]  # type: ignore[return-value]
    if layout == "NT":
        return values[:, None, None]  # type: ignore[return-value]
    return values.transpose(0, 3, 1, 2) if layout == "NHWC" else values  # type: ignore[return-value]


def from_items(items: NDArray[np.uint8], layout: str) -> NDArray[np.uint8]:
    """Undoes :func:`to_items`, up to dtype bool."""
    if layout == "NHW":
        return items[:, 0]
    if layout == "NT":
        return items[:, 0, 0]
    return items.transpose(0, 2, 3, 1) if layout == "NHWC" else items


def require_items(array: NDArray[np.generic], source: str) -> NDArray[np.uint8]:
    """Items (N,C,H,W) of ``array``, or a UsageError that says what was found and what to do."""
    layout = layout_of(array)
    if layout is not None:
        return to_items(array, layout)
    if array.size == 0:
        raise UsageError(f"{source}: the array is empty, shape {array.shape}; expected at least one item")
    if array.dtype.kind == "f":
        raise UsageError(
            f"{source}: found {array.dtype} images, expected uint8; convert with np.rint(x * 255).astype(np.uint8) "
            "for values in 0..1"
        )
    if array.dtype not in (np.uint8, np.bool_):
        raise UsageError(f"{source}: found dtype {array.dtype}, expected uint8 or bool; convert with astype(np.uint8)")
    raise UsageError(f"{source}: found shape {array.shape}, expected (N,H,W), (N,H,W,1 or 3) or (N,1 or 3,H,W)")


def require_series(array: NDArray[np.generic], source: str, length: int | None = None) -> NDArray[np.uint8]:
    """Series (N,1,1,T) of an array (N,T), or of bytes (n,), which are cut into whole pieces of ``length`` or, without one,
    of :func:`piece_length`; or a UsageError."""
    if array.ndim == 1 and array.dtype == np.uint8 and array.size:
        length = piece_length(array.size) if length is None else length
        if array.size < length:
            raise UsageError(f"{source}: found {array.size} bytes, expected at least {length}")
        array = pieces(array, length)[0]
    layout = series_layout(array)
    if layout is None:
        raise UsageError(
            f"{source}: found shape {array.shape} of {array.dtype}, expected series (N,T) of uint8 or bool, or bytes (n,); "
            "leave --kind out for images"
        )
    data = to_items(array, layout)
    if length is not None and data.shape[3] != length:
        raise UsageError(f"{source}: series of {data.shape[3]} values, the model knows {length}; fit one to these data")
    return data


LONGEST_PIECE, SHORTEST_PIECE, PIECES = 4096, 64, 100


def piece_length(count: int) -> int:
    """Into what pieces ``count`` bytes are cut to be learnt: powers of two, long ones where there are still enough of them."""
    length = LONGEST_PIECE
    while length > SHORTEST_PIECE and count // length < PIECES:
        length //= 2
    return length


def pieces(array: Any, length: int) -> tuple[Any, Any]:
    """(whole pieces (n,length), what is left over) of bytes."""
    whole = len(array) // length * length
    if isinstance(array, np.ndarray):
        return array[:whole].reshape(-1, length), array[whole:]
    return array.part(0, whole, (length,)), array.part(whole, len(array))  # of a file, not read before it is needed


def value_map(items: NDArray[np.uint8]) -> tuple[int, list[int] | None]:
    """(levels, values): two-valued data are the levels 0 and 1 of ``values``; else values is None and
    the levels are 0..max."""
    counts = np.zeros(256, np.int64)
    rows = max(1, (1 << 22) // max(1, items[0].size))
    for begin in range(0, len(items), rows):
        counts += np.bincount(items[begin : begin + rows].ravel(), minlength=256)
    present = np.flatnonzero(counts)
    if len(present) <= 2:
        low, high = int(present[0]), int(present[-1])
        return 2, [low, high if high != low else (low + 1 if low < 255 else low - 1)]
    return int(present[-1]) + 1, None


def apply_map(
    items: NDArray[np.uint8], levels: int, values: list[int] | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(levels of the items, which items (N,) hold only values that the map knows)."""
    if values is None:
        return items, (items.reshape(len(items), -1) < levels).all(1)
    known = ((items == values[0]) | (items == values[1])).reshape(len(items), -1).all(1)
    return (items == values[1]).astype(np.uint8), known


def undo_map(items: NDArray[np.uint8], values: list[int] | None) -> NDArray[np.uint8]:
    return items if values is None else np.array(values, np.uint8)[items]
