"""Write to files, cut them off and replace them while vaedensity packs them; then look at what was made of them.

    python scripts/change_sources.py --rounds 200 [--seed 0] [--json FILE]

A command that succeeds must have made an archive that passes `vaedensity test`; one that is refused says in one line what changed
and leaves what was there before, and nothing else. With --keep-going, what was at rest must be in the archive. Prints a table; exits
1 if anything else happened.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked process cannot use its parent's threads

import numpy as np
from faults import Process, Run

from vaedensity.cli.main import main
from vaedensity.data.named import load_digits

AT_REST = b"nobody writes here\n" * 50
Change = Callable[[Path, random.Random], None]


def overwrite(path: Path, chance: random.Random) -> None:
    with open(path, "r+b", buffering=0) as f:
        f.seek(chance.randrange(128, path.stat().st_size - 64))
        f.write(chance.randbytes(64))


def cut_off(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def append(path: Path, chance: random.Random) -> None:
    with open(path, "ab", buffering=0) as f:
        f.write(chance.randbytes(chance.randint(1, 100)))


def replace(path: Path, chance: random.Random) -> None:
    other = path.with_name("other")
    shutil.copyfile(path, other)
    overwrite(other, chance)
    os.replace(other, path)


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


CHANGES: tuple[Change, ...] = (overwrite, cut_off, append, replace, remove)


def array(folder: Path) -> Path:
    np.save(folder / "live.npy", np.tile(load_digits(), (2, 1, 1)))
    return folder / "live.npy"


def log(folder: Path) -> Path:
    (folder / "live.log").write_bytes(np.random.default_rng(0).integers(0, 16, 1 << 19, np.uint8))
    return folder / "live.log"


def tree(folder: Path) -> Path:
    (folder / "logs").mkdir()
    for k in range(30):
        (folder / "logs" / f"{k}.log").write_bytes(np.random.default_rng(k).integers(0, 16, 1 << 14, np.uint8))
    return folder / "logs"


KINDS = (array, log, tree)


def prepared(kind: Callable[[Path], Path], parent: Path) -> tuple[Path, Path, list[str]]:
    """(folder, what will change, the command that packs it beside a file at rest)."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    source = kind(folder)
    (folder / "still").write_bytes(AT_REST)
    model = ["-m", "digits"] if kind is array else []
    return folder, source, ["-q", "compress", str(source), str(folder / "still"), "-o", "a.vdz", *model]


def usual_seconds(kind: Callable[[Path], Path], parent: Path) -> float:
    times = []
    for _ in range(3):
        folder, _, line = prepared(kind, parent)
        begin = time.monotonic()
        run = Process(line, folder).wait()
        times.append(time.monotonic() - begin)
        if run.status:
            raise SystemExit(f"{line} does not even work undisturbed: {run}")
        shutil.rmtree(folder)
    return statistics.median(times)


def judge(folder: Path, run: Run, keep_going: bool) -> tuple[str, str]:
    """(what happened, what is wrong with it)."""
    made = (folder / "a.vdz").exists()
    left = {p.name for p in folder.iterdir()} - {"live.npy", "live.log", "logs", "still", "a.vdz"}
    if left:
        return "left over", str(left)
    if run.status and not (run.said.startswith("vaedensity: ") and run.said.count("\n") == 1):
        return "not one line", run.said
    if run.status == 0 or (keep_going and run.status == 3):
        if not made or Process(["-q", "test", "a.vdz"], folder).wait().status:
            return "unreadable", run.said
        out = Process(["-q", "decompress", "a.vdz", "-o", "out"], folder).wait()
        if out.status or (folder / "out" / "still").read_bytes() != AT_REST:
            return "not restored", out.said
        return ("packed" if run.status == 0 else "the rest packed"), ""
    if run.status == 2 and not made:
        told = any(words in run.said for words in ("changed while it was read", "cannot be read", "no such file"))
        return ("rejected", "") if told else ("refused for another reason", run.said)
    return f"status {run.status}", run.said


def campaign(rounds: int, seed: int, parent: Path) -> tuple[Counter[tuple[str, str, str]], list[str]]:
    chance, counts, complaints = random.Random(seed), Counter[tuple[str, str, str]](), []
    with tempfile.TemporaryFile("w") as null:  # so that all forked from this process find everything compiled
        keep, sys.stdout = sys.stdout, null
        try:
            folder, _, line = prepared(array, parent)
            main([*line[:-4], "-o", str(folder / "a.vdz"), "-m", "digits"], standalone_mode=False)
        finally:
            sys.stdout = keep
    seconds = {kind: usual_seconds(kind, parent) for kind in KINDS}
    for n in range(rounds):
        kind, change = KINDS[n % len(KINDS)], CHANGES[n // len(KINDS) % len(CHANGES)]
        keep_going = n // len(KINDS) // len(CHANGES) % 2 == 1
        folder, source, line = prepared(kind, parent)
        process = Process([*line, "--keep-going"] if keep_going else line, folder)
        time.sleep(chance.random() * seconds[kind])
        victim = source if source.is_file() else source / f"{chance.randrange(30)}.log"
        change(victim, chance)
        run = process.wait()
        what, wrong = judge(folder, run, keep_going)
        counts[kind.__name__, change.__name__, what] += 1
        if wrong:
            complaints.append(f"{kind.__name__}, {change.__name__}, --keep-going {keep_going}: {what}: {wrong}")
            print(f"WRONG: {complaints[-1]}", flush=True)
        shutil.rmtree(folder)
    return counts, complaints


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="changes-") as folder:
        counts, complaints = campaign(options.rounds, options.seed, Path(folder).resolve())
    outcomes = sorted({what for _, _, what in counts})
    print("input  change     " + "  ".join(outcomes))
    for kind in KINDS:
        for change in CHANGES:
            found = [counts[kind.__name__, change.__name__, what] for what in outcomes]
            cells = "  ".join(str(n).rjust(len(what)) for n, what in zip(found, outcomes))
            print(f"{kind.__name__:6} {change.__name__:10} {cells}")
    print(f"{options.rounds} rounds; wrong: {len(complaints)}")
    if options.json:
        rows = [{"input": k, "change": c, "outcome": o, "count": n} for (k, c, o), n in sorted(counts.items())]
        options.json.write_text(json.dumps({"seed": options.seed, "rows": rows, "complaints": complaints}) + "\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(run())
