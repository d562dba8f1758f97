"""The engine follows the environment, and says what is wrong with it."""

import sys

import pytest

from vaedensity.coding.ans import Stacks
from vaedensity.coding.stacks_choice import VARIABLE, fastest_stacks
from vaedensity.errors import UsageError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    fastest_stacks.cache_clear()
    monkeypatch.delenv(VARIABLE, raising=False)
    yield  # type: ignore[misc]
    fastest_stacks.cache_clear()


def test_constriction_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "constriction")
    assert fastest_stacks() is Stacks


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "vaedensity.coding.kernels", raising=False)
    monkeypatch.delattr("vaedensity.coding.kernels", raising=False)
    assert fastest_stacks() is Stacks
    fastest_stacks.cache_clear()
    monkeypatch.setenv(VARIABLE, "compiled")
    with pytest.raises(UsageError, match="pip install numba"):
        fastest_stacks()


def test_without_a_folder_to_keep_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numba's decorator does where neither the package's folder nor a home can be written to."""
    numba = pytest.importorskip("numba")

    def refuse(**options: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba, "njit", refuse)
    monkeypatch.delitem(sys.modules, "vaedensity.coding.kernels", raising=False)
    monkeypatch.delattr("vaedensity.coding.kernels", raising=False)
    assert fastest_stacks() is Stacks


def test_compiled_where_numba_is() -> None:
    pytest.importorskip("numba")
    assert fastest_stacks().__name__ == "CompiledStacks"


def test_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fastest")
    with pytest.raises(UsageError, match="expected compiled or constriction"):
        fastest_stacks()
