"""items.py: layouts, value maps and what is refused."""

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
        (np.zeros((3, 4, 5), np.float32), "float32", "np.rint(x * 255).astype(np.uint8)"),
        (np.zeros((3, 4, 5), np.float64), "float64", "np.rint(x * 255).astype(np.uint8)"),
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
