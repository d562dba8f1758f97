"""vaedensity: variational autoencoders as densities, scores and archives.

The public names load on first use, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from vaedensity.lazy import on_first_use

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vaedensity.api.archive import Archive as Archive
    from vaedensity.api.compress import compress as compress
    from vaedensity.api.decompress import decompress as decompress
    from vaedensity.api.fit import fit as fit
    from vaedensity.api.model_items import load_model as load_model
    from vaedensity.api.score import score as score
    from vaedensity.api.self_test import self_test as self_test
    from vaedensity.data.named import load_digits as load_digits
    from vaedensity.density.annealed import Annealed as Annealed
    from vaedensity.density.estimate import Estimate as Estimate
    from vaedensity.density.importance import ImportanceSampling as ImportanceSampling
    from vaedensity.density.jackknife import Jackknife as Jackknife
    from vaedensity.density.until import UntilStandardError as UntilStandardError
    from vaedensity.errors import VaedensityError as VaedensityError
    from vaedensity.sklearn import VAEDensity as VAEDensity

_HOMES = {
    "Annealed": "density.annealed",
    "Archive": "api.archive",
    "compress": "api.compress",
    "decompress": "api.decompress",
    "Estimate": "density.estimate",
    "fit": "api.fit",
    "ImportanceSampling": "density.importance",
    "Jackknife": "density.jackknife",
    "load_digits": "data.named",
    "load_model": "api.model_items",
    "score": "api.score",
    "self_test": "api.self_test",
    "UntilStandardError": "density.until",
    "VAEDensity": "sklearn",
    "VaedensityError": "errors",
}
__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
