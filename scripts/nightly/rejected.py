"""Make the bad archives and models that tests/test_rejected.py runs: one for each reason to reject. Overwrites none.

    python -m scripts.nightly.rejected [--force] [NAME ...]

NAME.vdz or NAME.safetensors, and NAME.txt: the exit status, the message without the path, then, where they are not the
usual ones, lines ``options:`` and ``commands:``. A case that comes to another status than expected, or that commands
reject for different reasons, is not written, and the exit status is 1. Look at each new message before you commit it.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from click.testing import CliRunner

from scripts.nightly import ROOT, Outcome
from scripts.nightly.bad import layouts, models, restore_metadata
from scripts.nightly.bad.case import BOTH, Case
from vaedensity.cli.main import main as vaedensity

FOLDER = ROOT / "tests" / "rejected"
WANTING = "needs-a-model.vdz"


def cases() -> Iterator[Case]:
    """All of them; no two have the same name."""
    seen = set()
    of_archives = (layouts.layouts(), layouts.indices(), layouts.records())
    of_metadata = (restore_metadata.metas(), restore_metadata.trees())
    for case in chain(*of_archives, *of_metadata, models.blocks(), models.models()):
        assert case.name not in seen, case.name
        seen.add(case.name)
        yield case


def refusal(path: Path, command: str, options: str, folder: Path, wanting: Path) -> tuple[int, str]:
    """(exit status, message without path) of a command on a bad file."""
    model = ["-m", str(path)] if path.suffix == ".safetensors" else []
    target = wanting if model else path
    line = ["-q", command, str(target), *model, *options.split()]
    line += ["-o", str(folder / "out")] if command == "decompress" else []
    result = CliRunner().invoke(vaedensity, line)
    if not isinstance(result.exception, SystemExit) or result.stderr.count("\n") != 1:
        return -1, repr(result.exception) + result.stderr
    said = result.stderr.rstrip("\n").removeprefix("vaedensity: ")
    return result.exit_code, said.replace(f"{path}: ", "").replace(f"{target}: ", "").replace(str(path), "...")


def text_of(case: Case, wanting: Path) -> str:
    """What NAME.txt holds of a case. Raises ValueError if it is not rejected as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, f"{case.name}{case.suffix}")
        trial.write_bytes(case.data)
        found = {c: refusal(trial, c, case.options, Path(folder), wanting) for c in case.commands.split()}
        made = [name for name in os.listdir(folder) if name != trial.name]
    if made or {status for status, _ in found.values()} != {case.status} or len(set(found.values())) != 1:
        raise ValueError(f"{case.name}: expected status {case.status}, found {found} {made}")
    (said,) = set(found.values())
    text = f"{said[0]}\n{said[1]}\n"
    text += f"options: {case.options}\n" if case.options else ""
    return text + (f"commands: {case.commands}\n" if case.commands != BOTH else "")


def check(seconds: float, seed: int) -> Outcome:
    """All cases made anew are rejected with the words of tests/rejected."""
    failures, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        wanting = Path(folder, WANTING)
        wanting.write_bytes(models.wanting())
        for case in cases():
            count += 1
            try:
                if text_of(case, wanting) != (FOLDER / f"{case.name}.txt").read_text(encoding="utf-8"):
                    failures.append(f"{case.name}: other words than in {FOLDER.name}/{case.name}.txt")
            except (ValueError, OSError) as error:
                failures.append(str(error))
    return Outcome(count, failures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--force", action="store_true", help="write cases that are there already, too")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        wanting = Path(folder, WANTING)
        wanting.write_bytes(models.wanting())
        for case in cases():
            path = FOLDER / f"{case.name}{case.suffix}"
            if (options.names and case.name not in options.names) or (path.exists() and not options.force):
                continue
            try:
                text = text_of(case, wanting)
            except ValueError as error:
                print(error, file=sys.stderr)
                status = 1
                continue
            path.write_bytes(case.data)
            path.with_suffix(".txt").write_text(text, encoding="utf-8")
            print(f"{case.name}: {' '.join(text.splitlines()[:2])[:160]}")
    return status


if __name__ == "__main__":
    sys.exit(main())
