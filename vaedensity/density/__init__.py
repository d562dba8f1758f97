"""Estimators and scores; the names of functions that stand alone load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaedensity.density.annealed import Annealed as Annealed
    from vaedensity.density.entropy import normalise_entropy as normalise_entropy
    from vaedensity.density.entropy import scale_entropy as scale_entropy
    from vaedensity.density.importance import ImportanceSampling as ImportanceSampling
    from vaedensity.density.jackknife import Jackknife as Jackknife

_HOMES = {
    "Annealed": "annealed",
    "ImportanceSampling": "importance",
    "Jackknife": "jackknife",
    "normalise_entropy": "entropy",
    "scale_entropy": "entropy",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
