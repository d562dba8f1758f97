"""What is said of metas that make no sense: in restore metadata's words, never in Python's."""

import re
from typing import Any

import pytest
from test_tree_meta import ARRAYS, GOOD

from vaedensity.data.restore import check_restore_metadata
from vaedensity.data.tree_meta import check_tree, check_tree_meta
from vaedensity.errors import DamagedArchive

ANYTHING: list[Any] = [None, True, 5, 1.5, "x", ["x"], {"x": "x"}, [None], {"x": 5}, [["x"]], {}, []]
PYTHON = re.compile(
    r"object|has no|attribute|subscript|unhashable|NoneType|not supported|iterable|codec|indices|unpack|^'\w+'$|\('\w+'\)$"
)


def entry(**changes: Any) -> dict[str, Any]:
    return {"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}} | changes


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        (5, "a collection is a number, expected an object"),
        (None, "a collection is nothing, expected an object"),
        (entry(kind=None), "kind: found nothing, expected a text"),
        (entry(kind="tar"), "kind 'tar' is not known"),
        (entry(kind="a" * 500), f"kind '{'a' * 57}...' is not known"),
        (entry(files=["a"]), "kind 'npy' with files"),
        (entry(kind="folder"), "kind 'folder' without files"),
        (entry(name=5), "name: found a number, expected a text"),
        (entry(arrays=["x"]), "arrays: found a list, expected an object"),
        (entry(arrays={"x": None}), "arrays: found nothing as an original name, expected a text"),
        (entry(arrays={"x": "a\0b"}), r"an array has the original name 'a\x00b', which can be none"),
        (entry(arrays={"x": "\ud800"}), r"an array has the original name '\ud800', which can be none"),
        (entry(kind="files", files="ab", sizes=[1, 1]), "files: found a text, expected a list"),
        (entry(kind="files", files=["a", 5], sizes=[1, 1]), "files: found a number as a name, expected a text"),
        (entry(kind="npz", arrays={"x": "a", "y": "a"}), "two arrays have one original name"),
    ],
)
def test_found_and_expected(meta: Any, told: str) -> None:
    with pytest.raises(DamagedArchive) as caught:
        check_restore_metadata([meta], ["x"])
    assert str(caught.value) == f"the archive's restore metadata makes no sense ({told})"


@pytest.mark.parametrize("field", ["kind", "name", "arrays", "files", "sizes", "mode"])
@pytest.mark.parametrize("kind", ["npy", "npz", "folder", "file", "files"])
def test_any_value_of_a_field_is_refused_in_its_words(kind: str, field: str) -> None:
    more = (
        {"files": ["a"], "mode": "L"} if kind == "folder" else {"files": ["a"], "sizes": [1]} if kind == "files" else {}
    )
    meta = entry(kind=kind, **more)
    check_restore_metadata([meta], ["x"])
    missing = {name: value for name, value in meta.items() if name != field}
    for changed in (missing, *(meta | {field: value} for value in ANYTHING)):
        try:
            check_restore_metadata([changed], ["x"])
        except DamagedArchive as error:
            assert not PYTHON.search(str(error).replace("an object", "")), str(error)


@pytest.mark.parametrize("field", sorted({*GOOD} - {"kind", "name"}))
def test_any_value_of_a_field_of_a_tree_is_refused_in_its_words(field: str) -> None:
    missing = {name: value for name, value in GOOD.items() if name != field}
    for changed in (missing, *(GOOD | {field: value} for value in ANYTHING)):
        try:
            check_tree_meta(changed)
            check_tree(changed, ARRAYS)
        except DamagedArchive as error:
            assert not PYTHON.search(str(error).replace("an object", "")), str(error)


@pytest.mark.parametrize(
    ("group", "told"),
    [
        ({"mode": "L"}, "nothing as array and 'L' as mode"),
        ({"array": "grey"}, "'grey' as array and nothing as mode"),
        ({"array": 5, "mode": ["L"]}, "a number as array and a list as mode"),
        ({"array": "grey", "mode": "P"}, "'grey' as array and 'P' as mode"),
    ],
)
def test_a_group_without_array_or_mode(group: dict[str, Any], told: str) -> None:
    with pytest.raises(DamagedArchive) as caught:
        check_tree_meta(GOOD | {"images": [group, GOOD["images"][1]]})
    assert str(caught.value) == (
        f"the archive's restore metadata of a folder makes no sense (a group of images has {told}, expected the name of "
        "an array and one of L, RGB, 1)"
    )


def test_a_group_that_is_no_object_and_an_array_that_is_not_there() -> None:
    with pytest.raises(DamagedArchive, match="a group of images is a number, expected an object"):
        check_tree_meta(GOOD | {"images": [5]})
    with pytest.raises(DamagedArchive, match="array 'grey' is not there"):
        check_tree(GOOD, {name: array for name, array in ARRAYS.items() if name != "grey"})
