"""Arrays of images, however they are laid out, as items (N,C,H,W) and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import UsageError

LAYOUTS = ("NHW", "NHWC", "NCHW", "NT")
MOST_AXES = 8  # of an array in an archive


def plain_array(x: Any, source: str, *, convert: bool = True) -> NDArray[Any]:
    """``x`` as a plain numpy array of the same values. Raises UsageError where it is more than that: masked, or of
    another subclass but memmap, whose meaning would be lost. Without ``convert`` lists and other things are refused, too."""
    if not convert and not isinstance(x, (np.ndarray, np.generic)):
        raise UsageError(
            f"{source}: found {_class(x)}, expected a numpy array; pass np.asarray(x) if that holds all of it"
        )
    if any(hasattr(part, "getbands") for part in (x, *(x if isinstance(x, (list, tuple)) else ()))):
        raise UsageError(
            f"{source}: found images of Pillow, whose mode would be lost; pass np.stack([np.asarray(i.convert('L')) for i in x]), "
            "or with 'RGB'"
        )
    try:
        array = _special_inside(x)
        array = np.asanyarray(x) if array is None else array
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{source}: found {_class(x)}, which is no array ({reason}); pass a numpy array") from error
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError(
            f"{source}: found a masked array, whose mask would be lost; pass x.filled(VALUE), or to compress x.data and "
            "np.ma.getmaskarray(x) as two arrays"
        )
    if type(array) not in (np.ndarray, np.memmap):
        raise UsageError(
            f"{source}: found {_class(array)}, expected a plain numpy array; pass np.asarray(x) if that holds all of it"
        )
    return np.asarray(array)


def _special_inside(x: Any, depth: int = 0) -> Any:
    """An array among nested parts of ``x`` that is masked or of another subclass, which numpy would strip; None where none is."""
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
    """Why an archive cannot hold an array, in words; None where it can."""
    if array.dtype.hasobject:
        return "it holds Python objects, which are never stored; convert it to numbers, texts or times"
    if array.dtype.kind not in "biufcSUmMV" or array.dtype.metadata or np.dtype(array.dtype.str) != array.dtype:
        return f"it has dtype {array.dtype}, expected plain numbers, texts or times; store its parts as arrays of their own"
    if array.ndim > MOST_AXES:
        return f"it has {array.ndim} axes, an archive holds up to {MOST_AXES}; reshape it"
    return None


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
    _require_bytes(array, source)
    raise UsageError(f"{source}: found shape {array.shape}, expected (N,H,W), (N,H,W,1 or 3) or (N,1 or 3,H,W)")


def _require_bytes(array: NDArray[np.generic], source: str) -> None:
    if array.dtype not in (np.uint8, np.bool_):
        raise UsageError(f"{source}: found {array.dtype}, expected uint8 or bool; {advice(array)}")


def advice(array: NDArray[Any]) -> str:
    """How numbers ``array`` (at least one) that are not uint8 can become so, and what is lost that way."""
    kept = "compress keeps the array as it is"
    if array.dtype.kind not in "iuf":
        return kept
    low, high, whole, nan, infinite = _survey(array)
    if nan or infinite:
        return f"{nan} values are NaN and {infinite} infinite, which no pixel can be: decide what they shall be; {kept}"
    held = f"8 bits hold 256 values, found {low}..{high}"
    most = 1 << (53 if array.dtype.kind == "f" else 64)  # beyond it numbers are not told apart
    if whole and -most <= low and high < most and high - low < (most if array.dtype.kind == "u" else most >> 1):
        low, high = int(low), int(high)
        if low >= 0 and high <= 255:
            return "x.astype(np.uint8) keeps every value"
        if not low:
            moved = "x"
        elif array.dtype.itemsize == 8 and array.dtype.kind != "f":
            moved = "(x - x.min())"  # which no wider type has to hold
        else:
            moved = f"(x.astype(np.int64) {'-' if low > 0 else '+'} {abs(low)})"
        if high - low <= 255:
            return f"{held}; {moved}.astype(np.uint8) keeps the differences"
        step = -(-(high - low + 1) // 256)
        return f"{held}; ({moved} // {step}).astype(np.uint8) makes {step} values one; {kept}"
    if high == low:
        return f"all values are {low}; {kept}"
    if low >= 0 and 0.5 < high <= 1:
        return f"np.rint(x * 255).astype(np.uint8) rounds values in 0..1 to 256 levels; {kept}"
    scaled = f"np.rint((x.astype(np.float64) - {low!r}) / {high - low!r} * 255).astype(np.uint8)"
    return f"{held}; {scaled} rounds to 256 levels; {kept}"


def _survey(array: NDArray[Any]) -> tuple[float, float, bool, int, int]:
    """(lowest, highest, whether all are whole, how many are NaN, how many infinite) of numbers, read part by part."""
    rows = array if array.ndim else np.reshape(array, 1)
    low, high, whole, nan, infinite = np.inf, -np.inf, True, 0, 0
    at_once = max(1, (1 << 22) * len(rows) // array.size)
    for begin in range(0, len(rows), at_once):
        part = np.asarray(rows[begin : begin + at_once])
        if part.dtype.kind == "f":
            nan += int(np.isnan(part).sum())
            infinite += int(np.isinf(part).sum())
            whole = whole and bool((np.rint(part) == part).all())
        low, high = min(low, part.min().item()), max(high, part.max().item())
    return low, high, whole, nan, infinite


def kind_of(array: NDArray[np.generic]) -> str:
    """What an array holds: "sequence", series (N,T) or bytes (n,), or else "image"."""
    return "sequence" if array.ndim in (1, 2) else "image"


def reading(array: NDArray[np.generic], data: NDArray[np.uint8]) -> str:
    """In words, how an array was read: ``data`` (N,C,H,W) are its items."""
    count, channels, height, width = data.shape
    if array.ndim == 1:
        rest = array.size - count * width
        return f"{count} pieces of {width} bytes" + (f"; the last {rest} bytes are left out" if rest else "")
    if array.ndim == 2:
        return f"{count} series of {width} values"
    return f"{count} {'grey' if channels == 1 else 'RGB'} images of {height}x{width}"


def doubt(array: NDArray[np.generic]) -> str:
    """What else the shape of an array may mean, after a semicolon; empty where nothing comes to mind."""
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
    """Series (N,1,1,T) of an array (N,T), or of bytes (n,), which are cut into whole pieces of ``length`` or, without one,
    of :func:`piece_length`; or a UsageError."""
    if array.ndim == 1 and array.dtype == np.uint8 and array.size:
        length = piece_length(array.size) if length is None else length
        if array.size < length:
            raise UsageError(f"{source}: found {array.size} bytes, expected at least {length}")
        array = pieces(array, length)[0]
    layout = series_layout(array)
    if layout is None:
        if array.ndim == 2 and array.size:
            _require_bytes(array, source)
        raise UsageError(
            f"{source}: found shape {array.shape} of {array.dtype}, expected series (N,T) of uint8 or bool, or bytes (n,)"
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
