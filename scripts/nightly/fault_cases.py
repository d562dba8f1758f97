"""Commands that faults are injected into, their inputs, and what is in a folder before and after them."""

import os
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from scripts.nightly.faults import Process
from vaedensity.cli.main import main
from vaedensity.data.named import load_digits

PAGE = 4096
Content = Any  # bytes of a file, {name: Content} of a folder, None of nothing


class Case(NamedTuple):
    """A command and what it makes of what, by the names of its results."""

    name: str
    before: dict[str, Content]
    after: dict[str, Content]
    command: list[str]
    rival: tuple[list[str], dict[str, Content]] | None = None  # that makes other things of the same names


def make_cases(root: Path, items: int) -> list[Case]:
    """Commands that work on ``items`` of the embedded digits, whose inputs are made below ``root``."""
    lines, archives, restored = [], [], []
    for n in range(2):
        source = root / f"input-{n}"
        inputs = make_inputs(source, load_digits()[n * items :][:items], n)
        line = ["-q", "compress", *inputs, "-o", "a.vdz", "-m", "digits"]
        # In this process, so that all forked from it find everything imported and compiled.
        with chdir(source), open(os.devnull, "w") as null, redirect_stdout(null):
            main(line, standalone_mode=False)
            main(["-q", "decompress", "a.vdz", "-o", "restored"], standalone_mode=False)
        lines.append(line)
        archives.append(seen(source / "a.vdz"))
        restored.append(seen(source / "restored"))
    old, new = ({"a.vdz": archive} for archive in archives)
    out = [["-q", "decompress", str(root / f"input-{n}" / "a.vdz"), "-o", "."] for n in range(2)]
    add = ["-q", "add", "a.vdz", str(root / "input-1" / "more.npy")]
    folder = fresh_folder(root, old)
    run = Process(add, folder).wait()
    if run.status:
        raise SystemExit(f"{add} does not even work undisturbed: {run}")
    return [
        Case("compress", {}, new, lines[1], (lines[0], old)),
        Case("compress -f", old, new, [*lines[1], "-f"], ([*lines[0], "-f"], old)),
        Case("decompress", {}, restored[1], out[1], (out[0], restored[0])),
        Case("decompress -f", restored[0], restored[1], [*out[1], "-f"], ([*out[0], "-f"], restored[0])),
        Case("add", old, seen(folder), add),
    ]


def make_inputs(folder: Path, digits: np.ndarray, n: int) -> list[str]:
    """An array, several arrays, and a folder of images; ``more.npy`` beside them is not among the inputs."""
    (folder / "pictures" / "deep").mkdir(parents=True)
    np.save(folder / "digits.npy", digits)
    noise = np.random.default_rng(n).integers(0, 1 << 60, 4000)  # so that archives have several pages
    np.savez(folder / "parts.npz", a=digits[:8], b=noise)
    for i, image in enumerate(digits[: 8 + n]):
        Image.fromarray(image * 15).save(folder / "pictures" / ("deep" if i % 2 else ".") / f"{n}-{i}.png")
    np.save(folder / "more.npy", digits[::-1][:20])
    return [str(folder / name) for name in ("digits.npy", "parts.npz", "pictures")]


def fresh_folder(parent: Path, content: dict[str, Content]) -> Path:
    """A new folder with this content."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    grow(folder, content)
    return folder


def grow(folder: Path, content: dict[str, Content]) -> None:
    """Make files and folders of this content."""
    for name, inner in content.items():
        if isinstance(inner, dict):
            (folder / name).mkdir()
            grow(folder / name, inner)
        else:
            (folder / name).write_bytes(inner)


def seen(path: Path) -> Content:
    """The content of a file or folder."""
    return {p.name: seen(p) for p in path.iterdir()} if path.is_dir() else path.read_bytes()


def space_of(content: Content) -> int:
    """Bytes that a file or folder takes, in whole pages."""
    if isinstance(content, dict):
        return sum(map(space_of, content.values())) + PAGE
    return -(-len(content) // PAGE) * PAGE


def largest(content: Content) -> int:
    """Bytes of the largest file."""
    return max(map(largest, content.values())) if isinstance(content, dict) else len(content)
