"""What the fuzzer found worth keeping (scripts/fuzz.py): every file is accepted, or refused with one line."""

import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from fuzzing.targets import Chances, outcome, runs_of

CORPUS = sorted(
    path for path in (Path(__file__).parent / "corpus").iterdir() if path.suffix in (".vdz", ".safetensors")
)


def test_there_is_a_corpus() -> None:
    assert {path.suffix for path in CORPUS} == {".vdz", ".safetensors"}
    assert sum(path.stat().st_size for path in CORPUS) < 300_000


@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / f"input{path.suffix}"
    for run, _ in runs_of("all", path.suffix):
        copy.write_bytes(path.read_bytes())
        assert outcome(run, copy, Chances(Random(0), always=True), {})[0] in (
            "accepted",
            "failed",
            "usage",
            "damaged",
            "model",
        )
