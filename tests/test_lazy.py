"""Names that load on first use are listed before it: dir(), tab completion, import *."""

import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ["vaedensity", "vaedensity.training", "vaedensity.model"]


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_listed_is_there(package: str) -> None:
    module = import_module(package)
    assert {*module.__all__} <= {*dir(module)} == {*dir(module), "__doc__", "__name__"}
    assert all(getattr(module, name) is not None for name in dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense


def test_a_fresh_python_lists_and_completes_them_without_loading_torch() -> None:
    program = (
        "import rlcompleter, sys, vaedensity, vaedensity.training\n"
        "complete = rlcompleter.Completer({'vd': vaedensity}).attr_matches\n"
        "print('EGDD' in dir(vaedensity.training), 'compress' in dir(vaedensity), 'torch' in sys.modules)\n"
        "print('Muon' in dir(vaedensity.training), complete('vd.VAED')[0][:13])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["True True False", "True vd.VAEDensity"]
