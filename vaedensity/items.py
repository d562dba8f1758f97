"""Arrays of images and series, however they are laid out, as items (N,C,H,W) uint8, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.advice import advice
from vaedensity.errors import UsageError, first_line

LAYOUTS = ("NHW", "NHWC", "NCHW", "NT")
MOST_AXES = 8  # of an array in an archive


def plain_array(x: Any, source: str, *, convert: bool = True) -> NDArray[Any]:
    """``x`` as a plain numpy array of the same values, or an error where a part of its meaning would be lost.

    Parameters
    ----------
    x
        An array, or what ``numpy.asarray`` makes one of.
    source
        What messages call it.
    convert
        Whether lists and other things that are no arrays are taken, too.

    Raises
    ------
    UsageError
        If ``x`` is no array, holds images of Pillow, or is masked or of another subclass of numpy's arrays (except
        memmap), on whatever level of nesting.

    Examples
    --------
    >>> plain_array([[1, 2], [3, 4]], "x").shape
    (2, 2)
    """
    if not convert and not isinstance(x, (np.ndarray, np.generic)):
        raise UsageError(
            f"{source}: found {_class(x)}, expected a numpy array; pass np.asarray(x) if that holds all of it"
        )
    if any(hasattr(part, "getbands") for part in (x, *(x if isinstance(x, (list, tuple)) else ()))):
        raise UsageError(
            f"{source}: found images of Pillow, whose mode would be lost; "
            "pass np.stack([np.asarray(i.convert('L')) for i in x]), or with 'RGB'"
        )
    try:
        array = _special_inside(x)
        array = np.asanyarray(x) if array is None else array
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"{source}: found {_class(x)}, which is no array ({first_line(error)}); pass a numpy array"
        ) from error
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError(
            f"{source}: found a masked array, whose mask would be lost; pass x.filled(VALUE), or to compress x.data "
            "and np.ma.getmaskarray(x) as two arrays"
        )
    if type(array) not in (np.ndarray, np.memmap):
        raise UsageError(
            f"{source}: found {_class(array)}, expected a plain numpy array; pass np.asarray(x) if that holds all of it"
        )
    return np.asarray(array)


def _special_inside(x: Any, depth: int = 0) -> Any:
    """An array among nested parts of ``x`` that is masked or of another subclass, which numpy would drop; or None."""
    if isinstance(x, (str, bytes, np.generic)) or depth > MOST_AXES:
        return None
    if depth and (isinstance(x, np.ndarray) or hasattr(x, "__array__")):
        array = np.asanyarray(x)
        return None if type(array) in (np.ndarray, np.memmap) else array
    if not isinstance(x, Sequence):
        return None
    plain = {int, float, bool, complex, str, bytes}
    parts = () if set(map(type, x)) <= plain else x
    return next((found for part in parts if (found := _special_inside(part, depth + 1)) is not None), None)


def _class(x: object) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")


def why_not_stored(array: NDArray[np.generic]) -> str | None:
    """Why an archive cannot hold an array, in words; None where it can.

    >>> why_not_stored(np.array([1.5, 2.5])) is None
    True
    """
    if array.dtype.hasobject:
        return "it holds Python objects, which are never stored; convert it to numbers, texts or times"
    if array.dtype.kind not in "biufcSUmMV" or array.dtype.metadata or np.dtype(array.dtype.str) != array.dtype:
        found = f"it has dtype {array.dtype}, expected plain numbers, texts or times"
        return f"{found}; store its parts as arrays of their own"
    if array.ndim > MOST_AXES:
        return f"it has {array.ndim} axes, an archive holds up to {MOST_AXES}; reshape it"
    return None


def layout_of(array: NDArray[np.generic]) -> str | None:
    """How an array holds grey or RGB images: "NHW", "NHWC" or "NCHW"; None where it holds none.

    Images are of dtype uint8 or bool. Three axes are (N,H,W). Four are (N,H,W,C) where the last one has length 1 or 3,
    else (N,C,H,W) where the second one has.

    >>> layout_of(np.zeros((10, 32, 32, 3), np.uint8))
    'NHWC'
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
    """ "NT" for an array of series (N,T) uint8 or bool; None for any other."""
    plain = array.dtype in (np.uint8, np.bool_) and array.ndim == 2 and array.size > 0
    return "NT" if plain else None


