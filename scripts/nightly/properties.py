"""The property tests, with many times the cases of every run and others each time (tests/profiles.py)."""

import os
import re
import subprocess
import sys

from scripts.nightly import ROOT, Outcome

TESTS = ("tests/archive", "tests/data/test_tree_write.py", "tests/test_odd_inputs.py", "tests/test_odd_outputs.py")
SECONDS_OF_ONE = 60.0  # that the cases of every run take


def check(seconds: float, seed: int) -> Outcome:
    """As many times the usual cases as the time allows. Counts tests, each of which tries all its cases."""
    times = str(max(1, int(seconds / SECONDS_OF_ONE)))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "properties or tree or odd",
        f"--hypothesis-seed={seed}",
        *TESTS,
    ]
    environment = os.environ | {"VAEDENSITY_CASES": times}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    failures = re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.MULTILINE)
    if done.returncode and not failures:
        failures = [f"pytest ended with status {done.returncode}: {(done.stdout + done.stderr)[-300:]!r}"]
    passed = re.search(r"(\d+) passed", done.stdout)
    return Outcome(int(passed[1]) if passed else 0, failures)
