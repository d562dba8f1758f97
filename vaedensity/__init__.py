"""vaedensity: variational autoencoders as densities, scores and archives.

The public names load on first use, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from vaedensity.lazy import on_first_use

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vaedensity.data.named import load_digits as load_digits
    from vaedensity.density.annealed import Annealed as Annealed
    from vaedensity.density.estimate import Estimate as Estimate
    from vaedensity.density.importance import ImportanceSampling as ImportanceSampling
    from vaedensity.density.jackknife import Jackknife as Jackknife
    from vaedensity.density.until import UntilStandardError as UntilStandardError
    from vaedensity.errors import VaedensityError as VaedensityError
    from vaedensity.tasks.python import compress as compress
    from vaedensity.tasks.python import decompress as decompress
    from vaedensity.tasks.python import fit as fit
    from vaedensity.tasks.python import load_model as load_model
    from vaedensity.tasks.python import score as score
    from vaedensity.tasks.python import self_test as self_test
    from vaedensity.tasks.random_access import Archive as Archive
    from vaedensity.tasks.vae_density import VAEDensity as VAEDensity

_HOMES = {
    "Annealed": "density.annealed",
    "Archive": "tasks.random_access",
    "compress": "tasks.python",
    "decompress": "tasks.python",
    "Estimate": "density.estimate",
    "fit": "tasks.python",
    "ImportanceSampling": "density.importance",
    "Jackknife": "density.jackknife",
    "load_digits": "data.named",
    "load_model": "tasks.python",
    "score": "tasks.python",
    "self_test": "tasks.python",
    "UntilStandardError": "density.until",
    "VAEDensity": "tasks.vae_density",
    "VaedensityError": "errors",
}
__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
