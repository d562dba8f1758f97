"""A model file, data as the items that it takes, and estimates of these: what scoring, sampling and anomalies share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.density.estimate import Estimate
from vaedensity.density.estimator import Estimator, score_batches
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import ModelFile
from vaedensity.model.checkpoint import load_model as load_path
from vaedensity.model.kinds import Network, to_device
from vaedensity.model.released import resolve
from vaedensity.model.sequence_config import SequenceConfig


def load_model(name_or_path: str | Path) -> ModelFile:
    """Read and check a model file or a released model.

    Parameters
    ----------
    name_or_path : str or Path
        A file that ``fit`` wrote, or a released name such as "digits".

    Returns
    -------
    ModelFile
        Its configuration, its card, and ``float_model()``, the network.

    Raises
    ------
    ModelError
        Where there is no such model, or it is not whole.

    Examples
    --------
    >>> load_model("digits").config.item_shape
    (1, 8, 8)
    """
    return load_path(resolve(str(name_or_path)))


def scoring_model(file: ModelFile, device: str) -> Network:
    """The float network on ``device``, frozen. To be used in :func:`~vaedensity.arithmetic.full_precision`: the eleven
    bits of reduced precision are too few for a likelihood."""
    return to_device(file.float_model(), device).requires_grad_(False)


@dataclass(frozen=True)
class ItemLevels:
    """Items as the model takes them.

    Attributes
    ----------
    levels : (N, C, H, W) uint8
        Those of items that are not ``known`` mean nothing.
    known : (N,) bool
        Whether an item has only values that the model can make.
    """

    levels: NDArray[np.uint8]
    known: NDArray[np.bool_]

    @property
    def unseen(self) -> int:
        """How many items are not known."""
        return int((~self.known).sum())

    def known_levels(self, first: int = 0) -> NDArray[np.uint8]:
        """The levels of the known items from ``first`` on."""
        levels, known = self.levels[first:], self.known[first:]
        return levels if known.all() else levels[known]


def levels_of(file: ModelFile, array: NDArray[np.generic], source: str) -> ItemLevels:
    """``array`` as the model takes it; ``source`` is its name in messages.

    Raises
    ------
    UsageError
        For items of another kind or size than the model's.
    """
    if isinstance(file.config, SequenceConfig):
        data = items.require_series(array, source, file.config.length)
    else:
        data = items.require_items(array, source)
    if data.shape[1:] != file.config.item_shape:
        raise UsageError(
            f"{source}: items are {_size(data.shape[1:])}, the model {file.path} scores "
            f"{_size(file.config.item_shape)}; fit one to these data"
        )
    return ItemLevels(*items.apply_map(data, file.config.levels, file.values))


def model_levels(file: ModelFile, array: NDArray[np.generic], source: str) -> NDArray[np.uint8]:
    """The levels (N,C,H,W) of ``array``, as :func:`levels_of`, where all items have to be known."""
    found = levels_of(file, array, source)
    if found.unseen:
        raise UsageError(
            f"{source}: item {np.argmin(found.known)} has values outside of what the model was fitted to "
            f"({known_values(file)}); fit again"
        )
    return found.levels


def known_values(file: ModelFile) -> str:
    """What the model can make, in words."""
    return f"the values {file.values}" if file.values else f"values up to {file.config.levels - 1}"


@dataclass(frozen=True)
class ScoreRequest:
    """How to score.

    Attributes
    ----------
    estimator : Estimator
    seed : int
    batch_size : int
        Pairs of item and sample in memory at once; changes no result.
    device : str
        "cpu", "cuda" or "cuda:N".
    threads : int or None
        None: as many as are worth while.
    """

    estimator: Estimator = field(default_factory=ImportanceSampling)
    seed: int = 0
    batch_size: int = 256
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.estimator.samples < 1 or self.batch_size < 1:
            raise UsageError(
                f"found {self.estimator.samples} samples and batch size {self.batch_size}; expected at least 1 of each"
            )


def estimate_items(
    model: Network, data: ItemLevels, request: ScoreRequest, *, model_sha256: str, first: int = 0
) -> Iterator[Estimate]:
    """Estimates of the items from ``first`` on, a few at a time, in order: -inf where values are not known."""
    known = data.known[first:]
    at, seen, begin = np.flatnonzero(known), 0, 0
    for part in score_batches(
        model,
        data.known_levels(first),
        request.estimator,
        model_sha256=model_sha256,
        seed=request.seed,
        batch_size=request.batch_size,
    ):
        seen += len(part)
        end = int(at[seen]) if seen < len(at) else len(known)
        yield part.among(known[begin:end])
        begin = end
    if begin < len(known):
        yield Estimate.of_unseen(len(known) - begin, request.estimator.kind)


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height}x{channels}"
