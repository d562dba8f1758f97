"""Make the corpus the fewest inputs that reach all the lines that a folder of inputs and the corpus itself reach.

    python scripts/minimise_corpus.py INPUTS tests/corpus

`scripts/fuzz.py --minimise` calls it with what it found. Files are named by their hash; what the corpus held and is not needed is
removed. `tests/test_corpus.py` replays it.
"""

import hashlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing.lines import Line, reached
from fuzzing.targets import Chances, outcome, runs_of
from fuzzing.worker import HANG_SECONDS, Hang

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


def main(found: Path, corpus: Path) -> None:
    def ring(number: int, frame: object) -> None:
        raise Hang("too long")

    signal.signal(signal.SIGALRM, ring)
    corpus.mkdir(parents=True, exist_ok=True)
    inputs: dict[str, tuple[bytes, set[Line]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in [*sorted(corpus.iterdir()), *sorted(found.iterdir())]:
            data = path.read_bytes()
            name = hashlib.sha256(data).hexdigest()[:16] + path.suffix
            if path.suffix in (".vdz", ".safetensors") and len(data) <= LARGEST and name not in inputs:
                inputs[name] = data, lines_of(data, path.suffix, Path(folder))
                shutil.rmtree(Path(folder, "out"), ignore_errors=True)
    chosen = cover(inputs)
    for path in corpus.iterdir():
        if path.name not in chosen and path.suffix in (".vdz", ".safetensors"):
            path.unlink()
    for name in chosen:
        (corpus / name).write_bytes(inputs[name][0])
    total, lines = sum(len(inputs[name][0]) for name in chosen), set().union(*(inputs[name][1] for name in chosen))
    print(f"{corpus}: {len(chosen)} of {len(inputs)} inputs, {total} bytes, {len(lines)} lines")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
