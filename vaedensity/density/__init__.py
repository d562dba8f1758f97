"""Estimators and scores; the names of functions that stand alone load on first use."""

from typing import TYPE_CHECKING

from vaedensity.lazy import on_first_use

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
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
