"""Peak memory of `decompress`, `test` and `list` on a large archive, all processes together.

    python scripts/measure_memory.py data/mnist.npz:x_train --model mnist-fast --gigabytes 1

The data are repeated until they are so large, compressed once, and each command is watched: 20 times a second the proportional
set sizes (PSS, shared pages counted once) of the command and its workers are added up; the largest sum is printed. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vaedensity.data.load import load_array

COMMAND = [sys.executable, "-c", "from vaedensity.cli.main import main; main()"]


def tree_of(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [p for number in child.read_text().split() for p in tree_of(int(number))]
        except OSError:
            continue
    return found


def memory_of(pid: int) -> int:
    """Bytes of a process and its children, shared pages shared out."""
    total = 0
    for one in set(tree_of(pid)):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def watch(*arguments: object) -> tuple[int, float]:
    """(peak bytes, seconds) of a command, which must succeed."""
    started, peak = time.monotonic(), 0
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: exit status {process.returncode}")
    return peak, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as for vaedensity compress")
    parser.add_argument("--model")
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    _, array = load_array(options.data)
    count = int(options.gigabytes * 1e9 / array[:1].nbytes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = np.lib.format.open_memmap(folder / "large.npy", "w+", array.dtype, (count, *array.shape[1:]))
        for begin in range(0, count, len(array)):
            large[begin : begin + len(array)] = array[: min(len(array), count - begin)]
        large.flush()
        del large
        model = ["-m", options.model] if options.model else []
        rows = {}
        archive = folder / "large.vdz"
        for label, arguments in {
            "compress": ["compress", folder / "large.npy", "-o", archive, *model, "--no-verify"],
            "list": ["list", archive],
            "decompress --item": ["decompress", archive, "-o", folder / "item", *model, "--item", count // 2],
            "decompress": ["decompress", archive, "-o", folder / "out", *model],
        }.items():
            peak, seconds = watch(*arguments)
            rows[label] = {"peak_bytes": peak, "seconds": seconds}
            print(f"{label:<18} {peak / 1e6:8.0f} MB   {seconds:7.1f} s", flush=True)
        same = subprocess.run(["cmp", folder / "large.npy", folder / "out" / "large.npy"]).returncode == 0
        print(f"raw {count * array[:1].nbytes} bytes, archive {archive.stat().st_size}; restored the same: {same}")
    if options.json:
        options.json.write_text(json.dumps({"data": options.data, "items": count, "same": same, **rows}))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
