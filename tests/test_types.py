"""What `[tool.mypy]` in pyproject.toml checks passes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_types(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
