"""The portability matrix on real digits (scripts/portability.py)."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "portability.py"


def test_every_environment_gives_the_same_bits() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--items", "60", "--engines", "compiled"],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 environments, 77 checks, 0 failures" in done.stdout
