"""What is done with an input, and what may come of it: accepted, or refused with one line."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from vaedensity.numpy_decoder.archive import read as plain_read
from vaedensity.numpy_decoder.archive import read_arrays as plain_read_arrays
from vaedensity.numpy_decoder.container import Directory

from vaedensity.api.decompress import checked_metadata, decompress
from vaedensity.api.models import model_inside
from vaedensity.archive.block import MODEL_CODERS
from vaedensity.archive.decoding import read_arrays, read_rows
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.repair import repair
from vaedensity.cli.inspect import archive_lines, describe_archive
from vaedensity.coding.engine import CodingModel, coding_model
from vaedensity.data import restore
from vaedensity.errors import CONTROL, LONGEST, ModelError, VaedensityError
from vaedensity.model.checkpoint import parse_model

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
        return STATUSES[error.exit_status], line, _sites(error)
    return "accepted", said, said


def _sites(error: BaseException) -> str:
    return f"{_site(error)} {_site(error.__cause__) if error.__cause__ else ''}"


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
    with ArchiveFile(path) as archive:
        metas = checked_metadata(archive)
        LIMITS.check(archive)
        if archive.model is not None and not chances.of(SHARE if _is_small(archive) else SHARE_OF_LARGE):
            return _payloads(archive)
        arrays = read_arrays(archive, _model_of(archive, models), threads=1)
        for meta in metas:
            restore.check_collection(meta, arrays)
        if chances.of(0.02):
            for array in archive.contents:
                if array.shape and array.rows:
                    rows = read_rows(archive, array.name, 0, min(2, array.rows), _model_of(archive, models), threads=1)
                    if rows.tobytes() != arrays[array.name][: len(rows)].tobytes():
                        raise Wrong(f"items of {array.name} differ from the whole")
    return "decoded"


def _is_small(archive: ArchiveFile) -> bool:
    """Whether a model decodes the archive in milliseconds."""
    coded = {block.array for block in archive.blocks if block.coder in MODEL_CODERS}
    return sum(archive.arrays[number].nbytes for number in coded) <= SMALL


def _model_of(archive: ArchiveFile, models: Models) -> CodingModel | None:
    if archive.model is None:
        return None
    if archive.model_array is not None:
        return model_inside(archive)
    if archive.model["sha256"] not in models:
        raise ModelError(f"{archive.path}: needs a model that is not there")
    return models[archive.model["sha256"]]


def _payloads(archive: ArchiveFile) -> str:
    """All blocks read, none decoded."""
    for index in range(len(archive.blocks)):
        archive.payload(index)
    return "read"


def run_describe(path: Path, chances: Chances, models: Models) -> str:
    record = describe_archive(path)
    archive_lines(record, members=True)
    return "described"


def run_repair(path: Path, chances: Chances, models: Models) -> str:
    """Repair, and what is repaired is an archive whose index is right."""
    out = path.with_suffix(".repaired")
    try:
        if repair(path, out, overwrite=True)["whole"]:
            return "whole"
        with ArchiveFile(out) as archive:
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
    with ArchiveFile(path) as archive:
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
    """The numpy reader, and that it decodes what the other reader does where both do. Where one of them alone refuses, says so."""
    try:
        arrays = _plain_arrays(path, chances)
    except VaedensityError as error:
        if chances.of(0.2) and _others(path, models)[0] is not None:
            return f"numpy alone refuses: {_sites(error)}"
        raise
    if arrays is None:
        return "read"
    if chances.of(0.3):
        others, refusal = _others(path, models)
        if others is None:
            return f"torch alone refuses: {refusal}"
        if {n: a.tobytes() for n, a in arrays.items()} != {n: np.asarray(a).tobytes() for n, a in others.items()}:
            raise Wrong("the two readers differ")
    return "decoded"


def _plain_arrays(path: Path, chances: Chances) -> dict[str, Any] | None:
    """What the numpy reader decodes; None where that would take too long."""
    with open(path, "rb") as file:
        directory = Directory(file, path)
        restore.check_restore_metadata(_collections(directory.meta), [array.name for array in directory.restored])
        if sum(array.nbytes for array in directory.arrays) > 1 << 22:
            return None
        if directory.model is None or all(block.coder < 16 for block in directory.blocks):
            return plain_read(directory, None)
        return plain_read_arrays(path) if directory.inside is not None and chances.of(SHARE) else None


def _others(path: Path, models: Models) -> tuple[dict[str, Any] | None, str]:
    """(what the other reader decodes, None where it refuses; where)."""
    try:
        with ArchiveFile(path) as archive:
            checked_metadata(archive)
            return read_arrays(archive, _model_of(archive, models), threads=1), ""
    except VaedensityError as error:
        return None, _sites(error)


def _collections(meta: dict[str, Any]) -> list[Any]:
    metas = meta.get("collections")
    return metas if isinstance(metas, list) else []


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
