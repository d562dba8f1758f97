"""How anomalous is an item, given its log-likelihood? Every score is in bits per item, larger = more anomalous.

A high density alone is no proof that an item belongs: models of one image collection can give simpler images of another
a higher likelihood (Nalisnick et al. 2019a). The scores here are read off an Estimate that was made already;
``density/complexity.py`` adds a codec to it, ``density/regret.py`` asks the model again.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from vaedensity.density.estimate import Estimate, Floats
from vaedensity.errors import UsageError
from vaedensity.items import plain_array
from vaedensity.units import LN2


def information_bits(estimate: Estimate) -> Floats:
    """-log2 p(x) (N,) in bits: +inf where p is zero, NaN where it is undefined."""
    return -estimate.log_prob_nats / LN2


class AnomalyScore(ABC):
    """How anomalous items are, read off their estimates. A subclass is a frozen dataclass of its parameters and defines
    :meth:`bits`."""

    name: ClassVar[str]

    @final
    def score(self, estimate: Estimate, items: NDArray[np.uint8]) -> Floats:
        """The score of every item in bits, larger = more anomalous.

        Parameters
        ----------
        estimate : Estimate
            Of n items.
        items : (n, C, H, W) uint8 ndarray
            The same items in the user's own values.

        Returns
        -------
        (n,) float64
            +inf where the model rules an item out, NaN where the estimate is undefined.

        Raises
        ------
        UsageError
            Where items and estimates do not match.
        """
        if len(items) != len(estimate):
            raise UsageError(
                f"{self.name}: found {len(items)} items and {len(estimate)} estimates; expected one estimate an item"
            )
        return self.bits(estimate, plain_array(items, "items"))

    @abstractmethod
    def bits(self, estimate: Estimate, items: NDArray[np.uint8]) -> Floats:
        """What :meth:`score` returns once it has checked its arguments."""


@dataclass(frozen=True)
class Likelihood(AnomalyScore):
    """-log2 p(x) (Bishop 1994): what the item costs under the model.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-2:]
    >>> estimate = vd.score("digits", x)
    >>> bool((Likelihood().score(estimate, x) > 0).all())
    True
    """

    name: ClassVar[str] = "likelihood"

    def bits(self, estimate: Estimate, items: NDArray[np.uint8]) -> Floats:
        return information_bits(estimate)


@dataclass(frozen=True)
class Typicality(AnomalyScore):
    """| -log2 p(x) - H |, H the mean of -log2 p over normal items: too likely is as suspicious as too unlikely.

    Nalisnick et al. 2019b, section 3, for a set of one item.

    Parameters
    ----------
    reference : Estimate
        Of normal items that the model was not fitted to, by the same estimator.

    Raises
    ------
    UsageError
        Where the reference is empty or not all finite, or of another kind than the estimate.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-60:]
    >>> rule = Typicality(vd.score("digits", x[:50]))
    >>> rule.score(vd.score("digits", x[50:]), x[50:]).shape
    (10,)
    """

    reference: Estimate
    name: ClassVar[str] = "typicality"

    def __post_init__(self) -> None:
        finite = np.isfinite(self.reference.log_prob_nats)
        if not len(self.reference) or not finite.all():
            raise UsageError(
                f"typicality: found {int(finite.sum())} finite estimates among {len(self.reference)} reference items; "
                "expected at least one, and all of them finite: leave out what the model rules out"
            )

    @property
    def entropy_bits(self) -> float:
        """H, the typical information of an item."""
        return float(information_bits(self.reference).mean())

    def bits(self, estimate: Estimate, items: NDArray[np.uint8]) -> Floats:
        _require_same_kind(self.name, estimate, "reference", self.reference)
        distance: Floats = np.abs(information_bits(estimate) - self.entropy_bits)
        return distance


@dataclass(frozen=True)
class LikelihoodRatio(AnomalyScore):
    """log2 p_background(x) - log2 p(x) (Ren et al. 2019, eqs. 2 and 3): what the model loses to a general one.

    What both models know of images in general cancels. NaN where both rule the item out.

    Parameters
    ----------
    background : Estimate
        Of the same items under the second model, by the same estimator.

    Raises
    ------
    UsageError
        Where the background has another length or is of another kind.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-2:]
    >>> estimate = vd.score("digits", x)
    >>> LikelihoodRatio(background=estimate).score(estimate, x)  # a model against itself
    array([0., 0.])
    """

    background: Estimate
    name: ClassVar[str] = "ratio"

    def bits(self, estimate: Estimate, items: NDArray[np.uint8]) -> Floats:
        _require_same_kind(self.name, estimate, "background", self.background)
        if len(self.background) != len(estimate):
            raise UsageError(
                f"ratio: found {len(estimate)} estimates and {len(self.background)} under the background model; "
                "score the same items with both"
            )
        with np.errstate(invalid="ignore"):
            return information_bits(estimate) - information_bits(self.background)


def _require_same_kind(name: str, estimate: Estimate, other_name: str, other: Estimate) -> None:
    """Numbers that are biased differently must not be subtracted."""
    if estimate.kind is not other.kind:
        raise UsageError(
            f"{name}: found a {estimate.kind} and a {other_name} that is a {other.kind}; use one estimator for both"
        )
