"""Write to files, cut them off and replace them while vaedensity packs them; then look at what was made of them.

A command that succeeds must have made an archive that passes `vaedensity test`. One that is rejected says in one line
what changed, leaves what was there before, and nothing else. With --keep-going, the archive must hold what was at rest.
"""

import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import cycle, product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked process cannot use its parent's threads

import numpy as np

from scripts.nightly import Outcome
from scripts.nightly.faults import Process, Run
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
    """An array that a model codes."""
    np.save(folder / "live.npy", load_digits()[:400])
    return folder / "live.npy"


def log(folder: Path) -> Path:
    """One large file."""
    (folder / "live.log").write_bytes(np.random.default_rng(0).integers(0, 16, 1 << 19, np.uint8))
    return folder / "live.log"


def tree(folder: Path) -> Path:
    """A folder of thirty files."""
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
    """How long packing takes that nobody disturbs."""
    times = []
    for _ in range(2):
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
        return ("rejected", "") if told else ("rejected for another reason", run.said)
    return f"status {run.status}", run.said


def compile_everything(folder: Path) -> None:
    """Pack once in this process, so that all forked from it find everything imported and compiled."""
    made, _, line = prepared(array, folder)
    with open(os.devnull, "w") as null, redirect_stdout(null):
        main([*line[:-4], "-o", str(made / "a.vdz"), "-m", "digits"], standalone_mode=False)


def check(seconds: float, seed: int) -> Outcome:
    """Every change of every kind of input, with and without ``--keep-going``, again and again."""
    end, chance, rounds, complaints = time.monotonic() + seconds, random.Random(seed), 0, []
    with tempfile.TemporaryDirectory(prefix="changes-") as name:
        parent = Path(name).resolve()
        compile_everything(parent)
        usual = {kind: usual_seconds(kind, parent) for kind in KINDS}
        for change, keep_going, kind in cycle(product(CHANGES, (False, True), KINDS)):
            if rounds >= len(KINDS) and time.monotonic() > end:
                break
            folder, source, line = prepared(kind, parent)
            process = Process([*line, "--keep-going"] if keep_going else line, folder)
            time.sleep(chance.random() * usual[kind])
            change(source if source.is_file() else source / f"{chance.randrange(30)}.log", chance)
            what, wrong = judge(folder, process.wait(), keep_going)
            rounds += 1
            if wrong:
                complaints.append(f"{kind.__name__}, {change.__name__}, --keep-going {keep_going}: {what}: {wrong}")
            shutil.rmtree(folder)
    return Outcome(rounds, complaints)
