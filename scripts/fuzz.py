"""Run the readers of archives and models on inputs made to break them, and see that each is accepted or refused with one line.

    python scripts/fuzz.py [--minutes 60 | --runs N] [--seed S] [--target archive|model|plain|all] [--jobs 1]
                           [--corpus tests/corpus] [--minimise] [--json FILE] [--failures build/fuzz]

Inputs are goldens, small archives and models made at the start, and files of the corpus, altered: bytes of them, or what they are made of,
with checksums that are right. What reaches new lines of the package, or another refusal, is altered further. Exit status 1 where a
run crashed, hung (10 s of the processor), took more than 6 GiB, raised what is no refusal, or where two readers differ. Inputs that did are
written to the folder of failures. With --minimise the corpus becomes the fewest inputs that reach all lines found, of less than
300 KB together.
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

ROOT = Path(__file__).parent.parent
RUNS_OF_A_PROCESS, SECONDS_OF_A_PROCESS = 500_000, 900
SILENCE = 90  # seconds after which a process that says nothing is taken to hang where Python cannot stop it
FIRST_SILENCE = 600  # while it starts


class Process:
    """A worker, and the last that it said."""

    def __init__(self, work: Path, number: int, options: argparse.Namespace, runs: int, seconds: float):
        self.number, self.said, self.heard = number, {"runs": 0, "lines": 0, "seeds": 0, "failures": 0}, 0
        self.at, self.folder = time.monotonic(), work / f"run-{number}"
        line = [sys.executable, __file__, "--worker", str(work), str(number), str(runs), str(seconds)]
        line += ["--target", options.target, "--seed", f"{options.seed}", "--failures", str(options.failures)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"}
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)
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
        self.unmade: Counter[str] = Counter()
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
        """Take in the report of a worker that ended, or meta that it crashed."""
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
        self.unmade.update(found["unmade"])
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
            if time.monotonic() - shown > 10:
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
        spent = time.monotonic() - self.started
        files = Counter(Path(file).name for file, _ in self.lines)
        return {
            "target": self.options.target,
            "seed": self.options.seed,
            "seconds": round(spent, 1),
            "runs": self.tally["runs"],
            "rate": round(self.tally["runs"] / spent, 1),
            "outcomes": {key: n for key, n in sorted(self.tally.items()) if ":" in key},
            "kinds_of_refusal": len(self.refusals),
            "refusals": [[count, key, self.examples[key]] for key, count in self.refusals.most_common()],
            "unmade": dict(self.unmade.most_common(20)),
            "lines": len(self.lines),
            "lines_by_file": dict(sorted(files.items())),
            "failures": self.failures,
        }


def table(report: dict[str, Any]) -> None:
    print(
        f"\n{report['runs']} runs in {report['seconds']} s, {report['rate']} a second, {report['lines']} lines reached"
    )
    for key, count in report["outcomes"].items():
        print(f"  {count:9d}  {key}")
    print(f"{report['kinds_of_refusal']} kinds of refusal, the commonest:")
    for count, key, example in report["refusals"][:25]:
        print(f"  {count:9d}  {key.partition(' ')[0]}: {example}")
    for count, key, example in report["refusals"]:
        if "alone refuses" in key:
            print(f"  {count:9d}  {example}")
    for one in report["failures"]:
        print(f"FAILURE {one['kind']} at {one['where']}: {one['said']}  ({one['input']})")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--target", choices=("archive", "model", "plain", "all"), default="all")
    parser.add_argument("--corpus", type=Path, default=ROOT / "tests" / "corpus")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minimise", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--failures", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parsed()
    if options.worker:
        from fuzzing.worker import work

        folder, number, runs, seconds = options.worker
        seed = f"{options.seed}-{number}"
        work(Path(folder), options.target, seed, int(number), options.failures, int(runs), float(seconds))
        return 0
    if options.seeds:
        from fuzzing.seeds import write_seeds

        write_seeds(options.seeds, options.corpus)
        return 0
    sys.path.insert(0, str(ROOT))
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="vaedensity-fuzz-", dir=shared if shared.is_dir() else None) as work:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"}
        make = [sys.executable, __file__, "--seeds", str(Path(work, "seeds")), "--corpus", str(options.corpus)]
        subprocess.run(make, check=True, env=environment)
        campaign = Campaign(options, Path(work))
        campaign.run()
        report = campaign.report()
        table(report)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1))
        if options.minimise:
            minimise = [sys.executable, str(ROOT / "scripts" / "minimise_corpus.py"), str(Path(work, "seeds"))]
            subprocess.run([*minimise, str(options.corpus)], check=True, env=environment)
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
