"""README.md: its Python example runs as printed, and its public names are there."""

import re
from pathlib import Path

import pytest

import vaedensity

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    exec(compile("".join(blocks).replace("steps=300", "steps=30"), "README.md", "exec"), {})
    assert "lower bound" in capsys.readouterr().out
    assert (tmp_path / "digits.vdz").exists()


def test_public_names_resolve() -> None:
    assert all(getattr(vaedensity, name) is not None for name in vaedensity.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vaedensity.nothing  # noqa: B018


def test_readme_is_finished() -> None:
    assert "@@" not in README
