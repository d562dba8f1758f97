"""Progress on stderr: a bar on a terminal, else a plain line now and then. No thread runs beside the work."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vaedensity.cli.common import say, verbosity

if TYPE_CHECKING:
    from rich.progress import Progress

Clock = Callable[[], float]
PLAIN_SECONDS = 20.0  # from one plain line to the next
BAR_SECONDS = 0.1  # from one drawing of the bar to the next


class NowAndThen:
    """True once ``seconds`` have passed since it was made, or was last true."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic):
        self.seconds, self.clock, self.last = seconds, clock, clock()

    def __call__(self) -> bool:
        if (now := self.clock()) < self.last + self.seconds:
            return False
        self.last = now
        return True


@contextmanager
def progress_bar(label: str, total: int | None, unit: str = "items") -> Iterator[Callable[[int], None]]:
    """Yields the function that is told how much more is done, in ``unit``; ``total`` None: not known."""
    if verbosity() == 0:
        yield lambda n: None
    elif sys.stderr.isatty():
        yield from _drawn(label, total, unit)
    else:
        yield plain_lines(label, total, unit)


def _drawn(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    of = "" if total is None else f"/{total}"
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn(f"{{task.completed:.0f}}{of} {unit}")]
    with terminal_bar(*columns, TimeElapsedColumn() if total is None else TimeRemainingColumn()) as bar:
        task, due = bar.add_task(label, total=total), NowAndThen(BAR_SECONDS)

        def advance(n: int) -> None:
            bar.advance(task, n)
            if due():
                bar.refresh()

        yield advance


def terminal_bar(*columns: Any) -> "Progress":
    """A bar that is drawn when asked to: rich's own refreshing is a thread, beside which no process should fork."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), auto_refresh=False)


def plain_lines(
    label: str, total: int | None, unit: str = "items", clock: Clock = time.monotonic
) -> Callable[[int], None]:
    """A function that is told how much more is done and says it every :data:`PLAIN_SECONDS`."""
    done, started, due = 0, clock(), NowAndThen(PLAIN_SECONDS, clock)

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if due():
            of = "" if total is None else f" of {total}"
            say(f"{label}: {done}{of} {unit}, {clock() - started:.0f} s")

    return advance


class FitBar:
    """An observer that shows a run's progress."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.tty = verbosity() > 0 and sys.stderr.isatty()
        self.valid, self.begun = "", False
        self.due = NowAndThen(BAR_SECONDS if self.tty else PLAIN_SECONDS, clock)
        if self.tty:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

            self.bar = terminal_bar(
                TextColumn("fit"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self.task = self.bar.add_task("", total=1.0)

    def __enter__(self) -> "FitBar":
        if self.tty:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.tty:
            self.bar.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        if "event" in record:
            say(record["event"])
        if "valid_bits_per_dim" in record:
            self.valid = f"  valid {record['valid_bits_per_dim']:.4f}"
        rate = f"  {record['bits_per_dim']:.4f} bits/dim" if "bits_per_dim" in record else ""
        line = f"step {record['step']}{rate}{self.valid}"
        if self.tty:
            self.bar.update(self.task, completed=record["progress"], description=line)
        if not (self.due() or record["progress"] >= 1 or not self.begun):
            return
        self.begun = True
        if self.tty:
            self.bar.refresh()
        else:
            say(f"{100 * record['progress']:3.0f}%  {line}")
