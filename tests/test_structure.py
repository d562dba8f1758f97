"""The rooms' one-way arrows (README.md, "Rooms"), read from the imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vaedensity"
SHARED = {"arithmetic", "errors", "machine", "units", "items", "atomic", "long_paths", "staging", "targets", "lazy", ""}
ALLOWED = {
    "data": set(),
    "model": set(),
    "training": {"model"},
    "density": {"model"},
    "coding": set(),
    "plain": {"data"},
    "report": set(),
    "tasks": {"data", "model", "training", "density", "coding", "report"},
    "cli": {"data", "model", "training", "density", "coding", "plain", "report", "tasks"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vaedensity":
            parts = (node.module or "").split(".")
            found |= (
                {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name != "__version__"}
            )
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vaedensity.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    if parts == ("__init__.py",):
        assert "= on_first_use(" in path.read_text(encoding="utf-8")  # names the public functions, imports them on use
        return
    room = parts[0] if len(parts) > 1 else ""
    allowed = ALLOWED.get(room, set()) | SHARED | {room}
    if parts == ("coding", "lowering.py"):
        allowed |= {"model"}  # the only bridge from floats to integers
    if parts == ("coding", "probe.py"):
        allowed |= {"model", "plain"}  # sets torch's answer beside that of arithmetic without it
    if parts == ("plain", "archive.py"):
        allowed |= {"model"}  # where the released models lie
    assert imports(path) <= allowed


def test_files_hold_one_idea() -> None:
    assert {p.name: n for p in FILES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 320} == {}


def module_imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """Every module of the package that one names in an import: at its top, in functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
            found |= inside or {node.module or ""}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & modules.keys()


def test_no_import_circles() -> None:
    modules = {
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES
    }
    # A package's __init__ may name for types what it loads on first use: that is no import.
    lazy = {name for name, path in modules.items() if "= on_first_use(" in path.read_text(encoding="utf-8")}
    graph = {name: set() if name in lazy else module_imports(path, modules) for name, path in modules.items()}
    reached: dict[str, set[str]] = {}
    for name in graph:
        reached[name], front = set(), graph[name]
        while front:
            reached[name] |= front
            front = set().union(*(graph[other] for other in front)) - reached[name]
    circles = {tuple(sorted(m for m in reached[name] if name in reached[m])) for name in graph if name in reached[name]}
    assert circles == set()
