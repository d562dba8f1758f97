"""Kill vaedensity, fill its disk, interrupt it and race it against itself; then look at what is there.

    python scripts/inject_faults.py --kills 200 --enospc 100 [--seed 0] [--folder DIR] [--json FILE]

After each fault, everything that a command makes must be the old one or the new one, byte for byte, and a command that was not
killed must have said in one line why it failed. Then the command runs once more, to its end, and nothing may be there but results.
Half of the kills come at a random moment, most of them late, when files are written; half before a random line of the code that
gives files their names. Commands run in processes forked from this one, which has imported all they need, so that a fault takes a
second or less. Prints a table; exits 1 if anything was lost, wrong or left over.
"""

import argparse
import dataclasses
import errno
import json
import os
import pickle
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked process cannot use its parent's threads

import faults
import numpy as np
from faults import Process, Run
from PIL import Image

from vaedensity.cli.main import main
from vaedensity.data.named import load_digits

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR)
PAGE = 4096
Content = Any  # bytes of a file, {name: Content} of a folder, None of nothing


class Case(NamedTuple):
    """A command and what it makes of what, by the names of its results."""

    name: str
    before: dict[str, Content]
    after: dict[str, Content]
    command: list[str]
    rival: tuple[list[str], dict[str, Content]] | None = None  # that makes other things of the same names


@dataclasses.dataclass
class Row:
    operation: str
    fault: str
    injected: int = 0
    old: int = 0
    new: int = 0
    some: int = 0  # after a kill, until the next run: of several results, some are old and some new
    wrong: int = 0
    leftovers: int = 0


