"""The jobs of the command line for people who hold arrays rather than files.

``threads`` is how many to use; None: as many as are worth while here now (``vaedensity/machine.py``). What a caller has set in torch
changes no result, and is as it was afterwards.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaedensity.api.fit import pick_device
from vaedensity.api.score import ScoreRequest, score_array
from vaedensity.api.self_test import USUAL_ITEMS
from vaedensity.api.self_test import self_test as run_self_test
from vaedensity.arithmetic import fresh_thread
from vaedensity.density.annealed import Annealed
from vaedensity.density.bdmc import Sandwich
from vaedensity.density.estimate import Estimate
from vaedensity.density.estimator import Estimator
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import UsageError
from vaedensity.items import plain_array
from vaedensity.model.checkpoint import ModelFile
from vaedensity.model.checkpoint import load_model as read_model
from vaedensity.model.released import resolve


def load_model(name_or_path: str | Path) -> ModelFile:
    """A model file or released model, checked. Raises ModelError."""
    return read_model(resolve(str(name_or_path)))


@fresh_thread()
def score(
    model: ModelFile | str | Path,
    x: NDArray[np.generic],
    *,
    samples: int | None = None,
    estimator: Estimator | None = None,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "auto",
    threads: int | None = None,
) -> Estimate:
    """Estimates of log p(x) in nats for every item of ``x``, of bytes (n,) for every whole piece; see :class:`Estimate`.

    ``model``: as loaded, or a file or released name. ``estimator``: :class:`ImportanceSampling` with ``samples`` (64)
    unless given, else for example ``Jackknife(100)``, ``Annealed(16)`` or ``UntilStandardError(ImportanceSampling(64), 0.05)``.
    """
    if estimator is not None and samples is not None:
        raise UsageError("found samples and an estimator, which has its own; expected one of them")
    chosen = estimator or (ImportanceSampling() if samples is None else ImportanceSampling(samples))
    request = ScoreRequest(chosen, seed, batch_size, pick_device(device), threads)
    file = model if isinstance(model, ModelFile) else load_model(model)
    return score_array(file, plain_array(x, "array"), "array", request).estimate


@fresh_thread()
def self_test(
    model: ModelFile | str | Path,
    estimator: ImportanceSampling | Annealed,
    items: int = USUAL_ITEMS,
    *,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "auto",
    threads: int | None = None,
) -> Sandwich:
    """Lower and upper bounds of log p(x) for ``items`` items drawn from the model; see :class:`Sandwich`."""
    file = model if isinstance(model, ModelFile) else load_model(model)
    return run_self_test(file, items, ScoreRequest(estimator, seed, batch_size, pick_device(device), threads))[0]