def to_items(array: NDArray[np.generic], layout: str) -> NDArray[np.uint8]:
    """Items (N,C,H,W) uint8, a view, of an array uint8 or bool in a ``layout`` of :func:`layout_of` or "NT".

    A series of T values is an item (1,1,T).

    >>> to_items(np.zeros((10, 32, 24, 3), np.uint8), "NHWC").shape
    (10, 3, 32, 24)
    """
    values = array.view(np.uint8)
    match layout:
        case "NHW":
            return values[:, None]
        case "NT":
            return values[:, None, None]
        case "NHWC":
            return values.transpose(0, 3, 1, 2)
    return values


def from_items(items: NDArray[np.uint8], layout: str) -> NDArray[np.uint8]:
    """Undoes :func:`to_items`, but for dtype bool, which becomes uint8."""
    match layout:
        case "NHW":
            return items[:, 0]
        case "NT":
            return items[:, 0, 0]
        case "NHWC":
            return items.transpose(0, 2, 3, 1)
    return items


def require_items(array: NDArray[np.generic], source: str) -> NDArray[np.uint8]:
    """Items (N,C,H,W) uint8 of an array of grey or RGB images in any layout of :func:`layout_of`.

    Raises
    ------
    UsageError
        If ``array`` is anything else; the message says what was found and how to convert it. It begins with
        ``source``.

    Examples
    --------
    >>> require_items(np.zeros((10, 28, 28), np.uint8), "x").shape
    (10, 1, 28, 28)
    """
    layout = layout_of(array)
    if layout is not None:
        return to_items(array, layout)
    if array.size == 0:
        raise UsageError(f"{source}: the array is empty, shape {array.shape}; expected at least one item")
    _require_bytes(array, source)
    raise UsageError(f"{source}: found shape {array.shape}, expected (N,H,W), (N,H,W,1 or 3) or (N,1 or 3,H,W)")


def _require_bytes(array: NDArray[np.generic], source: str) -> None:
    if array.dtype not in (np.uint8, np.bool_):
        raise UsageError(f"{source}: found {array.dtype}, expected uint8 or bool; {advice(array)}")


def kind_of(array: NDArray[np.generic]) -> str:
    """What kind of model fits an array: "sequence" for series (N,T) and bytes (n,), else "image"."""
    return "sequence" if array.ndim in (1, 2) else "image"


def reading(array: NDArray[np.generic], data: NDArray[np.uint8]) -> str:
    """In words, how an array was read as the items ``data`` (N,C,H,W): "10 grey images of 28x28"."""
    count, channels, height, width = data.shape
    if array.ndim == 1:
        rest = array.size - count * width
        return f"{count} pieces of {width} bytes" + (f"; the last {rest} bytes are left out" if rest else "")
    if array.ndim == 2:
        return f"{count} series of {width} values"
    return f"{count} {'grey' if channels == 1 else 'RGB'} images of {height}x{width}"


def doubt(array: NDArray[np.generic]) -> str:
    """What else the shape of an array may mean, to follow :func:`reading`; empty where nothing comes to mind."""
    if array.ndim == 2:
        return "; if this is one grey image, pass x[None]"
    if array.ndim == 3 and (array.shape[2] <= 4 or array.shape[0] == 3):
        channels = array.shape[2] if array.shape[2] <= 4 else 3
        if channels not in (1, 3):
            return f"; one image of {channels} channels cannot be read, 1 or 3 can"
        return f"; if this is one {'RGB' if channels == 3 else 'grey'} image, pass x[None]"
    if array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] in (1, 3):
        return "; if channels come first, pass x.transpose(0, 2, 3, 1)"
    return ""