class Campaign:
    """Faults of commands that work on ``items`` of the embedded digits, below ``folder``."""

    def __init__(self, folder: Path, seed: int = 0, items: int = 60, say: Callable[[str], None] = print):
        self.folder, self.chance, self.say = folder, random.Random(seed), say
        self.rows: list[Row] = []
        self.complaints: list[str] = []
        self.skipped: list[str] = []
        self.seconds: dict[str, float] = {}
        self.cases = self._cases(items)

    def _cases(self, items: int) -> list[Case]:
        lines, archives, restored = [], [], []
        for n in range(2):
            source = self.folder / f"input-{n}"
            inputs = make_inputs(source, load_digits()[n * items :][:items], n)
            line = ["-q", "compress", *inputs, "-o", "a.vdz", "-m", "digits"]
            # In this process, so that all forked from it find everything imported and compiled.
            with chdir(source), open(os.devnull, "w") as null, redirected(null):
                main(line, standalone_mode=False)
                main(["-q", "decompress", "a.vdz", "-o", "restored"], standalone_mode=False)
            lines.append(line)
            archives.append(seen(source / "a.vdz"))
            restored.append(seen(source / "restored"))
        old, new = ({"a.vdz": archive} for archive in archives)
        out = [["-q", "decompress", str(self.folder / f"input-{n}" / "a.vdz"), "-o", "."] for n in range(2)]
        cases = [
            Case("compress", {}, new, lines[1], (lines[0], old)),
            Case("compress -f", old, new, [*lines[1], "-f"], ([*lines[0], "-f"], old)),
            Case("decompress", {}, restored[1], out[1], (out[0], restored[0])),
            Case("decompress -f", restored[0], restored[1], [*out[1], "-f"], ([*out[0], "-f"], restored[0])),
        ]
        if Process(["add", "--help"], self.folder).wait().status:
            self.skip("add: there is no such command")
            return cases
        line = ["-q", "add", "a.vdz", str(self.folder / "input-1" / "more.npy")]
        case = Case("add", old, {}, line)
        folder = self._ready(case)
        run = Process(line, folder).wait()
        if run.status:
            raise SystemExit(f"{line} does not even work undisturbed: {run}")
        return [*cases, case._replace(after=seen(folder))]

    def skip(self, line: str) -> None:
        self.skipped.append(line)
        self.say(f"LEFT OUT: {line}")

    def measure(self, repeats: int = 3) -> None:
        """How long commands take that meet no fault, whose results must be as expected."""
        for case in self.cases:
            times = []
            for _ in range(repeats):
                folder, begin = self._ready(case), time.monotonic()
                run = Process(case.command, folder).wait()
                times.append(time.monotonic() - begin)
                found = seen(folder)
                if run.status or found != case.after:
                    raise SystemExit(f"{case.name} does not even work undisturbed: {run}, {sorted(found)}")
                shutil.rmtree(folder)
            self.seconds[case.name] = statistics.median(times)

    def _ready(self, case: Case, parent: Path | None = None) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent or self.folder))
        grow(folder, case.before)
        return folder

    def _count(self, case: Case, fault: Callable[[], Any]) -> int:
        """How many chances a fault has."""
        folder = self._ready(case)
        number = Process(case.command, folder, fault).wait().reported
        shutil.rmtree(folder)
        return number

    def strike(
        self,
        case: Case,
        name: str,
        fault: Callable[[], Any] = lambda: None,
        during: Callable[[Process], None] = lambda process: None,
        *,
        parent: Path | None = None,
        relieve: Callable[[], None] = lambda: None,
        statuses: tuple[int, ...] = (0, 1),
    ) -> Run:
        """One fault, what it left, and the next run. ``fault`` is called in the command's process, ``during`` in this one while
        that works, ``relieve`` before the next run."""
        row, folder = self._row(case.name, name), self._ready(case, parent)
        process = Process(case.command, folder, fault)
        during(process)
        run = process.wait()
        bad = self._judge(case, row, folder, run, statuses)
        relieve()
        bad += self._again(case, row, folder)
        self._settle(row, folder, bad, run)
        return run

    def _row(self, operation: str, fault: str) -> Row:
        for row in self.rows:
            if (row.operation, row.fault) == (operation, fault):
                return row
        self.rows.append(Row(operation, fault))
        return self.rows[-1]

    def _settle(self, row: Row, folder: Path, bad: list[str], *runs: Run) -> None:
        row.injected += 1
        row.wrong += bool(bad)
        for line in bad:
            self.complaints.append(f"{row.operation}, {row.fault}: {line}")
            self.say(f"WRONG: {self.complaints[-1]} ({folder}, {runs})")
        shutil.rmtree(folder)

    def _judge(self, case: Case, row: Row, folder: Path, run: Run, statuses: tuple[int, ...]) -> list[str]:
        """What is wrong after a run that met a fault."""
        found, kinds, bad = seen(folder), set(), []
        for name in {**case.before, **case.after}:
            if found.get(name) == case.after.get(name):
                kinds.add("new")
            elif found.get(name) == case.before.get(name):
                kinds.add("old")
            else:
                bad.append(f"{name} is neither the old one nor the new one")
        if run.status != -signal.SIGKILL:
            if run.status not in statuses:
                bad.append(f"exit status {run.status}")
            if run.status == 0 and kinds != {"new"}:
                bad.append("it claims to have succeeded")
            if run.said if run.status == 0 else not is_one_line(run.said):
                bad.append("what it says is not one line")
            if kinds == {"old", "new"}:
                bad.append("some are old and some are new")
            if left := sorted(set(found) - {*case.before, *case.after}):
                row.leftovers += 1
                bad.append(f"it left {left}")
        if not bad:
            row.old, row.new, row.some = (
                count + (kinds == kind)
                for count, kind in ((row.old, {"old"}), (row.new, {"new"}), (row.some, {"old", "new"}))
            )
        return bad

    def _again(self, case: Case, row: Row, folder: Path) -> list[str]:
        """What is wrong after the same command once more, and with -f where it is refused because of what is there."""
        bad, was = [], seen(folder)
        run = Process(case.command, folder).wait()
        finished = seen(folder) == case.after  # by this run, before its own work: the killed one had all of it ready
        if run.status == 2 and (finished or any(was.get(name) == case.after[name] for name in case.after)):
            if not is_one_line(run.said):
                bad.append(f"the next run says {run.said!r}")
            if any(seen(folder).get(name) != case.after[name] for name in case.after):
                bad.append("the next run, refused, has not finished what the killed one began")
            if set(seen(folder)) - set(case.after):
                row.leftovers += 1
                bad.append(f"the next run, refused, leaves {sorted(seen(folder))}")
            # What was added is not added again: it is there, as is seen below.
            run = Process([*case.command, "-f"], folder).wait() if case.name != "add" else Run(0, "")
        found = seen(folder)
        if set(found) - {*case.before, *case.after}:
            row.leftovers += 1
            bad.append(f"the next run leaves {sorted(found)}")
        if run.status or any(found.get(name) != case.after[name] for name in case.after):
            bad.append(f"the next run ends so: {run}, {sorted(found)}")
        return bad

    # One method for each kind of fault

    def kill(self, count: int) -> None:
        """``count`` kills, of all operations in turn, once it is known how long they take."""
        lines = {case.name: self._count(case, lambda: faults.die_at_line(0)) for case in self.cases}
        for n in range(count):
            case = self.cases[n % len(self.cases)]
            if n // len(self.cases) % 2:
                line = self.chance.randint(1, lines[case.name])
                self.strike(case, "SIGKILL at a line", lambda line=line: faults.die_at_line(line))
                continue
            share = 1 - self.chance.betavariate(1, 5) if self.chance.random() < 0.7 else self.chance.random()
            moment = 1.03 * share * self.seconds[case.name]

            def during(process: Process, moment: float = moment) -> None:
                time.sleep(moment)
                process.kill()

            self.strike(case, "SIGKILL at a moment", during=during)

    def kill_at_every_line(self) -> None:
        """A kill before each line of the code that gives files their names, of all operations."""
        for case in self.cases:
            for line in range(1, self._count(case, lambda: faults.die_at_line(0)) + 1):
                self.strike(case, "SIGKILL at each line", lambda line=line: faults.die_at_line(line))

    def refuse_writes(self, count: int) -> None:
        """``count`` faults: files that may not grow, and operations that fail."""
        operations = {case.name: self._count(case, lambda: faults.fail_at_operation(0, 0)) for case in self.cases}
        for n in range(count):
            case = self.cases[n % len(self.cases)]
            if n // len(self.cases) % 2:
                at, code = self.chance.randint(1, operations[case.name]), self.chance.choice(ERRORS)
                self.strike(case, "failed operation", lambda at=at, code=code: faults.fail_at_operation(at, code))
            else:
                size = self.chance.randrange(int(1.05 * largest(case.after)))
                self.strike(case, "RLIMIT_FSIZE", lambda size=size: faults.limit_files(size))

    def interrupt_and_read_little(self, count: int) -> None:
        """``count`` runs each, which must succeed: showers of signals, and short reads."""

        def shower(process: Process) -> None:
            while not process.has_ended():
                process.signal(signal.SIGUSR1)
                time.sleep(0.001)

        before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
        try:
            for case in self.cases * count:
                self.strike(case, "EINTR", during=shower, statuses=(0,))
        finally:
            signal.signal(signal.SIGUSR1, before)
        for case in self.cases * count:
            seed = self.chance.randrange(1 << 30)
            self.strike(case, "short reads", lambda seed=seed: faults.read_little(seed), statuses=(0,))

    def fill_a_disk(self, count: int) -> None:
        """``count`` runs on a small file system that is nearly full; then all commands where it is read-only."""
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)

        def work() -> tuple[list[Row], list[str], Any]:
            for n in range(count):
                self._fill(self.cases[n % len(self.cases)], disk)
            for case in self.cases:
                folder, row = self._ready(case, disk), self._row(case.name, "read-only")
                faults.remount(disk, read_only=True)
                run = Process(case.command, folder).wait()
                bad = self._judge(case, row, folder, run, (1,))
                bad += [] if "Read-only file system" in run.said else ["it does not say why"]
                faults.remount(disk, read_only=False)
                self._settle(row, folder, bad, run)
            return self.rows, self.complaints, self.chance.getstate()

        result = in_namespace(disk, work)
        if isinstance(result, str):
            self.skip(f"ENOSPC and read-only targets: no file system can be mounted here ({result})")
        else:
            self.rows, self.complaints, chance = result
            self.chance.setstate(chance)

    def _fill(self, case: Case, disk: Path) -> None:
        need = space_of(case.after)
        free = self.chance.randrange(0, int(1.2 * need), PAGE)
        ballast, space = disk / "ballast", os.statvfs(disk)
        with open(ballast, "wb") as f:
            taken = space.f_bavail * space.f_frsize - space_of(case.before) - free
            os.posix_fallocate(f.fileno(), 0, max(PAGE, taken))
        self.strike(case, "ENOSPC", parent=disk, relieve=ballast.unlink)

    def race(self, pairs: int) -> None:
        """``pairs`` of two writers at once, for each operation that has a rival."""
        for case in self.cases * pairs:
            if case.rival is None:
                continue
            row, folder = self._row(case.name, "two writers"), self._ready(case)
            (line, made), late = case.rival, self.chance.choice((0.0, 0.0, 0.0, 0.02, 0.1))
            one = Process(case.command, folder)
            time.sleep(late)
            other = Process(line, folder)
            runs, found = (one.wait(), other.wait()), seen(folder)
            bad, statuses = [], sorted(run.status for run in runs)
            if case.command[-1] == "-f":
                if statuses != [0, 0]:
                    bad.append("not both succeeded")
                bad += [f"{n} is neither's" for n in case.after if found.get(n) not in (case.after[n], made[n])]
            else:
                if statuses != [0, 2]:
                    bad.append("not one won and one was rejected")
                elif found != (case.after if runs[0].status == 0 else made):
                    bad.append("what is there is not the winner's")
                if any(not is_one_line(run.said) or " exists; " not in run.said for run in runs if run.status):
                    bad.append("the loser was not told in one line")
            if left := sorted(set(found) - set(case.after)):
                row.leftovers += 1
                bad.append(f"left over: {left}")
            row.new += not bad
            self._settle(row, folder, bad, *runs)

    def table(self) -> str:
        head = ("operation", "fault", "injected", "old kept", "new kept", "some new", "lost or wrong", "left over")
        rows = [head, *(tuple(map(str, dataclasses.astuple(row))) for row in self.rows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
            for row in rows
        )


def in_namespace(disk: Path, work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a forked process that sees a small file system at ``disk``; why it cannot be mounted, as str."""
    line, told = os.pipe()
    child = os.fork()
    if not child:
        os.close(line)
        try:
            faults.own_file_system(disk)
            result = work
        except OSError as error:
            result = str(error)
        try:
            result = result() if callable(result) else result
        except BaseException:
            result = RuntimeError(traceback.format_exc())
        with os.fdopen(told, "wb") as f:
            pickle.dump(result, f)
        os._exit(0)
    os.close(told)
    with os.fdopen(line, "rb") as f:
        result = pickle.load(f)
    os.waitpid(child, 0)
    if isinstance(result, RuntimeError):
        raise result
    return result


def make_inputs(folder: Path, digits: np.ndarray, n: int) -> list[str]:
    """An array, several arrays, and a folder of images; ``more.npy`` beside them is not among the inputs."""
    (folder / "pictures" / "deep").mkdir(parents=True)
    np.save(folder / "digits.npy", digits)
    noise = np.random.default_rng(n).integers(0, 1 << 60, 4000)  # so that archives have several pages
    np.savez(folder / "parts.npz", a=digits[:8], b=noise)
    for i, image in enumerate(digits[: 8 + n]):
        Image.fromarray(image * 15).save(folder / "pictures" / ("deep" if i % 2 else ".") / f"{n}-{i}.png")
    np.save(folder / "more.npy", digits[::-1][:20])
    return [str(folder / name) for name in ("digits.npy", "parts.npz", "pictures")]


def grow(folder: Path, content: dict[str, Content]) -> None:
    for name, inner in content.items():
        if isinstance(inner, dict):
            (folder / name).mkdir()
            grow(folder / name, inner)
        else:
            (folder / name).write_bytes(inner)


def seen(path: Path) -> Content:
    return {p.name: seen(p) for p in path.iterdir()} if path.is_dir() else path.read_bytes()


def space_of(content: Content) -> int:
    """Bytes that a file or folder takes, in whole pages."""
    if isinstance(content, dict):
        return sum(map(space_of, content.values())) + PAGE
    return -(-len(content) // PAGE) * PAGE


def largest(content: Content) -> int:
    return max(map(largest, content.values())) if isinstance(content, dict) else len(content)


def is_one_line(said: str) -> bool:
    return said.startswith("vaedensity: ") and said.endswith("\n") and said.count("\n") == 1


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def redirected(stream: Any) -> Iterator[None]:
    before, sys.stdout = sys.stdout, stream
    try:
        yield
    finally:
        sys.stdout = before


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    every_line = "and a kill at every line of atomic.py, staging.py and system_calls.py"
    parser.add_argument("--every-line", action="store_true", help=every_line)
    parser.add_argument("--enospc", type=int, default=100, help="refused writes, and as many on a full disk")
    parser.add_argument("--reads", type=int, default=10, help="of each command, runs with short reads and with EINTR")
    parser.add_argument("--pairs", type=int, default=20, help="of each command, races of two writers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder otherwise")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run() -> int:
    options = parse()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", dir=options.folder) as folder:
        campaign = Campaign(Path(folder).resolve(), options.seed, say=lambda line: print(line, flush=True))
        campaign.measure()
        campaign.kill(options.kills)
        if options.every_line:
            campaign.kill_at_every_line()
        campaign.refuse_writes(options.enospc)
        campaign.fill_a_disk(options.enospc)
        campaign.interrupt_and_read_little(options.reads)
        campaign.race(options.pairs)
    totals = {
        "faults": sum(row.injected for row in campaign.rows),
        "lost_or_wrong": sum(row.wrong for row in campaign.rows),
        "left_over": sum(row.leftovers for row in campaign.rows),
    }
    print(campaign.table())
    print("{faults} faults; lost or wrong: {lost_or_wrong}; left over: {left_over}".format(**totals))
    if options.json:
        record = totals | {
            "seed": options.seed,
            "seconds": round(time.monotonic() - begin, 1),
            "usual_seconds": {name: round(t, 3) for name, t in campaign.seconds.items()},
            "left_out": campaign.skipped,
            "complaints": campaign.complaints,
            "rows": [dataclasses.asdict(row) for row in campaign.rows],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if totals["lost_or_wrong"] or totals["left_over"] else 0


if __name__ == "__main__":
    sys.exit(run())
