"""items.py: layouts, value maps and what is refused."""

import re

import numpy as np
import pytest

from vaedensity import items
from vaedensity.errors import UsageError


def counting(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((5, 8, 9), "NHW"),
        ((1, 1, 1), "NHW"),
        ((5, 8, 9, 1), "NHWC"),
        ((5, 8, 9, 3), "NHWC"),
        ((5, 1, 8, 9), "NCHW"),
        ((5, 3, 8, 9), "NCHW"),
        ((5, 3, 8, 3), "NHWC"),  # ambiguous: the last dimension decides
        ((5, 1, 8, 3), "NHWC"),
        ((5, 3, 8, 1), "NHWC"),
        ((5, 2, 8, 9), None),
        ((5, 8, 9, 4), None),
        ((5, 8), None),
        ((5,), None),
        ((), None),
        ((5, 1, 1, 8, 9), None),
        ((0, 8, 9), None),
        ((5, 0, 9), None),
    ],
)
def test_layout_of_shapes(shape: tuple[int, ...], layout: str | None) -> None:
    assert items.layout_of(np.zeros(shape, np.uint8)) == layout
    assert items.layout_of(np.zeros(shape, np.bool_)) == layout


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "f4", "c8", "S1", "M8[s]"])
def test_only_bytes_and_booleans_are_images(dtype: str) -> None:
    assert items.layout_of(np.zeros((5, 8, 9), dtype)) is None


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3), (4, 1, 5, 6), (4, 3, 5, 6)])
def test_to_items_and_back(shape: tuple[int, ...]) -> None:
    array = counting(*shape)
    layout = items.layout_of(array)
    assert layout is not None
    stacked = items.to_items(array, layout)
    assert stacked.dtype == np.uint8 and stacked.shape[0] == 4 and stacked.shape[2:] == (5, 6)
    assert np.array_equal(items.from_items(stacked, layout), array)


def test_to_items_puts_each_channel_where_it_belongs() -> None:
    array = counting(2, 3, 4, 3)
    stacked = items.to_items(array, "NHWC")
    for n, y, x, c in np.ndindex(*array.shape):
        assert stacked[n, c, y, x] == array[n, y, x, c]


def test_booleans_become_zeros_and_ones() -> None:
    array = counting(3, 4, 5) % 2 == 0
    stacked = items.to_items(array, "NHW")
    assert stacked.dtype == np.uint8
    assert np.array_equal(stacked[:, 0], array.astype(np.uint8))


def test_require_items_of_fortran_order_and_views() -> None:
    array = counting(6, 4, 5)
    wanted = array[::2, ::-1][:, None]
    assert np.array_equal(items.require_items(np.asfortranarray(array[::2, ::-1]), "x"), wanted)
    assert np.array_equal(items.require_items(array[::2, ::-1], "x"), wanted)


@pytest.mark.parametrize(
    ("array", "found", "advice"),
    [
        (np.full((3, 4, 5), 0.5, np.float32), "float32", "all values are 0.5"),
        (np.zeros((3, 4, 5), np.float64), "float64", "x.astype(np.uint8) keeps every value"),
        (np.zeros((3, 4, 5), np.int64), "int64", "astype(np.uint8)"),
        (np.zeros((0, 4, 5), np.uint8), "(0, 4, 5)", "at least one item"),
        (np.zeros((3, 4), np.uint8), "(3, 4)", "(N,H,W)"),
        (np.zeros((3, 4, 5, 2), np.uint8), "(3, 4, 5, 2)", "(N,H,W)"),
    ],
)
def test_require_items_says_what_was_found_and_what_to_do(array: np.ndarray, found: str, advice: str) -> None:
    with pytest.raises(UsageError) as refusal:
        items.require_items(array, "some.npy")
    message = str(refusal.value)
    assert message.startswith("some.npy: ") and found in message and advice in message


@pytest.mark.parametrize(
    ("present", "levels", "values"),
    [
        ([0, 1], 2, [0, 1]),
        ([0, 255], 2, [0, 255]),
        ([3, 200], 2, [3, 200]),
        ([0], 2, [0, 1]),
        ([7], 2, [7, 8]),
        ([255], 2, [255, 254]),
        ([0, 1, 2], 3, None),
        ([5, 6, 16], 17, None),
        ([0, 128, 255], 256, None),
    ],
)
def test_value_map_round_trip(present: list[int], levels: int, values: list[int] | None) -> None:
    data = np.resize(np.array(present, np.uint8), (4, 1, 3, 5))
    assert items.value_map(data) == (levels, values)
    mapped, known = items.apply_map(data, levels, values)
    assert known.shape == (4,) and known.all()
    assert mapped.dtype == np.uint8 and mapped.max() < levels
    assert np.array_equal(items.undo_map(mapped, values), data)


