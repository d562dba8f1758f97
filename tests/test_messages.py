"""What messages name: flags on the command line, arguments in Python, and nothing that the job does not have."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke

import vaedensity as vd
from vaedensity.cli.common import with_flags
from vaedensity.errors import UsageError, VaedensityError

PACKAGE = Path(vd.__file__).parent
FLAG = re.compile(r"(^|[\s(])(--[a-z]|-[a-z]\b)")


def texts(path: Path) -> list[str]:
    """All texts in a file but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_flags_are_named_where_there_are_flags_and_nowhere_else(path: Path) -> None:
    if path.parent.name != "cli":
        assert [text for text in texts(path) if FLAG.search(text.replace("'vaedensity repair --help'", ""))] == []


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a exists; pass overwrite=True to replace it", "a exists; pass -f to replace it"),
        ("go on with resume=True, or pass overwrite=True", "go on with --resume, or pass -f"),
        ("pass max_output=12", "pass --max-output 12"),
        ("pass it with model=FILE; or", "pass it with -m FILE; or"),
        ("keep_going=True restores", "keep_going=True restores"),  # at the beginning it is no argument
        ("x; keep_going=True restores", "x; --keep-going restores"),
        ("/a/model=3/x: no such file, or levels=2", "/a/model=3/x: no such file, or levels=2"),
    ],
)
def test_arguments_become_flags_on_the_command_line(message: str, shown: str) -> None:
    assert with_flags(message) == shown


def test_each_hears_of_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.vdz").touch()
    np.save(tmp_path / "x.npy", np.arange(3))
    with pytest.raises(UsageError, match="pass overwrite=True to replace it"):
        vd.compress({"x": np.arange(3)}, tmp_path / "a.vdz")
    said = invoke("compress", tmp_path / "x.npy", "-o", tmp_path / "a.vdz").stderr
    assert said.endswith("choose another name or pass -f to replace it\n")


@pytest.mark.parametrize("options", [{"steps": 1, "epochs": 1.0}, {"device": "tpu"}, {"valid_fraction": 2.0}])
def test_python_callers_hear_of_no_flags(options: dict[str, object], digits: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(VaedensityError) as refusal:
        vd.fit(digits[:9], tmp_path / "m.safetensors", **options)
    assert next(iter(options)) in str(refusal.value) and not FLAG.search(str(refusal.value))
