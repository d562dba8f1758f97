"""Score a collection and write its rows."""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import items, units
from vaedensity.atomic import atomic_file, refuse_existing
from vaedensity.density.estimate import Estimate
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import ModelFile, finite

COLUMNS = ("index", "log_prob_nats", "standard_error_nats", "bits_per_dim", "elbo_nats", "ess")


@dataclass(frozen=True)
class Scores:
    """The estimate of every item and the record of ``score --json``."""

    estimate: Estimate
    record: dict[str, Any]


def score_array(
    file: ModelFile,
    array: NDArray[np.generic],
    source: str,
    *,
    samples: int = 64,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda n: None,
) -> Scores:
    """Importance-sampling scores of all items of ``array`` under the trained model."""
    if samples < 1 or batch_size < 1:
        raise UsageError(f"found {samples} samples and batch size {batch_size}; expected at least 1 of each")
    data = items.require_items(array, source)
    if data.shape[1:] != file.config.item_shape:
        raise UsageError(
            f"{source}: items are {_size(data.shape[1:])}, the model {file.path} scores {_size(file.config.item_shape)}; fit one to these data"
        )
    levels, known = items.apply_map(data, file.config.levels, file.values)
    if not known.all():
        expected = f"the values {file.values}" if file.values else f"values up to {file.config.levels - 1}"
        first = int(np.flatnonzero(~known)[0])
        raise UsageError(
            f"{source}: item {first} has values outside of what the model was fitted to ({expected}); fit again"
        )
    started = time.monotonic()
    model = file.float_model().to(device, memory_format=torch.channels_last)
    estimator = ImportanceSampling(samples=samples)
    torch.backends.cudnn.allow_tf32 = False  # eleven bits are too few for a likelihood
    estimate = score(
        model, levels, estimator, model_sha256=file.sha256, seed=seed, batch_size=batch_size, progress=progress
    )
    dims = file.config.dims
    record = {
        "n": len(estimate),
        "dims": dims,
        "samples": estimate.samples,
        "log_prob_nats": finite(float(estimate.log_prob_nats.mean())),
        "standard_error_nats": finite(estimate.mean_standard_error_nats),
        "bits_per_dim": finite(units.bits_per_dim(float(estimate.log_prob_nats.mean()), dims)),
        "elbo_bits_per_dim": finite(units.bits_per_dim(float(estimate.elbo_nats.mean()), dims)),
        "mean_ess": finite(float(estimate.ess.mean())),
        "estimator": "importance",
        "kind": str(estimate.kind),
        "model_sha256": file.sha256,
        "seed": seed,
        "seconds": time.monotonic() - started,
    }
    return Scores(estimate, record)


def write_rows(path: Path, scores: Scores, *, overwrite: bool) -> None:
    """One row per item as .csv or .jsonl; numbers that do not exist are empty, or null."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: expected a name ending in .csv or .jsonl")
    e = scores.estimate
    dims = scores.record["dims"]
    rates = [units.bits_per_dim(float(v), dims) for v in e.log_prob_nats]
    columns = [e.log_prob_nats.tolist(), e.standard_error_nats.tolist(), rates, e.elbo_nats.tolist(), e.ess.tolist()]
    with atomic_file(path, overwrite) as f:
        if suffix == ".csv":
            from io import TextIOWrapper

            text = TextIOWrapper(f, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text)
            writer.writerow(COLUMNS)
            for i, row in enumerate(zip(*columns)):
                writer.writerow([i, *("" if finite(v) is None else repr(v) for v in row)])
            text.detach()
        else:
            for i, row in enumerate(zip(*columns)):
                f.write((json.dumps(dict(zip(COLUMNS, [i, *map(finite, row)]))) + "\n").encode())


def check_rows_path(path: Path, *, overwrite: bool) -> None:
    """Refuse an output before the work rather than after it."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: expected a name ending in .csv or .jsonl")
    refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder; make it first")


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height}x{channels}"
