"""The corpus (tests/corpus): the fewest inputs of the fuzzer that reach all the lines which it has ever reached.

`python -m scripts.nightly.fuzz --minimise` adds what it found and removes what is not needed. Files are named by their
hash.
"""

import hashlib
import shutil
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path
from random import Random

from scripts.nightly import CORPUS, Outcome
from scripts.nightly.fuzzing.lines import Line, reached
from scripts.nightly.fuzzing.targets import Chances, outcome, runs_of
from scripts.nightly.fuzzing.worker import HANG_SECONDS, Hang

SUFFIXES = (".vdz", ".safetensors")
LARGEST, TOTAL = 12_000, 280_000  # bytes of a file and of all


def lines_of(data: bytes, suffix: str, folder: Path) -> set[Line]:
    """All lines that an input reaches, whatever is done with it; none where it takes too long."""
    path, found = folder / f"input{suffix}", set()
    for run, _ in runs_of("all", suffix):
        path.write_bytes(data)
        signal.alarm(HANG_SECONDS)
        try:
            found |= reached(lambda run=run: outcome(run, path, Chances(Random(0), always=True), {}))
        except Hang:
            return set()
        finally:
            signal.alarm(0)
    return found


def cover(inputs: dict[str, tuple[bytes, set[Line]]]) -> list[str]:
    """Names of inputs that reach all lines, chosen by how many new ones each has for its size."""
    left, chosen, total = set().union(*(lines for _, lines in inputs.values())), [], 0
    while left:
        gains = {name: len(lines & left) / (200 + len(data)) for name, (data, lines) in inputs.items()}
        name = max(gains, key=lambda name: (gains[name], name))
        data, lines = inputs[name]
        if not gains[name]:
            break
        left -= lines
        if total + len(data) <= TOTAL:
            chosen.append(name)
            total += len(data)
    return chosen


def ring(number: int, frame: object) -> None:
    """What a signal does when a run has taken too long."""
    raise Hang(f"longer than {HANG_SECONDS} s")


def minimise(found: Path, corpus: Path) -> str:
    """Make the corpus the fewest inputs that reach all lines which those in ``found`` and in the corpus reach."""
    signal.signal(signal.SIGALRM, ring)
    corpus.mkdir(parents=True, exist_ok=True)
    inputs: dict[str, tuple[bytes, set[Line]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in [*sorted(corpus.iterdir()), *sorted(found.iterdir())]:
            data = path.read_bytes()
            name = hashlib.sha256(data).hexdigest()[:16] + path.suffix
            if path.suffix in SUFFIXES and len(data) <= LARGEST and name not in inputs:
                inputs[name] = data, lines_of(data, path.suffix, Path(folder))
                shutil.rmtree(Path(folder, "out"), ignore_errors=True)
    chosen = cover(inputs)
    for path in corpus.iterdir():
        if path.name not in chosen and path.suffix in SUFFIXES:
            path.unlink()
    for name in chosen:
        (corpus / name).write_bytes(inputs[name][0])
    total, lines = sum(len(inputs[name][0]) for name in chosen), set().union(*(inputs[name][1] for name in chosen))
    return f"{corpus}: {len(chosen)} of {len(inputs)} inputs, {total} bytes, {len(lines)} lines"


def replay(paths: Iterable[Path]) -> Outcome:
    """All that the readers do, with each of these files: it is accepted, or rejected with one line."""
    signal.signal(signal.SIGALRM, ring)
    cases, failures = 0, []
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, f"input{path.suffix}")
            for run, _ in runs_of("all", path.suffix):
                copy.write_bytes(path.read_bytes())
                cases += 1
                signal.alarm(HANG_SECONDS)
                try:
                    outcome(run, copy, Chances(Random(0), always=True), {})
                except (Exception, Hang) as error:
                    failures.append(f"{path.name}, {run.__name__}: {type(error).__name__}: {error}")
                finally:
                    signal.alarm(0)
    return Outcome(cases, failures)


def files() -> list[Path]:
    """The corpus."""
    return sorted(path for path in CORPUS.iterdir() if path.suffix in SUFFIXES)


def check(seconds: float, seed: int) -> Outcome:
    """Replay all of the corpus, whatever the time."""
    return replay(files())
