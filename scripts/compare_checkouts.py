"""Is this checkout as fast as another, and are its archives as small? Whole commands, run in turn on the same data.

    git worktree add ../before COMMIT
    python scripts/compare_checkouts.py ../before . --data data/mnist.npz:x_test --model mnist-fast --pairs 5

Every pair compresses and decompresses once with each checkout, the second first in every other pair. What is decoded
must be the same. A first run of each, which may compile, is not counted. Names of models are those of each checkout.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COMMAND = "from vaedensity.cli.main import main; main()"


def run(checkout: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of a command of that checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, *arguments, "--json", "-f"],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def once(checkout: Path, data: str, model: str, folder: Path) -> tuple[int, float, float, bytes]:
    """(bytes of the archive, seconds in, seconds out, what came back)."""
    archive, out = folder / "a.vdz", folder / "out"
    packed = run(checkout, "compress", data, "-m", model, "-o", str(archive))
    restored = run(checkout, "decompress", str(archive), "-m", model, "-o", str(out))
    back = Path(restored["restored"][0]).read_bytes()
    return packed["bytes_out"], packed["seconds"], restored["seconds"], back


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("now", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--no-warm-up", action="store_true", help="Both have run here before.")
    options = parser.parse_args()
    both = [options.before, options.now]
    found: dict[Path, list[tuple[int, float, float]]] = {checkout: [] for checkout in both}
    with tempfile.TemporaryDirectory() as folder:
        backs = set()
        for pair in range(0 if options.no_warm_up else -1, options.pairs):
            for checkout in both if pair % 2 == 0 else reversed(both):
                *figures, back = once(checkout, options.data, options.model, Path(folder))
                backs.add(back)
                if pair >= 0:
                    found[checkout].append((figures[0], figures[1], figures[2]))
                    print(checkout, *figures, file=sys.stderr, flush=True)
    if len(backs) != 1:
        sys.exit("the checkouts restore different data")
    print(f"{options.data}, model {options.model}, {options.pairs} pairs\n")
    print("| | before | now | now / before |\n|---|---|---|---|")
    for name, column in (("bytes", 0), ("compress, median s", 1), ("decompress, median s", 2)):
        before, now = (statistics.median(row[column] for row in found[checkout]) for checkout in both)
        print(f"| {name} | {before:,.6g} | {now:,.6g} | {now / before:.4f} |")


if __name__ == "__main__":
    main()
