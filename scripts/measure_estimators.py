"""Every estimator on the same items: what each says of log p(x), and what it costs.

    python scripts/measure_estimators.py mnist data/mnist.npz:x_test --annealed-items 32 --self-test-items 16

Items are evenly spaced in the data. Importance sampling's K samples are the first K of one stream of
each item, so rows of rising K are nested. BDMC (bounds from both sides) is on items drawn from the model.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaedensity import units
from vaedensity.api.model_items import ScoreRequest, load_model
from vaedensity.api.score import score_array
from vaedensity.api.self_test import self_test
from vaedensity.data.load import load_array
from vaedensity.density.annealed import Annealed
from vaedensity.density.estimate import K_HAT_LIMIT, Estimate
from vaedensity.density.estimator import Estimator
from vaedensity.density.importance import ImportanceSampling
from vaedensity.density.jackknife import Jackknife

COLUMNS = (
    "| estimator | kind | items | nats | bits/dim | Monte-Carlo s.e. | gain on the ELBO, nats "
    "| mean ESS | k-hat > 0.7 | seconds |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--annealed-items", type=int, default=32)
    parser.add_argument("--self-test-items", type=int, default=16)
    parser.add_argument("-k", "--samples", type=int, nargs="+", default=[1, 10, 100, 1000, 5000])
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--entropy-share", type=float, default=0.97)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    collection, array = load_array(options.data)
    array = np.ascontiguousarray(array[np.linspace(0, len(array) - 1, options.items).astype(int)])
    few = np.ascontiguousarray(array[np.linspace(0, len(array) - 1, options.annealed_items).astype(int)])
    file = load_model(options.model)
    name = (
        torch.cuda.get_device_name(options.device)
        if options.device != "cpu"
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"{options.model} on {options.data}, {file.config.dims} dimensions, {name}\n\n{COLUMNS}\n{'|---' * 10}|",
        flush=True,
    )
    annealed = Annealed(options.chains, entropy_share=options.entropy_share)
    records: list[dict[str, Any]] = []
    runs: list[tuple[Estimator, np.ndarray]] = [(ImportanceSampling(k), array) for k in options.samples]
    runs += [(Jackknife(k), array) for k in options.samples if 10 <= k <= 1000]
    runs += [(ImportanceSampling(max(options.samples)), few), (annealed, few)]
    for estimator, x in runs:
        scores = score_array(
            file, x, collection.source, ScoreRequest(estimator, batch_size=options.batch_size, device=options.device)
        )
        records.append(row(estimator, scores.estimate, file.config.dims, scores.summary.seconds))

    print(
        f"\n{options.self_test_items} items drawn from the model:\n\n"
        "| estimator | lower, nats | upper, nats | width | s.e. | seconds |\n|---|---|---|---|---|---|"
    )
    for tested in (ImportanceSampling(100), ImportanceSampling(max(options.samples)), annealed):
        started = time.monotonic()
        bounds = self_test(file, tested, options.self_test_items, batch_size=options.batch_size, device=options.device)
        record = {
            "estimator": repr(tested),
            "lower_nats": float(bounds.lower.log_prob_nats.mean()),
            "upper_nats": float(bounds.upper.log_prob_nats.mean()),
            "width_nats": bounds.mean_width_nats,
            "standard_error_nats": bounds.standard_error_nats,
        }
        print(
            f"| {tested.name}, K = {tested.samples} | {record['lower_nats']:.2f} | {record['upper_nats']:.2f} | "
            f"{record['width_nats']:.2f} | {record['standard_error_nats']:.2f} | {time.monotonic() - started:.0f} |",
            flush=True,
        )
        records.append(record)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")


def row(estimator: Estimator, e: Estimate, dims: int, seconds: float) -> dict[str, Any]:
    """Print one line and return it."""
    known = e.k_hat[~np.isnan(e.k_hat)]
    log_prob = float(e.log_prob_nats.mean())
    record = {
        "estimator": repr(estimator),
        "kind": str(e.kind),
        "items": len(e),
        "log_prob_nats": log_prob,
        "bits_per_dim": units.bits_per_dim(log_prob, dims),
        "standard_error_nats": e.mean_standard_error_nats,
        "gain_nats": log_prob - float(e.elbo_nats.mean()),
        "mean_ess": float(e.ess.mean()),
        "k_hat_above": float((known > K_HAT_LIMIT).mean()) if len(known) else float("nan"),
        "seconds": seconds,
        "per_item": e.log_prob_nats.tolist(),
    }
    print(
        f"| {estimator.name}, K = {estimator.samples} | {e.kind} | {len(e)} | {log_prob:.2f} | "
        f"{record['bits_per_dim']:.4f} | {record['standard_error_nats']:.3f} | {record['gain_nats']:.2f} | "
        f"{record['mean_ess']:.1f} | {100 * record['k_hat_above']:.0f} % | {seconds:.0f} |",
        flush=True,
    )
    return record


if __name__ == "__main__":
    main()