def test_apply_map_points_out_exactly_the_items_with_unknown_values() -> None:
    data = np.zeros((5, 1, 2, 2), np.uint8)
    data[1, 0, 1, 1], data[3, 0, 0, 0] = 17, 255
    assert items.apply_map(data, 17, None)[1].tolist() == [True, False, True, False, True]
    data[4] = 255
    assert items.apply_map(data, 2, [0, 255])[1].tolist() == [True, False, True, True, True]


def test_undo_map_keeps_the_order_of_the_values() -> None:
    levels = np.array([[0, 1], [1, 0]], np.uint8)
    assert items.undo_map(levels, [255, 254]).tolist() == [[255, 254], [254, 255]]


ADVISED = {
    "12-bit": np.arange(4096, dtype=np.uint16),
    "hounsfield": np.arange(-1024, 3072, dtype=np.int16),
    "moved bytes": np.arange(300, 556, dtype=np.int32),
    "signed bytes": np.arange(-128, 128, dtype=np.int8),
    "bytes as int64": np.arange(256),
    "bytes as float": np.arange(256, dtype=np.float32),
    "shares": np.linspace(0, 1, 99),
    "negative floats": np.linspace(-3.5, 2.25, 99, dtype=np.float32),
    "large floats": np.linspace(0, 1e30, 99),
    "large whole numbers": np.array([0, 2**64 - 1], np.uint64),
    "far from zero": np.array([2**62, 2**62 + 5], np.int64),
    "beyond int64": np.uint64(2**63) + np.arange(256, dtype=np.uint64),
    "beyond int64, far apart": np.uint64(2**63) + np.arange(0, 5000, 7, dtype=np.uint64),
    "lowest of all": np.arange(256) + np.iinfo(np.int64).min,
    "from end to end": np.array([-(2**63), 0, 2**63 - 1]),
    "tiny floats": np.linspace(0, 1e-310, 99),
    "small shares": np.linspace(0, 0.01, 99),
    "half precision": np.linspace(-60000, 60000, 99).astype(np.float16),
}


@pytest.mark.parametrize("name", ADVISED)
def test_advice_does_what_it_says_and_never_wraps(name: str) -> None:
    x = ADVISED[name].reshape(1, 1, -1)
    with pytest.raises(UsageError) as refusal:
        items.require_items(x, "x")
    code, promise = re.findall(r"([^ ;][^;]*\.astype\(np\.uint8\)) (keeps|makes|rounds)", str(refusal.value))[0]
    y = eval(code, {"np": np, "x": x})
    assert y.dtype == np.uint8 and (np.diff(y.ravel().astype(int)) >= 0).all()  # as x, nothing has wrapped
    if promise == "keeps":
        assert (np.diff(y.ravel().astype(int)) == np.diff(x.ravel())).all()
    else:
        assert "compress keeps the array as it is" in str(refusal.value)
        assert y.min() == 0 and (y.max() == 255 or promise == "makes")


def test_values_that_no_pixel_can_be_are_counted() -> None:
    x = np.array([[[0.5, np.nan, np.inf, -np.inf, np.nan]]])
    with pytest.raises(UsageError, match="2 values are NaN and 2 infinite") as refusal:
        items.require_items(x, "x")
    assert "astype" not in str(refusal.value)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((64, 64, 3), "64 grey images of 64x3; if this is one RGB image, pass x[None]"),
        ((3, 64, 32), "3 grey images of 64x32; if this is one RGB image, pass x[None]"),
        ((64, 32, 4), "64 grey images of 32x4; one image of 4 channels cannot be read, 1 or 3 can"),
        ((9, 3, 8, 3), "9 RGB images of 3x8; if channels come first, pass x.transpose(0, 2, 3, 1)"),
        ((9, 3, 8, 7), "9 RGB images of 8x7"),
        ((9, 8, 7), "9 grey images of 8x7"),
        ((9, 8), "9 series of 8 values"),
        ((150,), "2 pieces of 64 bytes; the last 22 bytes are left out"),
    ],
)
def test_how_an_array_is_read_in_words(shape: tuple[int, ...], words: str) -> None:
    array = np.zeros(shape, np.uint8)
    data = items.require_series(array, "x") if len(shape) < 3 else items.require_items(array, "x")
    assert items.reading(array, data) + (items.doubt(array) if len(shape) > 2 else "") == words


def test_more_axes_than_an_archive_holds() -> None:
    assert items.why_not_stored(np.zeros((1,) * 8)) is None
    assert "9 axes, an archive holds up to 8" in items.why_not_stored(np.zeros((1,) * 9))