def require_series(array: NDArray[np.generic], source: str, length: int | None = None) -> NDArray[np.uint8]:
    """Items (N,1,1,T) uint8 of an array of series (N,T), or of bytes (n,), which are cut into pieces.

    Parameters
    ----------
    array
        Series (N,T) uint8 or bool, or bytes (n,) uint8.
    source
        What messages call it.
    length
        T, where a model prescribes it; None takes the array's own, and :func:`piece_length` for bytes. Bytes that fill
        no whole piece are left out.

    Raises
    ------
    UsageError
        If the array is neither, or its series are of another length.

    Examples
    --------
    >>> require_series(np.zeros(1000, np.uint8), "x", 64).shape
    (15, 1, 1, 64)
    """
    if array.ndim == 1 and array.dtype == np.uint8 and array.size:
        length = piece_length(array.size) if length is None else length
        if array.size < length:
            raise UsageError(f"{source}: found {array.size} bytes, expected at least {length}")
        array = pieces(array, length)[0]
    layout = series_layout(array)
    if layout is None:
        if array.ndim == 2 and array.size:
            _require_bytes(array, source)
        found = f"found shape {array.shape} of {array.dtype}"
        raise UsageError(f"{source}: {found}, expected series (N,T) of uint8 or bool, or bytes (n,)")
    data = to_items(array, layout)
    if length is not None and data.shape[3] != length:
        raise UsageError(f"{source}: series of {data.shape[3]} values, the model knows {length}; fit one to these data")
    return data


LONGEST_PIECE, SHORTEST_PIECE, PIECES = 4096, 64, 100


def piece_length(count: int) -> int:
    """The length of the pieces that ``count`` bytes are cut into for a model: a power of two from 64 to 4096.

    It is the longest of which there are at least 100.

    >>> piece_length(10_000)
    64
    """
    length = LONGEST_PIECE
    while length > SHORTEST_PIECE and count // length < PIECES:
        length //= 2
    return length


def pieces(array: Any, length: int) -> tuple[Any, Any]:
    """(whole pieces (n,length), the bytes left over) of bytes: a numpy array or a FileArray, which is not read."""
    whole = len(array) // length * length
    if isinstance(array, np.ndarray):
        return array[:whole].reshape(-1, length), array[whole:]
    return array.part(0, whole, (length,)), array.part(whole, len(array))


def value_map(items: NDArray[np.uint8]) -> tuple[int, list[int] | None]:
    """(levels, values): which numbers a model of these ``items`` uses for their values.

    Where items hold one or two values, ``values`` are these two, and the levels 0 and 1 stand for them. Otherwise
    ``values`` is None, and each value from 0 to ``levels`` - 1 stands for itself.

    >>> value_map(np.array([[0, 255]], np.uint8))
    (2, [0, 255])
    >>> value_map(np.array([[0, 7, 16]], np.uint8))
    (17, None)
    """
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
    """(the items' levels uint8, which items hold only values that the map of :func:`value_map` knows, (N,) bool).

    >>> apply_map(np.array([[0, 255], [0, 9]], np.uint8), 2, [0, 255])[1].tolist()
    [True, False]
    """
    flat = items.reshape(len(items), -1)
    if values is None:
        return items, np.all(flat < levels, axis=1)
    known: NDArray[np.bool_] = np.all((flat == values[0]) | (flat == values[1]), axis=1)
    return (items == values[1]).astype(np.uint8), known


def undo_map(items: NDArray[np.uint8], values: list[int] | None) -> NDArray[np.uint8]:
    """The values that the levels ``items`` stand for: undoes :func:`apply_map`."""
    return items if values is None else np.array(values, np.uint8)[items]
