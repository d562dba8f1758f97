"""Networks and distributions; the names of those that stand alone load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
