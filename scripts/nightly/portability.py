"""Prove that an archive decodes to the same bits under other kernels, threads, batch sizes, versions and readers.

    python -m scripts.nightly.portability --model digits --data digits:test --items 120 --python ../old/bin/python

Every combination of ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, OMP_NUM_THREADS and VAEDENSITY_ENGINE gets a process of
its own, which decodes a reference archive with batches of 1, 7 and 256 chains and encodes the data anew. So does a
process that may take no more than 600 MB beyond what importing takes, and each other interpreter that --python names
(with another version of torch, say). The numpy engine decodes the same archive without torch. All must agree with the
reference to the bit. Nothing is coded on a GPU, so none is asked.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scripts.nightly import ROOT, Outcome
from vaedensity.api.choose import open_model
from vaedensity.api.compress import pack
from vaedensity.data.collection import LoadOptions
from vaedensity.data.load import load, load_array

ATEN = ("default", "avx2", "avx512")
ONEDNN = ("SSE41", "AVX2", "AVX512_CORE")
THREADS = ("1", "2")
ENGINES = ("compiled", "constriction")
LOCKSTEP = (1, 7, 256)
LEAST, SIDE_BY_SIDE = 3, 2  # settings that are always run; processes at a time

WORKER = """
import hashlib, json, resource, sys
from pathlib import Path
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.reader import ArchiveFile
from vaedensity.data.load import load
from vaedensity.api.choose import open_model
from vaedensity.api.compress import pack

archive, data, model, out, room = sys.argv[1:6]
coder = open_model(model)
if int(room):
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + int(room), now + int(room)))
found = {"decoded": []}
for lockstep in map(int, sys.argv[6:]):
    with ArchiveFile(archive) as a:
        arrays = read_arrays(a, coder, lockstep=lockstep)
    found["decoded"].append(hashlib.sha256(b"".join(x.tobytes() for x in arrays.values())).hexdigest())
pack([load(data)], Path(out), coder, verify=False)
found["encoded"] = hashlib.sha256(Path(out).read_bytes()).hexdigest()
print(json.dumps(found))
"""
NUMPY_WORKER = """
import hashlib, json, sys
from vaedensity.api.models import model_for
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.reader import ArchiveFile

with ArchiveFile(sys.argv[1]) as archive:
    arrays = read_arrays(archive, model_for(archive, sys.argv[3], "numpy"))
assert "torch" not in sys.modules
print(json.dumps({"decoded": [hashlib.sha256(b"".join(x.tobytes() for x in arrays.values())).hexdigest()]}))
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
        """How many there are: decodings, and an encoding where the worker makes one."""
        return len(LOCKSTEP) + 1 if self.worker == WORKER else 1


def settings(engines: list[str], pythons: list[str]) -> list[Setting]:
    """Every process to be run. The first three are the plainest kernels, the numpy engine and little memory."""
    matrix = []
    for aten, onednn, threads, engine in itertools.product(ATEN, ONEDNN, THREADS, engines):
        variables = {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn, "OMP_NUM_THREADS": threads}
        name = f"aten {aten}, onednn {onednn}, threads {threads}, {engine}"
        matrix.append(Setting(name, variables | {"VAEDENSITY_ENGINE": engine}))
    reader = Setting("numpy engine", worker=NUMPY_WORKER)
    little = Setting("600 MB of room", {"OMP_NUM_THREADS": "1"}, room=600 << 20)
    found = [matrix[0], reader, little, *matrix[1:]]
    for python in pythons:
        found += [
            Setting(f"{python}, {engine}", {"VAEDENSITY_ENGINE": engine, "OMP_NUM_THREADS": "1"}, python)
            for engine in engines
        ]
        found.append(Setting(f"{python}, numpy engine", python=python, worker=NUMPY_WORKER))
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


def run_all(
    wanted: list[Setting], seconds: float, model: str = "digits", data: str = "digits:test", items: int = 60
) -> Outcome:
    """As many settings as start in the time, two side by side; at least three."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        array = np.ascontiguousarray(load_array(data, LoadOptions())[1][:items])
        source, reference = Path(folder, "data.npy"), Path(folder, "reference.vdz")
        np.save(source, array)
        pack([load(str(source))], reference, open_model(model), verify=False)
        decoded, encoded = (hashlib.sha256(x).hexdigest() for x in (array.tobytes(), reference.read_bytes()))

        def tried(job: tuple[int, Setting]) -> tuple[int, list[str]]:
            number, setting = job
            if number >= LEAST and time.monotonic() > end:
                return 0, []
            found = run(setting, [str(reference), str(source), model, str(Path(folder, f"{number}.vdz"))])
            hashes = found.get("decoded", [])
            assert isinstance(hashes, list)
            wrong = setting.checks - sum(one == decoded for one in hashes) - (found.get("encoded") == encoded)
            return setting.checks, [f"{setting.name}: {found.get('error', 'other bits')}"] * wrong

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            counts = list(pool.map(tried, enumerate(wanted)))
    return Outcome(sum(checks for checks, _ in counts), [line for _, wrong in counts for line in wrong])


def check(seconds: float, seed: int) -> Outcome:
    """All settings, in random order but for the first three."""
    wanted = settings(list(ENGINES), [])
    rest = wanted[LEAST:]
    random.Random(seed).shuffle(rest)
    return run_all([*wanted[:LEAST], *rest], seconds)


def main() -> int:
    """Settings of other interpreters, and of other models and data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--data", default="digits:test")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--python", nargs="+", default=[], help="other interpreters that have what vaedensity needs")
    options = parser.parse_args()
    outcome = run_all(settings(list(ENGINES), options.python), 1e9, options.model, options.data, options.items)
    print(f"{outcome.cases} checks, {len(outcome.failures)} failures", *outcome.failures, sep="\n")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
