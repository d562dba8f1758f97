"""Run the readers of archives and models on inputs made to break them: each is accepted, or rejected with one line.

    python -m scripts.nightly.fuzz [--minutes 60 | --runs N] [--seed S] [--target archive|model|numpy|all] [--jobs 1]
                                   [--corpus tests/corpus] [--minimise] [--failures build/fuzz]

Inputs are goldens, small archives and models made at the start, and files of the corpus, altered: bytes of them, or
what they are made of, with checksums that are right. What reaches new lines of the package, or another refusal, is
altered further. The exit status is 1 where a run crashed, hung (10 s of the processor), took more than 6 GiB, raised
another exception than a refusal, or where two readers differ. Inputs that did are written to the folder of failures.
With --minimise the corpus becomes the fewest inputs that reach all lines found, of less than 300 KB together.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import Any

from scripts.nightly import CORPUS, ROOT, Outcome
from scripts.nightly.corpus import minimise
from scripts.nightly.fuzzing.seeds import write_seeds
from scripts.nightly.fuzzing.worker import work

RUNS_OF_A_PROCESS, SECONDS_OF_A_PROCESS = 500_000, 900
SILENCE = 90  # seconds after which a process that says nothing is taken to hang where Python cannot stop it
FIRST_SILENCE = 600  # while it starts
SETTING: dict[str, Any] = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}}


def command(*options: object) -> list[str]:
    """This script, with these options."""
    return [sys.executable, "-m", "scripts.nightly.fuzz", *map(str, options)]


class Process:
    """A worker, and the last that it said."""

    def __init__(self, work: Path, number: int, options: argparse.Namespace, runs: int, seconds: float):
        self.number, self.said, self.heard = number, {"runs": 0, "lines": 0, "seeds": 0, "failures": 0}, 0
        self.at, self.folder = time.monotonic(), work / f"run-{number}"
        line = command("--worker", work, number, runs, seconds, "--target", options.target)
        line += ["--seed", f"{options.seed}", "--failures", str(options.failures)]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, **SETTING)
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.said, self.at, self.heard = json.loads(line), time.monotonic(), self.heard + 1

    def stuck(self) -> bool:
        return time.monotonic() - self.at > (SILENCE if self.heard > 1 else FIRST_SILENCE)


class Campaign:
    """Workers one after the other, ``jobs`` at a time, and the sum of what they say."""

    def __init__(self, options: argparse.Namespace, work: Path):
        self.options, self.work, self.count = options, work, 0
        self.tally: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.lines: set[tuple[str, int]] = set()
        self.failures: list[dict[str, str]] = []
        self.started = time.monotonic()

    def left(self) -> tuple[int, float]:
        """(runs, seconds) still to do."""
        runs = self.options.runs or 1 << 60
        seconds = 1e9 if self.options.runs else 60 * self.options.minutes
        return runs - self.tally["runs"], seconds - (time.monotonic() - self.started)

    def start(self) -> Process:
        runs, seconds = self.left()
        share = -(-runs // self.options.jobs)
        self.count += 1
        return Process(
            self.work,
            self.count,
            self.options,
            min(share, RUNS_OF_A_PROCESS),
            min(seconds, SECONDS_OF_A_PROCESS),
        )

    def finished(self, process: Process) -> None:
        """Take in the report of a worker that ended, or note that it crashed."""
        report = self.work / f"report-{process.number}.json"
        if process.process.returncode != 0 or not report.exists():
            if not process.heard:
                raise SystemExit("a worker did not start")
            kind = "hang" if process.process.returncode == -signal.SIGKILL else "crash"
            self.options.failures.mkdir(parents=True, exist_ok=True)
            for path in process.folder.glob("input*"):
                target = self.options.failures / f"{kind}-{process.number}{path.suffix}"
                shutil.copyfile(path, target)
                said = f"status {process.process.returncode}"
                self.failures.append({"kind": kind, "where": "", "said": said, "input": str(target)})
            self.tally["runs"] += process.said["runs"]
            self.tally["failures"] += 1
            return
        found = json.loads(report.read_text())
        self.tally.update(found["tally"])
        self.refusals.update(found["refusals"])
        self.examples |= found["examples"]
        self.lines |= {(file, line) for file, line in found["lines"]}
        self.failures += found["failures"]

    def run(self) -> None:
        running: list[Process] = []
        shown = 0.0
        while True:
            runs, seconds = self.left()
            more = runs > 0 and seconds > 5
            while more and len(running) < self.options.jobs:
                running.append(self.start())
            if not running:
                return
            time.sleep(0.2)
            for process in running[:]:
                if process.stuck():
                    process.process.kill()
                if process.process.poll() is not None:
                    running.remove(process)
                    self.finished(process)
            if not self.options.quiet and time.monotonic() - shown > 10:
                shown = time.monotonic()
                self.show(running)

    def show(self, running: list[Process]) -> None:
        spent = time.monotonic() - self.started
        done = self.tally["runs"] + sum(p.said["runs"] for p in running)
        reached = max([len(self.lines), *(p.said["lines"] for p in running)])
        bad = self.tally["failures"] + sum(p.said["failures"] for p in running)
        seeds = max((p.said["seeds"] for p in running), default=0)
        print(
            f"{spent:6.0f} s  {done:9d} runs  {done / spent:6.0f}/s  {reached} lines  {seeds} seeds  {bad} failures",
            flush=True,
        )

    def report(self) -> dict[str, Any]:
        """What all workers found."""
        spent = time.monotonic() - self.started
        return {
            "seconds": round(spent, 1),
            "runs": self.tally["runs"],
            "outcomes": {key: n for key, n in sorted(self.tally.items()) if ":" in key},
            "refusals": [[count, key, self.examples[key]] for key, count in self.refusals.most_common()],
            "lines": len(self.lines),
            "failures": self.failures,
        }


def table(report: dict[str, Any]) -> None:
    """What the runs came to, and the commonest reasons to reject an input."""
    print(f"\n{report['runs']} runs in {report['seconds']} s, {report['lines']} lines reached")
    for key, count in report["outcomes"].items():
        print(f"  {count:9d}  {key}")
    print(f"{len(report['refusals'])} kinds of refusal, the commonest, and those of one reader alone:")
    for number, (count, key, example) in enumerate(report["refusals"]):
        if number < 25 or "alone refuses" in key:
            print(f"  {count:9d}  {key.partition(' ')[0]}: {example}")


def fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """Make the seeds, run the workers, and say what they found."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="vaedensity-fuzz-", dir=shared if shared.is_dir() else None) as work:
        seeds = Path(work, "seeds")
        subprocess.run([*command("--seeds", seeds), "--corpus", options.corpus], check=True, **SETTING)
        campaign = Campaign(options, Path(work))
        campaign.run()
        report = campaign.report()
        if options.minimise:
            print(minimise(seeds, options.corpus))
    return report


