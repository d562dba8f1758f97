"""The process that runs inputs: it says once a second what it has done, and its parent sees when it says no more."""

import gc
import hashlib
import json
import os
import resource
import signal
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from scripts.nightly import GOLDEN
from scripts.nightly.fuzzing import lines
from scripts.nightly.fuzzing.mutate import mutate_bytes, mutate_model, mutate_parts
from scripts.nightly.fuzzing.parts import ModelParts, Parts, take_apart, take_model_apart
from scripts.nightly.fuzzing.targets import Chances, outcome, runs_of
from scripts.nightly.fuzzing.tiny import coding
from vaedensity.coding.engine import CodingModel
from vaedensity.errors import VaedensityError

HANG_SECONDS = 10  # of the processor, which others may use too; that a process waits for ever, its parent sees
ROOM = 6 << 30  # bytes of address space beyond what the process has at its start
WATCHED = 0.1  # of runs whose lines are seen, where that is not cheap
LARGEST_KEPT = 12_000
NOT_APART = (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, ArithmeticError, Exception)
KEEP_QUEUE = 4000
MODELS, SOUND = 0.02, 0.7  # shares of inputs made of models, and of seeds that are accepted
USUAL = {".vdz": 800, ".safetensors": 8000}  # bytes of a seed that is taken each time it is drawn


class Hang(BaseException):
    """A run took longer than HANG_SECONDS."""


class Seed(NamedTuple):
    data: bytes
    suffix: str
    parts: Parts | None


