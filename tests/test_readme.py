"""README.md: its Python example runs as printed, and its public names are there."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

import vaedensity
from vaedensity.cli.main import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    exec(compile("".join(blocks).replace("steps=300", "steps=30"), "README.md", "exec"), {})
    assert "lower bound" in capsys.readouterr().out
    assert (tmp_path / "digits.vdz").exists()


def toolkit_lines() -> list[str]:
    section = README.split("## Training toolkit", 1)[1].split("## Results", 1)[0]
    return re.findall(r"^vaedensity (.+)$", section, re.M)


def test_every_line_of_the_toolkit_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    lines = toolkit_lines()
    assert len(lines) == 9
    for line in lines:
        result = CliRunner().invoke(
            main, shlex.split(line.replace("--steps 200", "--steps 3").replace("-n 64", "-n 2"))
        )
        assert result.exit_code == 0, (line, result.output)
    assert len(list(tmp_path.glob("?.safetensors"))) == 8 and (tmp_path / "sharp.png").exists()


@pytest.mark.parametrize("package", ["training", "model"])
def test_names_of_packages_resolve(package: str) -> None:
    module = import_module(f"vaedensity.{package}")
    assert len(module.__all__) >= 5 and all(getattr(module, name).__name__ == name for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_public_names_resolve() -> None:
    assert all(getattr(vaedensity, name) is not None for name in vaedensity.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vaedensity.nothing  # noqa: B018


def test_readme_is_finished() -> None:
    assert "@@" not in README
