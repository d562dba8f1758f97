"""Kill vaedensity, fill its disk, interrupt it and race it against itself; then look at what is there.

After each fault, everything that a command makes must be the old one or the new one, byte for byte, and a command that
was not killed must have said in one line why it failed. Then the command runs once more, to its end, and only results
may be there. Half of the kills come at a random moment, most of them late, when files are written; half before a line
of the code that gives files their names. Commands run in processes forked from this one, which has imported all they
need, so that a fault takes a second or less.
"""

import dataclasses
import errno
import os
import pickle
import random
import shutil
import signal
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked process cannot use its parent's threads

from scripts.nightly import Outcome, faults
from scripts.nightly.fault_cases import PAGE, Case, fresh_folder, largest, make_cases, seen, space_of
from scripts.nightly.faults import Process, Run

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR)


@dataclasses.dataclass
class Row:
    """What came of the faults of one kind during one command."""

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
        self.chances: dict[tuple[str, str], int] = {}
        self.cases = make_cases(folder, items)

    def skip(self, line: str) -> None:
        """Say what cannot be tried on this machine."""
        self.skipped.append(line)
        self.say(f"LEFT OUT: {line}")

    def measure(self, repeats: int = 3) -> None:
        """How long commands take that meet no fault, whose results must be as expected."""
        for case in self.cases:
            times = []
            for _ in range(repeats):
                folder, begin = fresh_folder(self.folder, case.before), time.monotonic()
                run = Process(case.command, folder).wait()
                times.append(time.monotonic() - begin)
                found = seen(folder)
                if run.status or found != case.after:
                    raise SystemExit(f"{case.name} does not even work undisturbed: {run}, {sorted(found)}")
                shutil.rmtree(folder)
            self.seconds[case.name] = statistics.median(times)

    def _count(self, case: Case, kind: str, fault: Callable[[], Any]) -> int:
        """How many chances a kind of fault has during a command."""
        if (case.name, kind) not in self.chances:
            folder = fresh_folder(self.folder, case.before)
            run = Process(case.command, folder, fault).wait()
            if run.status or not run.reported:
                raise SystemExit(f"{case.name}: the fault ({kind}) cannot be injected: {run}")
            self.chances[case.name, kind] = run.reported
            shutil.rmtree(folder)
        return self.chances[case.name, kind]

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
        """One fault, what it left, and the next run.

        ``fault`` is called in the command's process, ``during`` in this one while that works, ``relieve`` before the
        next run.
        """
        row, folder = self._row(case.name, name), fresh_folder(parent or self.folder, case.before)
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
        for n in range(count):
            case = self.cases[n % len(self.cases)]
            if n // len(self.cases) % 2:
                line = self.chance.randint(1, self._count(case, "line", lambda: faults.die_at_line(0)))
                self.strike(case, "SIGKILL at a line", lambda line=line: faults.die_at_line(line))
                continue
            share = 1 - self.chance.betavariate(1, 5) if self.chance.random() < 0.7 else self.chance.random()
            moment = 1.03 * share * self.seconds[case.name]

            def during(process: Process, moment: float = moment) -> None:
                time.sleep(moment)
                process.kill()

            self.strike(case, "SIGKILL at a moment", during=during)

    def refuse_writes(self, count: int) -> None:
        """``count`` faults: files that may not grow, and operations that fail."""
        for n in range(count):
            case = self.cases[n % len(self.cases)]
            if n // len(self.cases) % 2:
                most = self._count(case, "operation", lambda: faults.fail_at_operation(0, 0))
                at, code = self.chance.randint(1, most), self.chance.choice(ERRORS)
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
                folder, row = fresh_folder(disk, case.before), self._row(case.name, "read-only")
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
            row, folder = self._row(case.name, "two writers"), fresh_folder(self.folder, case.before)
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


def in_namespace(disk: Path, work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a forked process that sees a small file system at ``disk``.

    If none can be mounted, the reason, as a string.
    """
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


def is_one_line(said: str) -> bool:
    return said.startswith("vaedensity: ") and said.endswith("\n") and said.count("\n") == 1


def check(seconds: float, seed: int) -> Outcome:
    """Rounds of all faults of all commands."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        campaign = Campaign(Path(folder).resolve(), seed)
        campaign.measure()
        count = len(campaign.cases)
        while campaign.rows == [] or time.monotonic() < end:
            campaign.kill(2 * count)
            campaign.refuse_writes(2 * count)
            campaign.fill_a_disk(count)
            campaign.interrupt_and_read_little(1)
            campaign.race(1)
    return Outcome(sum(row.injected for row in campaign.rows), campaign.complaints)
