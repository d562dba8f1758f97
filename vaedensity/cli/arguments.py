"""What MODEL, DATA, INPUT and ARCHIVE may be: what a shell completes, what is said where one stands for another."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from vaedensity.errors import ModelError, UsageError

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic in newer versions of click alone

STREAM = "-"
PLAIN = re.compile(r"[\w@%+=:,./~-]+")  # names that a shell takes as they are


class Name(ParamType):
    """A file or folder, or one of the ``known`` names of models and data sets."""

    def __init__(self, name: str, known: tuple[str, ...], stream: bool = False):
        self.name, self.known, self.stream = name, known, stream

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == STREAM and not self.stream:
            refuse_stream(self, param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The shell's own file names, and the known names. Where there are any of those, bash shows no file names by
        itself: it gets them as words."""
        names = [name for kind in self.known for name in names_of(kind) if name.startswith(incomplete)]
        if names and os.environ.get("_VAEDENSITY_COMPLETE", "").startswith("bash"):
            names += [path for path in paths_from(incomplete) if PLAIN.fullmatch(path) and path not in names]
        return [CompletionItem(incomplete, type="file"), *map(CompletionItem, names)]


class Place(click.Path):
    """A path, which ``-`` is none of."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == STREAM:
            refuse_stream(self, param, ctx)
        return super().convert(value, param, ctx)


def refuse_stream(kind: ParamType, param: click.Parameter | None, ctx: click.Context | None) -> None:
    kind.fail(
        "'-': standard input and output are for compress, add, decompress and test; name a file (./- is one)",
        param,
        ctx,
    )


MODEL = Name("model", ("model",))
DATA = Name("data", ("data set",))
INPUT = Name("input", ("data set",), stream=True)
ARCHIVE_OR_MODEL = Name("target", ("model",))
ARCHIVE = Place(path_type=Path)
FILE = Place(path_type=Path, dir_okay=False)
FOLDER = Place(path_type=Path, file_okay=False)


def names_of(kind: str) -> list[str]:
    if kind == "model":
        from vaedensity.model.released import released

        return [*released()]
    from vaedensity.data.named import names

    return names()


def paths_from(incomplete: str) -> list[str]:
    """Files and folders whose path begins so."""
    folder, _, begin = incomplete.rpartition("/")
    folder += "/" if folder or incomplete.startswith("/") else ""
    try:
        with os.scandir(folder or ".") as found:
            entries = sorted((entry.name, entry.is_dir()) for entry in found)
    except OSError:
        return []
    return [
        folder + name + "/" * is_dir
        for name, is_dir in entries
        if name.startswith(begin) and (begin or not name.startswith("."))
    ]


def what_is(name: str) -> str:
    """In words: a folder, a model, an archive, an array, a data set, a file, or nothing."""
    from vaedensity.archive.container import MAGIC, UNRELEASED_MAGIC

    path, head = Path(name), b""
    try:
        if path.is_dir():
            return "a folder"
        if path.is_file():
            with open(path, "rb") as f:
                head = f.read(9)
        elif not path.exists():
            if name in names_of("model"):
                return "a model"
            return "a data set" if name.partition(":")[0] in names_of("data set") else "nothing"
    except (OSError, ValueError):
        return "nothing"
    if head.startswith((MAGIC, UNRELEASED_MAGIC)):
        return "an archive"
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 25:
        return "a model"  # or something else in safetensors, of which reading it will tell
    return "an array" if head.startswith((b"\x93NUMPY", b"PK\x03\x04")) else "a file"


def expect_model(model: str | None, data: str | None = None) -> None:
    """Raise UsageError where MODEL and DATA have changed places, ModelError where MODEL is known to be none."""
    found = "a model" if model is None else what_is(model)
    if found in ("a model", "nothing"):
        return
    if data is not None and what_is(data) == "a model":
        raise UsageError(f"{model} is {found}, and {data} a model: MODEL comes first, then DATA")
    if found != "a file":
        known = ", ".join(names_of("model"))
        raise ModelError(f"{model}: {found}, expected a model: a file that 'vaedensity fit' wrote, or one of {known}")


def expect_archive(archive: Path, inputs: tuple[str, ...] = ()) -> None:
    """Raise UsageError where ARCHIVE is known to be none; ``inputs``: what is to be added to it."""
    found = what_is(str(archive))
    if found == "an archive" or str(archive) == STREAM:
        return
    for other in inputs:
        if other != STREAM and what_is(other) == "an archive":
            raise UsageError(f"{archive} is {found}, but {other} an archive: ARCHIVE comes first, then INPUTS")
    if found in ("a folder", "a model", "a data set"):
        see = "; see 'vaedensity info'" if found == "a model" else ""
        raise UsageError(f"{archive}: {found}, expected an archive (.vdz){see}")
