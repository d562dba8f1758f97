"""How to train: a run's settings, and the record by which a saved run is resumed only with the same ones."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.errors import UsageError
from vaedensity.model.kinds import Config, Network
from vaedensity.training.egdd import EGDD
from vaedensity.training.gradients import ClipGlobalNorm, GradientTransform
from vaedensity.training.muon import Muon, split_matrices
from vaedensity.training.penalties import LossTerm, TwoRateAlternation
from vaedensity.training.schedule import FreeBits, KLWarmup, Length, WarmupCosine

OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], float, Network], torch.optim.Optimizer]] = {
    "muon": lambda groups, lr, model: Muon(split_matrices(groups, model.OUTPUT_LAYERS), lr),
    "adam": lambda groups, lr, model: torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99)),
    "egdd": lambda groups, lr, model: EGDD(groups, lr),
    "two-rate": lambda groups, lr, model: TwoRateAlternation(groups, lr),
}
NAMES = {  # of the keys of a record, in messages
    "config": "network (preset, likelihood or shape of the data)",
    "data_sha256": "data",
    "rate": "rate",
    "device": "device",
    "seed": "seed",
    "batch_size": "batch size",
    "optimizer": "optimizer",
    "gradient": "gradient transform",
    "terms": "loss term",
    "scales": "scaling of rates",
    "kl_warmup": "warm-up of the KL weight",
    "free_bits": "free bits",
    "fake_quantise": "fake-quantised tail",
    "initial": "init",
}


@dataclass(frozen=True)
class FitSettings:
    """How to train. Two runs of equal step count, settings, data and machine give equal weights.

    Parameters
    ----------
    length : Length
        When the run ends.
    optimizer : str
        "muon", "adam", "egdd" or "two-rate".
    batch_size : int
        Items a step; all items where there are fewer.
    schedule : WarmupCosine
        The learning rate over the run.
    kl_warmup : KLWarmup
        The weight of the KL term over the run.
    free_bits : FreeBits
        The least KL of every level that is not pushed down, over the run.
    terms : tuple of LossTerm
        Applied to the loss one after the other before it is differentiated.
    gradient : GradientTransform
        Applied to the gradients before each step.
    scales : mapping of str to float
        Factors of the learning rate by patterns of parameter names; 0 freezes (see ``param_groups``).
    average_decay : float
        Of the exponential moving average of the weights, which is what the run returns.
    seed : int
        Of initial weights, order of items, noise and dropout.
    device : str
        A torch device.
    full_precision_tail : float
        Share of the run at its end without bfloat16. Before it, bfloat16 is used where the device is fast at it.
    fake_quantise : bool
        Whether the network rounds in that tail as the integer network made of it will.
    validate_every : int
        Steps between judgements of the averaged weights on validation items; the best are kept.
    judged_items : int
        Validation items used for these judgements.
    save_every_seconds : float
        Seconds between saved states.

    Raises
    ------
    UsageError
        For an optimiser of another name.

    Examples
    --------
    >>> settings = FitSettings(Length(steps=100), optimizer="adam")
    >>> settings.batch_size, settings.gradient
    (64, ClipGlobalNorm(limit=1.0))
    """

    length: Length
    optimizer: str = "muon"
    batch_size: int = 64
    schedule: WarmupCosine = field(default_factory=WarmupCosine)
    kl_warmup: KLWarmup = field(default_factory=KLWarmup)
    free_bits: FreeBits = field(default_factory=FreeBits)
    terms: tuple[LossTerm, ...] = ()
    gradient: GradientTransform = field(default_factory=ClipGlobalNorm)
    scales: Mapping[str, float] = field(default_factory=dict)
    average_decay: float = 0.999
    seed: int = 0
    device: str = "cpu"
    full_precision_tail: float = 0.1
    fake_quantise: bool = True
    validate_every: int = 500
    judged_items: int = 2048
    save_every_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer {self.optimizer!r}: expected one of {', '.join(OPTIMIZERS)}")

    def record(self, config: Config, train: NDArray[np.uint8], initial: Mapping[str, Tensor] | None) -> dict[str, Any]:
        """What a run is made with, as plain values of JSON: with an equal record a saved run goes on the same way."""
        record = {
            "config": config.to_json(),
            "data_sha256": hashlib.sha256(np.ascontiguousarray(train).data).hexdigest(),
            "rate": self.schedule.peak,
            "device": torch.device(self.device).type,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "gradient": repr(self.gradient),
            "terms": repr(self.terms),
            "scales": [[pattern, float(scale)] for pattern, scale in self.scales.items()],
            "kl_warmup": repr(self.kl_warmup),
            "free_bits": repr(self.free_bits),
            "fake_quantise": self.fake_quantise,
            "initial": None if initial is None else _digest(initial),
        }
        plain: dict[str, Any] = json.loads(json.dumps(record))  # tuples are lists, as in a saved record
        return plain


def check_same(path: Path, saved: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise UsageError where the run saved at ``path`` was made with anything but what ``record`` names."""
    if other := [NAMES[key] for key, value in record.items() if saved.get(key) != value]:
        raise UsageError(
            f"{path}: was made with another {', '.join(other)}; go on with the same, or fit anew with overwrite=True"
        )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
