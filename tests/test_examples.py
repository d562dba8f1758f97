"""The examples in docstrings run and give what they show."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import vaedensity

MODULES = sorted(module.name for module in pkgutil.walk_packages(vaedensity.__path__, "vaedensity."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    module = import_module(name)
    if any(test.examples for test in doctest.DocTestFinder().find(module)):
        monkeypatch.chdir(tmp_path_factory.mktemp("examples"))
        found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        assert found.failed == 0 < found.attempted


def test_public_functions_have_examples() -> None:
    without = [
        name
        for name in vaedensity.__all__
        if callable(one := getattr(vaedensity, name))
        and not issubclass(one if isinstance(one, type) else int, Exception)
        if ">>>" not in (one.__doc__ or "")
    ]
    assert without == []
