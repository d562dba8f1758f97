"""Prove that an archive decodes to the same bits under other kernels, threads and batch sizes.

    python scripts/portability.py --model digits --data digits:test --items 120

Every combination of ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, OMP_NUM_THREADS and VAEDENSITY_ENGINE gets a process of its
own, which decodes a reference archive with batches of 1, 7 and 256 chains and encodes the data anew.
All must agree with the reference to the bit. Prints the counts; exits 1 on any failure.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ATEN = ("default", "avx2", "avx512")
ONEDNN = ("SSE41", "AVX2", "AVX512_CORE")
THREADS = ("1", "2")
ENGINES = ("compiled", "constriction")
LOCKSTEP = (1, 7, 256)

WORKER = """
import hashlib, json, sys
from pathlib import Path
import torch
from vaedensity.coding.reader import Archive
from vaedensity.data.load import load
from vaedensity.tasks.models import open_model
from vaedensity.tasks.packing import compress

archive, data, model, out = sys.argv[1:5]
coder = open_model(model)
found = {"kernels": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(), "decoded": []}
for lockstep in map(int, sys.argv[5:]):
    with Archive(archive) as a:
        arrays = a.read(coder, lockstep=lockstep)
    found["decoded"].append(hashlib.sha256(b"".join(x.tobytes() for x in arrays.values())).hexdigest())
compress([load(data)], Path(out), coder, verify=False)
found["encoded"] = hashlib.sha256(Path(out).read_bytes()).hexdigest()
print(json.dumps(found))
"""


def run(environment: dict[str, str], arguments: list[str]) -> dict[str, object]:
    """What the worker found under ``environment``, or the error it ended with."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode != 0:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}"}
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--data", default="digits:test")
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--side-by-side", type=int, default=2)
    options = parser.parse_args()

    import hashlib

    import numpy as np

    from vaedensity.data.collection import LoadOptions
    from vaedensity.data.load import load, load_array
    from vaedensity.tasks.models import open_model
    from vaedensity.tasks.packing import compress

    with tempfile.TemporaryDirectory() as folder:
        _, array = load_array(options.data, LoadOptions())
        array = np.ascontiguousarray(array[: options.items])
        data, reference = Path(folder, "data.npy"), Path(folder, "reference.vdz")
        np.save(data, array)
        record = compress([load(str(data))], reference, open_model(options.model), verify=False)
        wanted = {"decoded": [hashlib.sha256(array.tobytes()).hexdigest()] * len(LOCKSTEP)}
        wanted["encoded"] = hashlib.sha256(reference.read_bytes()).hexdigest()  # type: ignore[assignment]

        def check(job: tuple[int, tuple[str, ...]]) -> tuple[int, int]:
            number, (aten, onednn, threads, engine) = job
            environment = {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn, "OMP_NUM_THREADS": threads}
            environment["VAEDENSITY_ENGINE"] = engine
            out = str(Path(folder, f"{number}.vdz"))
            found = run(environment, [str(reference), str(data), options.model, out, *map(str, LOCKSTEP)])
            decoded = found.get("decoded", [])
            assert isinstance(decoded, list)
            wrong = len(LOCKSTEP) - sum(a == b for a, b in zip(decoded, wanted["decoded"]))
            wrong += found.get("encoded") != wanted["encoded"]
            print(
                f"aten {aten:<8} onednn {onednn:<12} threads {threads} {engine:<12}: {found.get('error') or found['kernels']}, {wrong} failures",
                flush=True,
            )
            return len(LOCKSTEP) + 1, wrong

        jobs = list(enumerate(itertools.product(ATEN, ONEDNN, THREADS, options.engines)))
        with ThreadPoolExecutor(options.side_by_side) as pool:
            counts = list(pool.map(check, jobs))
    total, failures = (sum(c) for c in zip(*counts))
    print(
        f"{record['items']} items, {record['bits_per_dim']:.4f} bits/dim; {len(jobs)} environments, {total} checks, {failures} failures"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
