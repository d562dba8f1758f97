"""What coupled particles gain in complete files, against the bound that as many independent ones have.

    python scripts/measure_particles.py mnist-fast data/mnist.npz:x_test -k 16

Prints, in bits per dimension: minus the integer model's ELBO, minus its K-sample bound (K independent pushes of every
item from stacks of random bits), the complete files with one and with K particles, their overhead, and the share of
the gap between the two bounds that the second file realises. Every block is verified by decoding.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from vaedensity import items
from vaedensity.api.choose import open_model
from vaedensity.api.compress import compress
from vaedensity.coding.ans import Stacks
from vaedensity.coding.engine import CodingModel
from vaedensity.coding.quantise import words_enough
from vaedensity.data.collection import Collection, LoadOptions
from vaedensity.data.load import load_array
from vaedensity.workers import Ticker, side_by_side

BATCH = 64


def independent_bits(model: CodingModel, array: np.ndarray, particles: int) -> np.ndarray:
    """Bits (particles, N) that bits-back takes for each item, from as many stacks of random bits."""
    layout = items.layout_of(array)
    assert layout is not None
    levels, known = items.apply_map(items.to_items(array, layout), model.integers.config.levels, model.values)
    assert known.all()
    codec = model.integers.bits_back()

    @torch.inference_mode()
    def push_all(k: int) -> np.ndarray:
        bits = np.empty(len(levels))
        for begin in range(0, len(levels), BATCH):
            part = torch.from_numpy(np.ascontiguousarray(levels[begin : begin + BATCH]))
            stacks = Stacks.random(len(part), words_enough(codec), seed=k * len(levels) + begin)
            codec.push(stacks, part)
            bits[begin : begin + len(part)] = stacks.information
        return bits

    return np.stack(list(side_by_side(push_all, range(particles), Ticker(lambda n: None))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("-k", "--particles", type=int, default=16)
    parser.add_argument("--items", type=int, help="only so many, evenly spaced")
    options = parser.parse_args()
    _, array = load_array(options.data, LoadOptions("data", False))
    if options.items is not None:
        array = array[np.linspace(0, len(array) - 1, options.items).round().astype(int)]
    array = np.ascontiguousarray(array)
    model, dims = open_model(options.model), array[0].size
    bits = independent_bits(model, array, options.particles)
    least = bits.min(0)
    bound = least - np.log2(np.exp2(least - bits).mean(0))
    elbo, iw = float(bits.mean() / dims), float(bound.mean() / dims)
    result = {"model": options.model, "items": len(array), "particles": options.particles, "elbo": elbo, "bound": iw}
    for k in (1, options.particles):
        with tempfile.TemporaryDirectory() as folder:
            collection = Collection("array", {"x": array}, {"kind": "npy", "name": "x.npy"})
            record = compress([collection], Path(folder, "a.vdz"), model, particles=k, say=print)
        used = record["particles"]
        result[f"file_{k}"] = record["bits_per_dim"]
        result[f"record_{k}"] = {
            key: record[key] for key in ("bytes_out", "expected_bits_per_dim", "overhead_bytes", "seconds")
        } | {"particles": used}
    result["share_of_gap"] = (elbo - result[f"file_{options.particles}"]) / (elbo - iw)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
