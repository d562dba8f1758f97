"""Rates of a model on held-out data: real and integer ELBO, and the importance-sampling estimate.

    python scripts/measure_rates.py mnist data/mnist.npz:x_test -k 64 [--items 10000]

The cost of quantisation is the integer model's -ELBO (as coded, one draw per item, from stacks of
random bits) over the real model's (one draw per item). Each comes with the standard error of its
mean over items; the two share the items, not the draws.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from vaedensity.api.choose import open_model
from vaedensity.api.model_items import ScoreRequest
from vaedensity.api.score import score_array
from vaedensity.coding.quantise import coded_bits
from vaedensity.data.load import load_array
from vaedensity.density.importance import ImportanceSampling
from vaedensity.items import apply_map, require_items
from vaedensity.model.checkpoint import load_model
from vaedensity.model.released import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("-k", "--samples", type=int, default=64)
    parser.add_argument("--items", type=int, help="only so many, evenly spaced")
    parser.add_argument("--draws", type=int, default=1, help="Draws per item of both ELBOs.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    collection, array = load_array(options.data)
    if options.items is not None:  # evenly spaced: some test sets are sorted by class
        array = np.ascontiguousarray(array[np.linspace(0, len(array) - 1, options.items).round().astype(int)])
    file, coder = load_model(resolve(options.model)), open_model(options.model)
    levels, _ = apply_map(require_items(array, collection.source), file.config.levels, file.values)
    items = torch.from_numpy(np.ascontiguousarray(levels))
    dims = file.config.dims

    one_draw = ScoreRequest(ImportanceSampling(options.draws), seed=1)
    real = score_array(file, array, collection.source, one_draw).summary.elbo_bits_per_dim
    integer = float(np.mean([coded_bits(coder.integers, items, seed=1000 * d) for d in range(options.draws)])) / dims
    print(f"{options.model} on {options.data}: {len(array)} items of {dims} dimensions, {options.draws} draws an item")
    print(f"-ELBO, real model:    {real:.5f} bits/dim")
    print(f"-ELBO, integer model: {integer:.5f} bits/dim, quantisation {100 * (integer / real - 1):+.3f} %", flush=True)
    started = time.monotonic()
    r = score_array(file, array, collection.source, ScoreRequest(ImportanceSampling(options.samples))).summary
    print(
        f"importance sampling, K = {r.samples}: {r.bits_per_dim:.5f} bits/dim, {r.log_prob_nats:.3f} nats "
        f"(Monte-Carlo standard error {r.standard_error_nats}), {r.kind}; "
        f"-ELBO of the same draws {r.elbo_bits_per_dim:.5f}, gap {r.elbo_bits_per_dim - r.bits_per_dim:.5f}; "
        f"mean ESS {r.mean_ess:.1f}; {time.monotonic() - started:.0f} s"
    )
    if options.json:
        options.json.write_text(json.dumps({"real": real, "integer": integer, "score": asdict(r)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
