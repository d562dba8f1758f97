"""A little of each check of scripts/nightly, and that the checks notice what they are for."""

from pathlib import Path

import pytest

from scripts.nightly import CORPUS, GOLDEN, corpus, run
from scripts.nightly.flips import LARGEST, changed, changes, judge, reader
from scripts.nightly.portability import ENGINES, LEAST, run_all, settings

SMALL = min(GOLDEN.glob("*.vdz"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_flips(engine: str, tmp_path: Path) -> None:
    """One flip in 50 of the smallest golden: none comes to other data."""
    data, model, read = SMALL.read_bytes(), SMALL.with_suffix(".safetensors"), reader(engine)
    expected = read(SMALL, model)
    assert len(data) < LARGEST and expected
    path = tmp_path / "changed.vdz"
    for change in changes(data)[::50]:
        path.write_bytes(changed(data, change))
        assert judge(path, model, read, expected) == ("rejected", ""), change
    path.write_bytes(data)
    assert judge(path, model, read, expected) == ("harmless", "")
    assert judge(path, model, read, {}) == ("wrong", "other data")


@pytest.mark.timeout(600)
def test_every_environment_gives_the_same_bits() -> None:
    """Plain kernels, the numpy reader, little memory."""
    outcome = run_all(settings(list(ENGINES), [])[:LEAST], 0, items=20)
    assert outcome.failures == []
    assert outcome.cases == 4 + 1 + 4


def test_the_corpus() -> None:
    """A few of its files, and how much there is."""
    files = corpus.files()
    assert {path.suffix for path in files} == {".vdz", ".safetensors"}
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 300_000
    outcome = corpus.replay(files[:: max(1, len(files) // 8)])
    assert outcome.failures == [] and outcome.cases >= 16


def test_what_raises_has_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "SHARES", {"lost": 1.0})  # there is no such module
    monkeypatch.setattr("sys.argv", ["run", "--quick"])
    assert run.main() == 1
    assert "lost: ModuleNotFoundError" in capsys.readouterr().out
