"""Peak memory of `decompress`, `test` and `list` on a large archive, all processes together.

    python scripts/measure_memory.py data/mnist.npz:x_train --model mnist-fast --gigabytes 1

The data are compressed once, and their blocks written so often that the archive is that large. Each command is watched:
20 times a second the proportional set sizes (PSS, shared pages counted once) of the command and its workers are added
up; the largest sum is printed. Linux only.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vaedensity.archive.container import Writer
from vaedensity.archive.reader import ArchiveFile
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


def enlarged(archive: Path, out: Path, rows: np.ndarray, times: int) -> None:
    """An archive of ``rows`` so many times over, made of the blocks of an archive of them."""
    with ArchiveFile(archive) as one, open(out, "xb") as f:
        record = {**one.record, "arrays": [{**one.record["arrays"][0], "shape": [len(rows) * times, *rows.shape[1:]]}]}
        writer, digest = Writer(f, record), hashlib.sha256()
        for k in range(times):
            digest.update(rows.tobytes())
            for index, block in enumerate(one.blocks):
                payload, checksum = one.payload(index)
                assert checksum is not None
                writer.add(0, k * len(rows) + block.first, block.items, block.coder, payload, checksum)
        writer.finish([digest.digest()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as for vaedensity compress, .npy or .npz of images")
    parser.add_argument("--model", default="mnist-fast")
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    _, array = load_array(options.data)
    rows = np.ascontiguousarray(array)
    times = max(1, round(options.gigabytes * 1e9 / rows.nbytes))
    with tempfile.TemporaryDirectory() as name:
        folder, figures = Path(name), {}
        np.save(folder / "once.npy", rows)
        once, archive, model = folder / "once.vdz", folder / "large.vdz", ["-m", options.model]
        commands = {
            "compress, once": ["compress", folder / "once.npy", "-o", once, *model, "--no-verify"],
            "list": ["list", archive],
            "decompress --item": ["decompress", archive, "-o", folder / "item", *model, "--item", len(rows) // 2],
            "decompress": ["decompress", archive, "-o", folder / "out", *model],
        }
        for label, arguments in commands.items():
            peak, seconds = watch(*arguments)
            figures[label] = {"peak_bytes": peak, "seconds": seconds}
            print(f"{label:<18} {peak / 1e6:8.0f} MB   {seconds:7.1f} s", flush=True)
            if not archive.exists():
                enlarged(once, archive, rows, times)
        back = np.load(folder / "out" / "once.npy", mmap_mode="r")
        same = all(np.array_equal(back[k * len(rows) : (k + 1) * len(rows)], rows) for k in range(times))
        same = same and len(back) == times * len(rows)
        print(f"raw {back.nbytes} bytes, archive {archive.stat().st_size}; restored the same: {same}")
        if options.json:
            sizes = {"data": options.data, "raw_bytes": back.nbytes, "archive_bytes": archive.stat().st_size}
            options.json.write_text(json.dumps({**sizes, "same": same, **figures}))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
