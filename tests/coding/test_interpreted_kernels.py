"""The compiled loops do what their Python says: archives are the same where nothing is compiled."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import pack, patched, same, unpack
from model_cases import Items, network

from vaedensity.archive.block import Codec, Kind
from vaedensity.coding import stacks_choice
from vaedensity.coding.stacks_choice import fastest_stacks

MODULES = ("kernels", "mixture_rows")


@pytest.fixture(autouse=True)
def compiled() -> None:
    pytest.importorskip("numba")
    if fastest_stacks().__name__ != "CompiledStacks":
        pytest.skip(f"{stacks_choice.VARIABLE} asks for others")


def interpret(patch: pytest.MonkeyPatch) -> None:
    """From here on the loops are Python."""
    patch.setattr("numba.config.DISABLE_JIT", True)
    for name in MODULES:
        whole = f"vaedensity.coding.{name}"
        importlib.import_module(whole)
        patch.delitem(sys.modules, whole)
        patch.delattr(whole)
    for name in MODULES:
        module = importlib.import_module(f"vaedensity.coding.{name}")
        assert not hasattr(getattr(module, "push_one", None), "py_func")


@pytest.mark.parametrize(
    ("name", "ends_first", "particles"),
    [
        ("tall", False, 1),
        ("tall colour", True, 1),
        ("grey", True, 2),
        ("column", False, 1),
        ("colour categories", False, 1),
        ("twenty", None, 1),
    ],
)
def test_the_same_archive(
    name: str, ends_first: bool | None, particles: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, array = network(name)[0], Items(name, 3, "ramps", 1, "NHWC" if "colour" in name else "NHW").make()
    array[-1] = np.where(array[-1] % 2, array.max(), 0)  # ends, which can be coded first
    codec = None if ends_first is None else Codec(Kind.MODEL, particles > 1, ends_first)
    options = dict(codec=codec, particles=particles, verify=False)
    with patched(archive__model_blocks__WORTH_ASKING=float("inf")):
        assert pack(tmp_path / "a.vdz", {"x": array}, model, **options).model_items == 3
        interpret(monkeypatch)
        with np.errstate(over="ignore"):
            pack(tmp_path / "b.vdz", {"x": array}, model, **options)
            assert same(unpack(tmp_path / "a.vdz", model)["x"], array)
    assert (tmp_path / "a.vdz").read_bytes() == (tmp_path / "b.vdz").read_bytes()


def test_the_logarithm_of_many_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product of thousands of probabilities is too small for a number."""
    interpret(monkeypatch)
    stacks = fastest_stacks()(1)
    before = importlib.import_module("vaedensity.coding.kernels").measure
    share, bits = 1.0, 0.0
    for _ in range(100):
        share, bits = before(share, bits, 2)
    assert bits - np.log2(share) == pytest.approx(100 * 23) and stacks.is_empty().all()