class Worker:
    """Runs inputs made of those in ``seeds``; what reaches new lines is written there too."""

    def __init__(self, work: Path, target: str, seed: str, number: int, failures: Path):
        self.work, self.target, self.rng, self.number = work, target, Random(seed), number
        self.failures, self.watcher = failures, lines.watcher()
        self.seeds: list[Seed] = []
        self.sound: list[Seed] = []
        self.models: dict[str, CodingModel] = {}
        self.tally: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.found: list[dict[str, str]] = []
        self.examples: dict[str, str] = {}
        self.loaded: set[str] = set()
        self.folder = work / f"run-{number}"
        self.folder.mkdir(exist_ok=True)

    def load(self) -> None:
        """Take in what is in the folder of seeds and was not there before."""
        for path in sorted((self.work / "seeds").iterdir()):
            if path.name in self.loaded or path.suffix not in (".vdz", ".safetensors"):
                continue
            self.loaded.add(path.name)
            if self.target == "model" and path.suffix == ".vdz":
                continue
            if self.target in ("archive", "numpy") and path.suffix != ".vdz":
                continue
            self.add(path.read_bytes(), path.suffix, path.stem.startswith("made-") or (GOLDEN / path.name).exists())

    def add(self, data: bytes, suffix: str, sound: bool = True) -> None:
        parts = None
        if suffix == ".vdz":
            try:
                parts = take_apart(data)
            except NOT_APART:
                parts = None
        self.seeds.append(Seed(data, suffix, parts))
        if sound:
            self.sound.append(self.seeds[-1])

    def choose(self) -> Seed:
        """A seed: small and sound ones more often (readers reach more of those), models rarely (they are slow)."""
        suffix = ".vdz"
        if self.target == "model" or (self.target == "all" and self.rng.random() < MODELS):
            suffix = ".safetensors"
        usual = USUAL[suffix]
        while True:
            seed = self.rng.choice(self.sound if self.rng.random() < SOUND else self.seeds)
            if seed.suffix == suffix and (len(seed.data) <= usual or self.rng.random() < usual / len(seed.data)):
                return seed

    def mutated(self, seed: Seed) -> bytes:
        rng, other = self.rng, self.rng.choice(self.seeds)
        if rng.random() < 0.08:
            data = seed.data
            for _ in range(rng.choice((1, 1, 2, 4))):
                data = mutate_bytes(rng, data, other.data)
            return data
        if seed.suffix == ".vdz" and seed.parts is not None:
            return mutate_parts(rng, seed.parts, other.parts).together()
        if seed.suffix == ".safetensors":
            try:
                parts: ModelParts = take_model_apart(seed.data)
            except NOT_APART:
                return mutate_bytes(rng, seed.data, other.data)
            if rng.random() < 0.05:
                return parts.together(mutate_bytes(rng, json.dumps(parts.record).encode()).decode("latin1"))
            return mutate_model(rng, parts).together(signed=rng.random() < 0.9)
        return mutate_bytes(rng, seed.data, other.data)

    def once(self) -> None:
        """One input, made, run and judged."""
        seed = self.choose()
        try:
            data = self.mutated(seed)
        except NOT_APART:
            data = mutate_bytes(self.rng, seed.data)
        self.judge(data, seed.suffix)

    def judge(self, data: bytes, suffix: str, always: bool = False) -> None:
        path = self.folder / f"input{suffix}"
        with open(path, "wb") as f:
            f.write(data)
        runs = runs_of(self.target, suffix)
        run = self.rng.choices([run for run, _ in runs], [weight for _, weight in runs])[0]
        chances, said = Chances(self.rng, always), ("", "", "")

        def go() -> None:
            nonlocal said
            said = outcome(run, path, chances, self.models)

        new: set[Any] = set()
        signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
        try:
            if lines.cheap() or self.rng.random() < WATCHED:
                new = self.watcher.new(go)
            else:
                go()
        except Hang as error:
            self.fail(data, suffix, "hang", error)
            return
        except (Exception, KeyboardInterrupt) as error:
            self.fail(data, suffix, type(error).__name__, error)
            return
        except BaseException as error:  # what pyo3 raises where Rust gives up
            self.fail(data, suffix, type(error).__name__, error)
            return
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.tally["runs"] += 1
        self.tally[f"{run.__name__[4:]}: {said[0]}"] += 1
        kind = f"{said[0]} {said[2]}"
        fresh = kind not in self.refusals
        if fresh:
            self.examples[kind] = said[1].replace(str(self.folder), "")[:110]
        self.refusals[kind] += 1
        if (new or fresh) and len(data) <= LARGEST_KEPT and len(self.seeds) < KEEP_QUEUE:
            self.keep(data, suffix, said[0] == "accepted")

    def keep(self, data: bytes, suffix: str, sound: bool) -> None:
        name = hashlib.sha256(data).hexdigest()[:16] + suffix
        self.loaded.add(name)
        (self.work / "seeds" / name).write_bytes(data)
        self.add(data, suffix, sound)

    def fail(self, data: bytes, suffix: str, kind: str, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)
        last = next((f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where) if "vaedensity" in f.filename), "")
        name = f"{kind}-{last.replace(':', '-')}-{self.number}"
        self.tally["failures"] += 1
        if not any(one["kind"] == kind and one["where"] == last for one in self.found):
            self.failures.mkdir(parents=True, exist_ok=True)
            path = self.failures / f"{name}{suffix}"
            path.write_bytes(data)
            self.found.append({"kind": kind, "where": last, "said": str(error)[:300], "input": str(path)})

    def report(self) -> dict[str, Any]:
        return {
            "tally": self.tally,
            "refusals": self.refusals,
            "examples": self.examples,
            "lines": sorted(self.watcher.seen),
            "seeds": len(self.seeds),
            "failures": self.found,
        }

    def tell(self) -> None:
        """Say how far it is, once a second."""
        short = {"runs": self.tally["runs"], "lines": len(self.watcher.seen), "seeds": len(self.seeds)}
        print(json.dumps(short | {"failures": self.tally["failures"]}), flush=True)


def limit_memory() -> None:
    """So much address space beyond what is used now, that a bomb is a MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, now + ROOM))


def work(folder: Path, target: str, seed: str, number: int, failures: Path, runs: int, seconds: float) -> None:
    """Run inputs until there were so many, or so long, then write the report to ``folder``."""
    started = time.monotonic()
    worker = Worker(folder, target, seed, number, failures)
    known_models(worker)
    worker.load()

    def ring(number: int, frame: Any) -> None:
        raise Hang(f"longer than {HANG_SECONDS} s")

    signal.signal(signal.SIGPROF, ring)
    gc.freeze()
    limit_memory()
    worker.tell()
    for one in worker.seeds[:]:
        worker.judge(one.data, one.suffix)
    told = 0.0
    while worker.tally["runs"] < runs and (now := time.monotonic()) - started < seconds:
        for _ in range(50):
            worker.once()
        if now - told > 1:
            told = now
            worker.tell()
    report = worker.report()
    (folder / f"report-{number}.json").write_text(json.dumps(report))
    worker.tell()
    os._exit(0)  # libraries say of what gc.freeze hides from them that it leaked


def known_models(worker: Worker) -> None:
    """The models of goldens, by hash."""
    if worker.target == "model":
        return
    for path in sorted(GOLDEN.glob("*.safetensors")):
        try:
            model = coding(path.read_bytes(), path.stem)
        except VaedensityError:
            continue
        worker.models[model.sha256] = model
