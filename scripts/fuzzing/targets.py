"""What is done with an input, and what may come of it: accepted, or refused with one line."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from vaedensity.cli.inspect import archive_lines, describe_archive
from vaedensity.coding.block import MODEL_CODERS
from vaedensity.coding.decoding import read_arrays, read_rows
from vaedensity.coding.lowering import CodingModel, coding_model
from vaedensity.coding.reader import Archive
from vaedensity.data import restore
from vaedensity.errors import CONTROL, LONGEST, ModelError, VaedensityError
from vaedensity.model.checkpoint import parse_model
from vaedensity.plain.archive import read as plain_read
from vaedensity.plain.archive import read_arrays as plain_read_arrays
from vaedensity.plain.container import Directory
from vaedensity.tasks.limits import Limits
from vaedensity.tasks.models import model_inside
from vaedensity.tasks.repairing import repair
from vaedensity.tasks.unpacking import checked_notes, decompress

STATUSES = {1: "failed", 2: "usage", 3: "damaged", 4: "model"}
LIMITS = Limits(max_output=1 << 22, memory=1 << 24)
SHARE, SHARE_OF_LARGE, SMALL = 0.02, 0.0005, 400  # of runs that decode a model's blocks; bytes of data that are few
Models = Mapping[str, CodingModel]
"""By SHA-256, those that seeds need and do not hold."""


class Wrong(Exception):
    """An input made the package do what it must not."""


class Chances:
    """How often, of runs, what is slow is done too. ``always``: everything."""

    def __init__(self, rng: Random, always: bool = False):
        self.rng, self.always = rng, always

    def of(self, share: float) -> bool:
        return self.always or self.rng.random() < share


def outcome(run: Any, *arguments: Any) -> tuple[str, str, str]:
    """("accepted" or a kind of refusal, the line, where it was raised and what led to it). Raises whatever else comes, or Wrong for
    what is no line."""
    try:
        said = run(*arguments)
    except VaedensityError as error:
        line = str(error)
        if not line or CONTROL.search(line) or len(line) > LONGEST + 5:
            raise Wrong(f"no line: {line[:200]!r}") from error
        if error.exit_status not in STATUSES:
            raise Wrong(f"status {error.exit_status}: {line[:200]}") from error
        cause = error.__cause__
        return STATUSES[error.exit_status], line, f"{_site(error)} {_site(cause) if cause else ''}"
    return "accepted", said, said


def _site(error: BaseException) -> str:
    """File and line that raised ``error``, of the last that are our own."""
    site, step = "", error.__traceback__
    while step is not None:
        path = step.tb_frame.f_code.co_filename
        if "vaedensity" in path:
            site = f"{os.path.basename(path)}:{step.tb_lineno}"
        step = step.tb_next
    return site


def run_archive(path: Path, chances: Chances, models: Models) -> str:
    """Everything that reads an archive."""
    with Archive(path) as archive:
        notes = checked_notes(archive)
        LIMITS.check(archive)
        if archive.model is not None and not chances.of(SHARE if _is_small(archive) else SHARE_OF_LARGE):
            return _payloads(archive)
        arrays = read_arrays(archive, _model_of(archive, models), threads=1)
        for note in notes:
            restore.check_collection(note, arrays)
        if chances.of(0.02):
            for array in archive.contents:
                if array.shape and array.rows:
                    rows = read_rows(archive, array.name, 0, min(2, array.rows), _model_of(archive, models), threads=1)
                    if rows.tobytes() != arrays[array.name][: len(rows)].tobytes():
                        raise Wrong(f"items of {array.name} differ from the whole")
    return "decoded"


def _is_small(archive: Archive) -> bool:
    """Whether a model decodes the archive in milliseconds."""
    coded = {block.array for block in archive.blocks if block.coder in MODEL_CODERS}
    return sum(archive.arrays[number].nbytes for number in coded) <= SMALL


def _model_of(archive: Archive, models: Models) -> CodingModel | None:
    if archive.model is None:
        return None
    if archive.model_array is not None:
        return model_inside(archive)
    if archive.model["sha256"] not in models:
        raise ModelError(f"{archive.path}: needs a model that is not there")
    return models[archive.model["sha256"]]


def _payloads(archive: Archive) -> str:
    """All blocks read, none decoded."""
    for index in range(len(archive.blocks)):
        archive.payload(index)
    return "read"


def run_describe(path: Path, chances: Chances, models: Models) -> str:
    record = describe_archive(path)
    archive_lines(record, files=True)
    return "described"


def run_repair(path: Path, chances: Chances, models: Models) -> str:
    """Repair, and what is repaired is an archive whose index is right."""
    out = path.with_suffix(".repaired")
    try:
        if repair(path, out, overwrite=True)["whole"]:
            return "whole"
        with Archive(out) as archive:
            for index, block in enumerate(archive.blocks):
                if block.coder != 15:
                    archive.payload(index)
        if not repair(out, out.with_suffix(".again"))["whole"] and not any(b.coder == 15 for b in archive.blocks):
            raise Wrong("a repaired archive is not whole")
    finally:
        out.unlink(missing_ok=True)
        out.with_suffix(".again").unlink(missing_ok=True)
    return "repaired"


def run_restore(path: Path, chances: Chances, models: Models) -> str:
    """Files made in a folder: nothing may appear beside it."""
    with Archive(path) as archive:
        if any(block.coder in MODEL_CODERS for block in archive.blocks):
            return "not restored"
    folder = path.parent / "out"
    before = set(os.listdir(path.parent)) | {"out"}
    try:
        links = chances.rng.choice(("inside", "none"))
        decompress(path, folder, limits=LIMITS, keep_going=chances.rng.random() < 0.5, links=links, threads=1)
    finally:
        if beside := set(os.listdir(path.parent)) - before:
            raise Wrong(f"made beside the folder: {sorted(beside)[:3]}")
        shutil.rmtree(folder, ignore_errors=True)
    return "restored"


def run_plain(path: Path, chances: Chances, models: Models) -> str:
    """The numpy reader, and that it decodes what the other reader does where both do."""
    with open(path, "rb") as file:
        directory = Directory(file, path)
        restore.check_note(_collections(directory.note), [array.name for array in directory.restored])
        if sum(array.nbytes for array in directory.arrays) > 1 << 22:
            return "large"
        if directory.model is not None and any(block.coder >= 16 for block in directory.blocks):
            if directory.inside is None or not chances.of(SHARE):
                return "read"
            arrays = plain_read_arrays(path)
        else:
            arrays = plain_read(directory, None)
    if chances.of(0.3):
        with Archive(path) as archive:
            others = read_arrays(archive, _model_of(archive, models), threads=1)
        if {n: a.tobytes() for n, a in arrays.items()} != {n: np.asarray(a).tobytes() for n, a in others.items()}:
            raise Wrong("the two readers differ")
    return "decoded"


def _collections(note: dict[str, Any]) -> list[Any]:
    notes = note.get("collections")
    return notes if isinstance(notes, list) else []


def run_model(path: Path, chances: Chances, models: Models) -> str:
    file = parse_model(path.read_bytes(), path)
    model = coding_model(file, "x")
    if chances.of(0.05):
        file.float_model()
    return f"{len(model.sha256)}"


ARCHIVE_RUNS = [(run_archive, 100), (run_describe, 4), (run_repair, 3), (run_restore, 3)]


def runs_of(target: str, suffix: str) -> list[tuple[Any, int]]:
    """What may be done with an input, with weights."""
    if suffix == ".safetensors":
        return [(run_model, 1)]
    if target == "plain":
        return [(run_plain, 1)]
    return [*ARCHIVE_RUNS, (run_plain, 10)] if target == "all" else ARCHIVE_RUNS
