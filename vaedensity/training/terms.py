"""What may be done to the loss before it is differentiated: terms of the objective as objects."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vaedensity.errors import UsageError
from vaedensity.training.penalties import GradientPenalty, flood


class LossTerm(ABC):
    """From a loss to the one that is minimised."""

    @abstractmethod
    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """A scalar from the scalar ``loss``, which has been made from ``parameters``."""


@dataclass(frozen=True)
class Flood(LossTerm):
    """|loss - level| + level (Ishida et al. 2020): no batch is pressed below ``level``, in bits per dimension.

    >>> import torch
    >>> Flood(1.0)(torch.tensor(0.25), []).item()
    1.75
    """

    level: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", float(self.level))  # 1 and 1.0 are the same setting
        if not math.isfinite(self.level):
            raise UsageError(f"flood: level is {self.level}, expected a finite number")

    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        return flood(loss, self.level)


@dataclass(frozen=True)
class PenaliseGradient(LossTerm):
    """loss + weight ||its gradient||^2 by double backward (Barrett & Dherin 2021): weight = rate / 4 adds what gradient
    top_down at that rate implies once more. About three times the time of a step."""

    weight: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", float(self.weight))
        GradientPenalty(self.weight)  # refuses what is not finite

    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        return loss + GradientPenalty(self.weight)(loss, parameters)