def check(seconds: float, seed: int) -> Outcome:
    """Inputs of all kinds for this long, at least ten seconds."""
    report = fuzz(parser().parse_args(["--minutes", str(max(10, seconds) / 60), "--seed", str(seed), "--quiet"]))
    return Outcome(report["runs"], failures_of(report))


def failures_of(report: dict[str, Any]) -> list[str]:
    """One line for each."""
    return [f"{one['kind']} at {one['where']}: {one['said']} ({one['input']})" for one in report["failures"]]


def parser() -> argparse.ArgumentParser:
    """The options, and two hidden ones of the processes that this one starts."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--minutes", type=float, default=60)
    found.add_argument("--runs", type=int)
    found.add_argument("--seed", default="0")
    found.add_argument("--target", choices=("archive", "model", "numpy", "all"), default="all")
    found.add_argument("--corpus", type=Path, default=CORPUS)
    found.add_argument("--jobs", type=int, default=1)
    found.add_argument("--minimise", action="store_true")
    found.add_argument("--failures", type=Path, default=ROOT / "build" / "fuzz")
    found.add_argument("--quiet", action="store_true")
    found.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    found.add_argument("--seeds", type=Path, help=argparse.SUPPRESS)
    return found


def main() -> int:
    options = parser().parse_args()
    if options.worker:
        folder, number, runs, seconds = options.worker
        seed = f"{options.seed}-{number}"
        work(Path(folder), options.target, seed, int(number), options.failures, int(runs), float(seconds))
    elif options.seeds:
        write_seeds(options.seeds, options.corpus)
    else:
        report = fuzz(options)
        table(report)
        for line in failures_of(report):
            print(f"FAILURE {line}")
        return 1 if report["failures"] else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
