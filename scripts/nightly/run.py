"""Run the nightly checks, each in a process of its own, and print one table.

    python -m scripts.nightly.run [--only NAME]... [--minutes 60 | --quick] [--seed N]

The time is shared out among the checks. Some take less than their share, and each tries a few cases however short it
is. The seed is the day's number unless it is given. The exit status is 1 if anything failed.
"""

import argparse
import importlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from rich.console import Console
from rich.table import Table

from scripts.nightly import Outcome

SHARES = {
    "corpus": 0.05,
    "rejected": 0.05,
    "portability": 0.15,
    "flips": 0.2,
    "fault_injection": 0.2,
    "changing_sources": 0.1,
    "fuzz": 0.25,
    "properties": 0.25,
}
"""Modules beside this one, and their shares of the time."""
QUICK_MINUTES = 0.5  # what each check does at least takes longer


def check(name: str, seconds: float, seed: int) -> Outcome:
    """One check, in this process."""
    outcome: Outcome = importlib.import_module(f"scripts.nightly.{name}").check(seconds, seed)
    return outcome


def apart(name: str, seconds: float, seed: int) -> Outcome:
    """One check, in another process. Whatever it raises, or that it dies, is a failure."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(check, name, seconds, seed).result()
        except Exception as error:
            return Outcome(0, [f"{type(error).__name__}: {error}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SHARES, help="these checks alone")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--quick", action="store_true", help="a few cases of each")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400)
    options = parser.parse_args()
    shares = {name: share for name, share in SHARES.items() if not options.only or name in options.only}
    seconds = 60 * (QUICK_MINUTES if options.quick else options.minutes) / sum(shares.values())
    table, failures = Table("check", title=f"seed {options.seed}"), []
    for head in ("cases", "failures", "seconds"):
        table.add_column(head, justify="right")
    for name, share in shares.items():
        begin = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        outcome = apart(name, seconds * share, options.seed)
        failures += [f"{name}: {line}" for line in outcome.failures]
        table.add_row(name, f"{outcome.cases:,}", str(len(outcome.failures)), f"{time.monotonic() - begin:.0f}")
    Console().print(table)
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
