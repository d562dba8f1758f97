"""Networks and distributions; the names of those that stand alone load on first use."""

from typing import TYPE_CHECKING

from vaedensity.lazy import on_first_use

if TYPE_CHECKING:
    from vaedensity.model.argmax import ArgmaxNoise as ArgmaxNoise
    from vaedensity.model.argmax import Exponential as Exponential
    from vaedensity.model.argmax import Gumbel as Gumbel
    from vaedensity.model.argmax import Normal as Normal
    from vaedensity.model.argmax import Uniform as Uniform
    from vaedensity.model.argmax import floored as floored
    from vaedensity.model.dgcnn import DGCNN as DGCNN
    from vaedensity.model.dgcnn import GatedBlock as GatedBlock

_HOMES = {
    "ArgmaxNoise": "argmax",
    "DGCNN": "dgcnn",
    "Exponential": "argmax",
    "floored": "argmax",
    "GatedBlock": "dgcnn",
    "Gumbel": "argmax",
    "Normal": "argmax",
    "Uniform": "argmax",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
