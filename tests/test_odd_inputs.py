"""Whatever is given to be packed comes back whole or is refused: nothing is lost or altered without a word."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke, tree
from hypothesis import given
from hypothesis import strategies as st
from odd_files import all_came_back, depth, kinds
from profiles import PATIENT, cases

from vaedensity.data.load import load_array
from vaedensity.errors import UsageError

pytestmark = [PATIENT, pytest.mark.usefixtures("no_released")]
KINDS = list(kinds(np.random.default_rng(0)))
IMAGES = (".png", ".pgm", ".tif", ".bmp", ".webp", ".jpg", ".gif")


def came_back(folder: Path, given: Path, engine: str) -> dict[str, Any] | None:
    """What is restored of what was ``given``, or None where it was refused, with one line and no trace."""
    before = tree(folder)
    result = invoke("compress", given, "-o", folder / "a.vdz")
    assert isinstance(result.exception, SystemExit | None), result.exception
    if result.exit_code:
        lines = [line for line in result.stderr.splitlines() if line.startswith("vaedensity: ")]
        assert len(lines) == 1 and result.exit_code == 2, result.output
        assert tree(folder) == before
        return None
    assert {k: v for k, v in tree(folder).items() if k != "a.vdz"} == before
    result = invoke("-q", "decompress", folder / "a.vdz", "-o", folder / "out", "--engine", engine)
    assert result.exit_code == 0, result.output
    return tree(folder / "out")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def test_a_file_comes_back_whole_or_is_refused(tmp_path: Path, kind: tuple[str, str]) -> None:
    data = kinds(np.random.default_rng(1))[kind]
    path = tmp_path / f"x{kind[0]}"
    path.write_bytes(data)
    found = came_back(tmp_path, path, "torch")
    if found is not None:
        assert list(found) == [path.name] and all_came_back(kind[0], data, found[path.name])


@cases(40)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 5)), min_size=1, max_size=6), st.booleans())
def test_so_does_a_folder_of_them(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[tuple[str, str], int]], plain: bool
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "in" / "sub").mkdir(parents=True)
    expected = {}
    for number, (kind, seed) in enumerate(drawn):
        name = f"{'sub/' if number % 3 == 2 else ''}{number}{kind[0]}"
        expected[name] = kind[0], kinds(np.random.default_rng(seed))[kind]
        (folder / "in" / name).write_bytes(expected[name][1])
    found = came_back(folder, folder / "in", "numpy" if plain else "torch")
    assert found is not None  # a folder may hold anything
    files = {name.removeprefix("in/"): data for name, data in found.items() if data is not None}
    assert sorted(files) == sorted(expected)
    for name, (suffix, data) in expected.items():
        assert all_came_back(suffix, data, files[name]), name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] in IMAGES], ids=lambda kind: f"{kind[0]} {kind[1]}")
def test_what_is_fitted_has_the_depth_of_its_file(tmp_path: Path, kind: tuple[str, str]) -> None:
    """Images of other than 8 bits are refused, or, of fewer, read as the numbers that are stored."""
    data = kinds(np.random.default_rng(2))[kind]
    for name in ("a", "b"):
        (tmp_path / f"{name}{kind[0]}").write_bytes(data)
    try:
        _, array = load_array(str(tmp_path))
    except UsageError as refusal:
        assert "\n" not in str(refusal)
        return
    assert array.dtype == np.uint8 and depth(kind[0], data) in (1, 8), kind
    assert int(array.max()) < 1 << depth(kind[0], data)
