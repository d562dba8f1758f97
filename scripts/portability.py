"""Prove that an archive decodes to the same bits under other kernels, threads, batch sizes, versions and readers.

    python scripts/portability.py --model digits --data digits:test --items 120 --python ../old/bin/python

Every combination of ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, OMP_NUM_THREADS and VAEDENSITY_ENGINE gets a process of its
own, which decodes a reference archive with batches of 1, 7 and 256 chains and encodes the data anew. So do a process that may
take no more than 600 MB beyond what importing takes, and each other interpreter that --python names (with another version of torch, say).
The numpy reader decodes the same archive without torch. All must agree with the reference to the bit. Prints the counts; exits 1 on any
failure. Nothing is coded on a GPU, so none is asked.
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ATEN = ("default", "avx2", "avx512")
ONEDNN = ("SSE41", "AVX2", "AVX512_CORE")
THREADS = ("1", "2")
ENGINES = ("compiled", "constriction")
LOCKSTEP = (1, 7, 256)
ROOT = Path(__file__).parent.parent

WORKER = """
import hashlib, json, resource, sys
from pathlib import Path
import torch
from vaedensity.archive.decoding import read_arrays
from vaedensity.coding.stacks_choice import fastest_stacks
from vaedensity.archive.reader import ArchiveFile
from vaedensity.data.load import load
from vaedensity.api.choose import open_model
from vaedensity.api.compress import compress

archive, data, model, out, room = sys.argv[1:6]
coder = open_model(model)
if int(room):
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + int(room), now + int(room)))
kernels = torch.backends.cpu.get_cpu_capability()
found = {"said": f"{kernels}, torch {torch.__version__}, {fastest_stacks().__name__}", "decoded": []}
for lockstep in map(int, sys.argv[6:]):
    with ArchiveFile(archive) as a:
        arrays = read_arrays(a, coder, lockstep=lockstep)
    found["decoded"].append(hashlib.sha256(b"".join(x.tobytes() for x in arrays.values())).hexdigest())
compress([load(data)], Path(out), coder, verify=False)
found["encoded"] = hashlib.sha256(Path(out).read_bytes()).hexdigest()
print(json.dumps(found))
"""
NUMPY_WORKER = """
import hashlib, json, sys
from pathlib import Path
import numpy
from vaedensity.numpy_decoder.archive import read_arrays

arrays = read_arrays(Path(sys.argv[1]), sys.argv[3])
assert "torch" not in sys.modules
found = {"said": f"numpy {numpy.__version__}"}
print(json.dumps(found | {"decoded": [hashlib.sha256(b"".join(x.tobytes() for x in arrays.values())).hexdigest()]}))
"""


@dataclass(frozen=True)
class Setting:
    """One process: what runs it, under which variables, with how many bytes of room (0: all), which worker."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    room: int = 0
    worker: str = WORKER

    @property
    def checks(self) -> int:
        """Decodings, and an encoding where the worker makes one."""
        return len(LOCKSTEP) + 1 if self.worker == WORKER else 1


def settings(engines: list[str], pythons: list[str]) -> list[Setting]:
    """Every process to be run."""
    found = []
    for aten, onednn, threads, engine in itertools.product(ATEN, ONEDNN, THREADS, engines):
        variables = {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn, "OMP_NUM_THREADS": threads}
        name = f"aten {aten:<8} onednn {onednn:<12} threads {threads} {engine}"
        found.append(Setting(name, variables | {"VAEDENSITY_ENGINE": engine}))
    found.append(Setting("600 MB of room", {"OMP_NUM_THREADS": "1"}, room=600 << 20))
    found.append(Setting("numpy reader", worker=NUMPY_WORKER))
    for python in pythons:
        found += [
            Setting(f"{python} {engine}", {"VAEDENSITY_ENGINE": engine, "OMP_NUM_THREADS": "1"}, python)
            for engine in engines
        ]
        found.append(Setting(f"{python} numpy reader", python=python, worker=NUMPY_WORKER))
    return found


def run(setting: Setting, arguments: list[str]) -> dict[str, object]:
    """What the worker found, or the error it ended with."""
    rest = [str(setting.room), *map(str, LOCKSTEP)] if setting.worker == WORKER else []
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **setting.variables}
    command = [setting.python, "-c", setting.worker, *arguments, *rest]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
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
    parser.add_argument("--python", nargs="+", default=[], help="other interpreters that have what vaedensity needs")
    parser.add_argument("--only", default="", help="only settings whose name holds this")
    parser.add_argument("--side-by-side", type=int, default=2)
    options = parser.parse_args()

    import numpy as np

    from vaedensity.api.choose import open_model
    from vaedensity.api.compress import compress
    from vaedensity.data.collection import LoadOptions
    from vaedensity.data.load import load, load_array

    with tempfile.TemporaryDirectory() as folder:
        _, array = load_array(options.data, LoadOptions())
        array = np.ascontiguousarray(array[: options.items])
        data, reference = Path(folder, "data.npy"), Path(folder, "reference.vdz")
        np.save(data, array)
        record = compress([load(str(data))], reference, open_model(options.model), verify=False)
        decoded, encoded = (hashlib.sha256(x).hexdigest() for x in (array.tobytes(), reference.read_bytes()))

        def check(job: tuple[int, Setting]) -> tuple[int, int]:
            number, setting = job
            out = str(Path(folder, f"{number}.vdz"))
            found = run(setting, [str(reference), str(data), options.model, out])
            hashes = found.get("decoded", [])
            assert isinstance(hashes, list)
            right = sum(one == decoded for one in hashes) + (found.get("encoded") == encoded)
            wrong = setting.checks - right
            print(f"{setting.name}: {found.get('error') or found['said']}, {wrong} failures", flush=True)
            return setting.checks, wrong

        wanted = [one for one in settings(options.engines, options.python) if options.only in one.name]
        jobs = list(enumerate(wanted))
        with ThreadPoolExecutor(options.side_by_side) as pool:
            counts = list(pool.map(check, jobs))
    total, failures = (sum(c) for c in zip(*counts))
    print(
        f"{record['items']} items, {record['bits_per_dim']:.4f} bits/dim; {len(jobs)} environments, {total} checks, {failures} failures"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
