"""How much slower the numpy decoder is than the torch one, for a model and data.

    python scripts/bench_numpy_decoder.py MODEL DATA [--items 300] [--repeats 3]

Compresses the first items of DATA (.npy, or .npz:name) with MODEL (a file or a released name) and decompresses the
archive with both engines in turn, each in a process of its own on one core. Prints the least time of each: of the whole
command, and of decoding alone, without the start of Python and its libraries.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "vaedensity.cli.main", "-q"]
ENGINES = ("torch", "numpy")


def run(*arguments: object) -> tuple[float, dict[str, object]]:
    """(seconds of a command, the JSON that it printed)."""
    started = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([*COMMAND, *map(str, arguments), "--json"], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - started, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    path, _, member = given.data.partition(":")
    loaded = np.load(path)
    array = (loaded[member or "x_test"] if path.endswith(".npz") else loaded)[: given.items]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "data.npy", array)
        _, packed = run("compress", folder / "data.npy", "-o", folder / "data.vdz", "-m", given.model)
        print(f"{len(array)} items, {packed['model_items']} by the model, {packed['bytes_out']} bytes")
        whole: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        alone: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        for _ in range(given.repeats):
            for engine in ENGINES:
                out = folder / engine
                options = ("-m", given.model, "-o", out, "-f", "--engine", engine)
                seconds, record = run("decompress", folder / "data.vdz", *options)
                whole[engine].append(seconds)
                alone[engine].append(float(str(record["seconds"])))
                assert np.array_equal(np.load(out / "data.npy"), array)
        for what, times in (("command", whole), ("decoding", alone)):
            torch_seconds, numpy_seconds = (min(times[engine]) for engine in ENGINES)
            ratio = numpy_seconds / torch_seconds
            print(f"{what:<8}  torch {torch_seconds:.2f} s  numpy {numpy_seconds:.2f} s  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
