"""Parts for training any torch module, by name; they load on first use."""

from typing import TYPE_CHECKING

from vaedensity.lazy import on_first_use

if TYPE_CHECKING:
    from vaedensity.training.egdd import EGDD as EGDD
    from vaedensity.training.exponentiated import ExponentiatedGradient as ExponentiatedGradient
    from vaedensity.training.gradients import AddNoise as AddNoise
    from vaedensity.training.gradients import Centralise as Centralise
    from vaedensity.training.gradients import Chain as Chain
    from vaedensity.training.gradients import ClipAdaptive as ClipAdaptive
    from vaedensity.training.gradients import ClipGlobalNorm as ClipGlobalNorm
    from vaedensity.training.gradients import ClipNorm as ClipNorm
    from vaedensity.training.gradients import ClipValue as ClipValue
    from vaedensity.training.gradients import ForPattern as ForPattern
    from vaedensity.training.gradients import GradientTransform as GradientTransform
    from vaedensity.training.gradients import Sign as Sign
    from vaedensity.training.gradients import SkipOnSpike as SkipOnSpike
    from vaedensity.training.groups import param_groups as param_groups
    from vaedensity.training.groups import scaled_parametrization as scaled_parametrization
    from vaedensity.training.groups import set_rate as set_rate
    from vaedensity.training.muon import Muon as Muon
    from vaedensity.training.penalties import Flood as Flood
    from vaedensity.training.penalties import GradientPenalty as GradientPenalty
    from vaedensity.training.penalties import LossTerm as LossTerm
    from vaedensity.training.penalties import PenaliseGradient as PenaliseGradient
    from vaedensity.training.penalties import TwoRateAlternation as TwoRateAlternation
    from vaedensity.training.penalties import flood as flood
    from vaedensity.training.penalties import implicit_penalty as implicit_penalty

_HOMES = {
    "AddNoise": "gradients",
    "Centralise": "gradients",
    "Chain": "gradients",
    "ClipAdaptive": "gradients",
    "ClipGlobalNorm": "gradients",
    "ClipNorm": "gradients",
    "ClipValue": "gradients",
    "EGDD": "egdd",
    "ExponentiatedGradient": "exponentiated",
    "Flood": "penalties",
    "flood": "penalties",
    "ForPattern": "gradients",
    "GradientPenalty": "penalties",
    "GradientTransform": "gradients",
    "implicit_penalty": "penalties",
    "LossTerm": "penalties",
    "Muon": "muon",
    "param_groups": "groups",
    "PenaliseGradient": "penalties",
    "scaled_parametrization": "groups",
    "set_rate": "groups",
    "Sign": "gradients",
    "SkipOnSpike": "gradients",
    "TwoRateAlternation": "penalties",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
