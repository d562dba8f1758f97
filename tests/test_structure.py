"""The packages' one-way arrows (ARCHITECTURE.md), read from the imports, those inside functions too."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vaedensity"
SHARED = {"__version__", "advice", "arithmetic", "errors", "items", "lazy", "machine", "units", "workers"}
ALLOWED = {
    "data": set(),
    "numpy_decoder": set(),
    "model": {"data.atomic"},
    "training": {"data.atomic", "model"},
    "density": {"model"},
    "report": {"data", "density"},
    "coding": {"model", "numpy_decoder"},  # whose arithmetic shows that torch's is exact
    "archive": {"data.atomic", "coding.plan"},  # its engines by name
    "api": {"archive", "coding", "data", "density", "model", "report", "training"},
    "cli": {"api", "archive", "data", "density", "model", "numpy_decoder", "report", "training"},
    "sklearn": {"api", "density", "model"},
    "__init__": {"api", "data", "density", "sklearn"},  # names that are imported when they are used
}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, without ``vaedensity.``; a name of the package itself as it is."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vaedensity":
            inside = (node.module or "").removeprefix("vaedensity").removeprefix(".")
            names = [f"{inside}.{alias.name}".removeprefix(".") for alias in node.names]
            found |= {name if not inside or is_module(name) else inside for name in names}
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("vaedensity.") for alias in node.names if "vaedensity." in alias.name}
    return found


def is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_arrows(path: Path) -> None:
    own = name_of(path).partition(".")[0]
    allowed = ALLOWED.get(own, set()) | SHARED | {own}
    beyond = {name for name in imports(path) if not any(f"{name}.".startswith(f"{a}.") for a in allowed)}
    assert beyond == set()


def test_no_import_circles() -> None:
    graph = {name_of(path): {name for name in imports(path) if is_module(name)} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_engines_are_named_where_they_lie() -> None:
    from vaedensity.archive.engine import ENGINES

    assert all(is_module(name.removeprefix("vaedensity.")) for name in ENGINES.values())


def test_files_hold_one_idea() -> None:
    assert {p.name: n for p in FILES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 320} == {}
