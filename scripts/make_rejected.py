"""Make the bad archives and models that tests/test_rejected.py runs: one for each reason to refuse. Never overwrites one.

    python scripts/make_rejected.py [--force] [NAME ...]

NAME.vdz or NAME.safetensors, and NAME.txt: the exit status, the message without path, then, where they are not the usual ones, lines
``options:`` and ``commands:``. A case whose status is not the expected one, or that is refused by one command as by no other, is not
written, and the exit status is 1. Look at each new message before you commit it.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from click.testing import CliRunner
from fuzzing import bad_layouts, bad_models, bad_notes
from fuzzing.cases import BOTH, Case

from vaedensity.cli.main import main as vaedensity

FOLDER = Path(__file__).parent.parent / "tests" / "rejected"
WANTING = "needs-a-model.vdz"


def cases() -> Iterator[Case]:
    layouts = (bad_layouts.layouts(), bad_layouts.indices(), bad_layouts.records(), bad_layouts.early())
    yield from chain(*layouts, bad_notes.metas(), bad_notes.trees(), bad_models.blocks(), bad_models.models())


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


def write(case: Case, wanting: Path) -> bool:
    """Both files of a case, if it is refused as it should be."""
    path = FOLDER / f"{case.name}{case.suffix}"
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, path.name)
        trial.write_bytes(case.data)
        found = {c: refusal(trial, c, case.options, Path(folder), wanting) for c in case.commands.split()}
        made = [name for name in os.listdir(folder) if name != path.name]
    if made or {status for status, _ in found.values()} != {case.status} or len(set(found.values())) != 1:
        print(f"{case.name}: expected status {case.status}, found {found} {made}", file=sys.stderr)
        return False
    (said,) = set(found.values())
    text = f"{said[0]}\n{said[1]}\n"
    text += f"options: {case.options}\n" if case.options else ""
    text += f"commands: {case.commands}\n" if case.commands != BOTH else ""
    path.write_bytes(case.data)
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    print(f"{case.name}: {said[0]} {said[1][:160]}")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    good, seen = True, set()
    with tempfile.TemporaryDirectory() as folder:
        wanting = Path(folder, WANTING)
        wanting.write_bytes(bad_models.wanting())
        for case in cases():
            assert case.name not in seen, case.name
            seen.add(case.name)
            if (options.names and case.name not in options.names) or (
                (FOLDER / f"{case.name}.txt").exists() and not options.force
            ):
                continue
            good &= write(case, wanting)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
