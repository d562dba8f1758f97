"""Rows of what an archive restores, for every kind of meta."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from vaedensity.data.listing import rows_of
from vaedensity.errors import DamagedArchive


class Array(NamedTuple):
    dtype: Any
    shape: tuple[int, ...]


BYTES = np.dtype(np.uint8)
TREE = {
    "kind": "tree",
    "name": "t",
    "arrays": {"b": "b", "i": "i"},
    "entries": ["a.png", "d", "d/x", "l"],
    "types": "idfl",
    "links": ["d/x"],
    "sizes": [7],
    "bytes": ["b"],
    "images": [{"array": "i", "mode": "L"}],
}
CASES: list[tuple[dict[str, Any], dict[str, Array], list[tuple[Any, ...]]]] = [
    (
        {"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}},
        {"x": Array(np.dtype("<f4"), (5, 2, 3))},
        [("x.npy", None, 5, [2, 3], "float32", 120)],
    ),
    (
        {"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}},
        {"x": Array(np.dtype("<f4"), ())},
        [("x.npy", None, 1, [], "float32", 4)],
    ),
    (
        {"kind": "npz", "name": "z.npz", "arrays": {"p": "one", "q": "two"}},
        {"p": Array(BYTES, (4,)), "q": Array(np.dtype("<i8"), (0, 3))},
        [
            ("z.npz", None, 4, None, None, 4),
            ("one", "z.npz", 4, [], "uint8", 4),
            ("two", "z.npz", 0, [3], "int64", 0),
        ],
    ),
    (
        {"kind": "file", "name": "f", "arrays": {"pieces": "pieces", "rest": "rest"}},
        {"pieces": Array(BYTES, (2, 64)), "rest": Array(BYTES, (5,))},
        [("f", None, 1, None, None, 133)],
    ),
    (
        TREE,
        {"b": Array(BYTES, (7,)), "i": Array(BYTES, (1, 2, 5))},
        [
            ("t/", None, 2, None, None, 17),
            ("a.png", "t", None, [2, 5], "uint8", 10),
            ("d/", "t", None, None, None, None),
            ("d/x", "t", None, None, None, 7),
            ("l -> d/x", "t", None, None, None, None),
        ],
    ),
]


@pytest.mark.parametrize(("meta", "arrays", "rows"), CASES, ids=[meta["kind"] for meta, _, _ in CASES])
def test_rows(meta: dict[str, Any], arrays: dict[str, Array], rows: list[tuple[Any, ...]]) -> None:
    assert [tuple(row.values()) for row in rows_of(meta, arrays)] == rows


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(DamagedArchive):
        list(rows_of(TREE, {"b": Array(BYTES, (7,)), "i": Array(BYTES, (2, 2, 5))}))
