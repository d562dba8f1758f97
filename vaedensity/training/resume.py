"""What makes two runs the same: a saved one goes on only with what it was begun with."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vaedensity.errors import UsageError
from vaedensity.model.kinds import Config
from vaedensity.training.gradients import ClipGlobalNorm, GradientTransform
from vaedensity.training.schedule import FreeBits, KLWarmup

if TYPE_CHECKING:
    from vaedensity.training.fit import FitSettings

BEFORE_SETTINGS: dict[str, Any] = {
    "optimizer": "adam",
    "gradient": repr(ClipGlobalNorm()),
    "terms": "()",
    "scales": [],
    "kl_warmup": repr(KLWarmup()),
    "free_bits": repr(FreeBits(0.0)),
    "fake_quantise": False,
    "initial": None,
}
"""How states were made that are older than these settings and do not name them,"""
FIRST_WITH_MUON: dict[str, Any] = {"free_bits": repr(FreeBits()), "fake_quantise": True}
"""and those that name the optimiser only."""
NAMES = {
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


def asked_of(
    settings: "FitSettings",
    config: Config,
    train: np.ndarray,
    gradient: GradientTransform,
    initial: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """What a run is made with, as plain values for JSON."""
    return {
        "config": _jsonable(config.to_json()),
        "data_sha256": hashlib.sha256(np.ascontiguousarray(train)).hexdigest(),
        "rate": settings.schedule.peak,
        "device": torch.device(settings.device).type,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "optimizer": settings.optimizer,
        "gradient": repr(gradient),
        "terms": repr(settings.terms),
        "scales": [[pattern, float(scale)] for pattern, scale in settings.scales.items()],
        "kl_warmup": repr(settings.kl_warmup),
        "free_bits": repr(settings.free_bits),
        "fake_quantise": settings.fake_quantise,
        "initial": _digest(initial),
    }


def check_same(path: Path, counters: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise UsageError where the run saved at ``path`` was made with other than what is ``asked`` for now."""
    recorded = BEFORE_SETTINGS | (FIRST_WITH_MUON if "optimizer" in counters else {}) | dict(counters)
    if other := [NAMES[key] for key, value in asked.items() if recorded[key] != value]:
        raise UsageError(
            f"{path}: was made with another {', '.join(other)}; go on with the same, or fit anew with overwrite=True"
        )


def _digest(tensors: Mapping[str, Tensor] | None) -> str | None:
    """SHA-256 of tensors by name."""
    if tensors is None:
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _jsonable(record: dict[str, Any]) -> dict[str, Any]:
    return {
        k: [list(v) if isinstance(v, tuple) else v for v in value] if isinstance(value, tuple) else value
        for k, value in record.items()
    }
