"""What is done with an input, and what may come of it: accepted, or refused with one line."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from vaedensity.api.decompress import checked_metadata, unpack
from vaedensity.api.models import model_for
from vaedensity.archive.block import LOST
from vaedensity.archive.decoding import read_arrays, read_rows
from vaedensity.archive.engine import ENGINES, Decoder, engine
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
    """("accepted" or a kind of refusal, the line, where it was raised and what led to it).

    Raises whatever else the run raises, and Wrong where a refusal is not one line.
    """
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
    """Everything that reads an archive, with the model in torch."""
    with ArchiveFile(path) as archive:
        metas = checked_metadata(archive)
        LIMITS.check(archive)
        if archive.model is not None and not chances.of(SHARE if _is_small(archive) else SHARE_OF_LARGE):
            return _payloads(archive)
        model = _model_of(archive, models)
        arrays = read_arrays(archive, model, threads=1)
        for meta in metas:
            restore.check_collection(meta, arrays)
        if chances.of(0.02):
            for array in archive.contents:
                if array.shape and array.rows:
                    rows = read_rows(archive, array.name, 0, min(2, array.rows), model, threads=1)
                    if rows.tobytes() != arrays[array.name][: len(rows)].tobytes():
                        raise Wrong(f"items of {array.name} differ from the whole")
    return "decoded"


def _is_small(archive: ArchiveFile) -> bool:
    """Whether a model decodes the archive in milliseconds."""
    coded = {block.array for block in archive.blocks if block.codec.by_model}
    return sum(archive.arrays[number].nbytes for number in coded) <= SMALL


def _model_of(archive: ArchiveFile, models: Models) -> Decoder | None:
    if archive.model is None:
        return None
    if archive.model_array is not None:
        return model_for(archive, None)
    if archive.model.sha256 not in models:
        raise ModelError(f"{archive.path}: needs a model that is not there")
    return models[archive.model.sha256]


def _payloads(archive: ArchiveFile) -> str:
    """All blocks read, none decoded."""
    for place in range(len(archive.blocks)):
        archive.payload(place)
    return "read"


def run_describe(path: Path, chances: Chances, models: Models) -> str:
    """`list`, as a table."""
    archive_lines(describe_archive(path), members=True)
    return "described"


def run_repair(path: Path, chances: Chances, models: Models) -> str:
    """Repair, and what is repaired is an archive whose index is right."""
    out = path.with_suffix(".repaired")
    try:
        if repair(path, out, overwrite=True).whole:
            return "whole"
        with ArchiveFile(out) as archive:
            for place, block in enumerate(archive.blocks):
                if block.codec != LOST:
                    archive.payload(place)
        if not repair(out, out.with_suffix(".again")).whole and not any(b.codec == LOST for b in archive.blocks):
            raise Wrong("a repaired archive is not whole")
    finally:
        out.unlink(missing_ok=True)
        out.with_suffix(".again").unlink(missing_ok=True)
    return "repaired"


def run_restore(path: Path, chances: Chances, models: Models) -> str:
    """Files made in a folder: nothing may appear beside it."""
    with ArchiveFile(path) as archive:
        if any(block.codec.by_model for block in archive.blocks):
            return "not restored"
    folder = path.parent / "out"
    before = set(os.listdir(path.parent)) | {"out"}
    try:
        links = chances.rng.choice(("inside", "none"))
        unpack(path, folder, limits=LIMITS, keep_going=chances.rng.random() < 0.5, links=links, threads=1)
    finally:
        if beside := set(os.listdir(path.parent)) - before:
            raise Wrong(f"made beside the folder: {sorted(beside)[:3]}")
        shutil.rmtree(folder, ignore_errors=True)
    return "restored"


def run_engines(path: Path, chances: Chances, models: Models) -> str:
    """An archive with its model inside: both engines decode the same. Where one alone refuses, says so."""
    with ArchiveFile(path) as archive:
        checked_metadata(archive)
        LIMITS.check(archive)
        if archive.model is None or archive.model_array is None:
            return "needs no engine"
        if not _is_small(archive) or not chances.of(20 * SHARE):
            return _payloads(archive)
        found = {name: _decoded(archive, name) for name in ENGINES}
    refusals = {name: error for name, error in found.items() if isinstance(error, VaedensityError)}
    if len(refusals) == len(ENGINES):
        raise next(iter(refusals.values()))
    for name, error in refusals.items():
        return f"{name} alone refuses: {_sites(error)}"
    if len({tuple(sorted(one.items())) for one in found.values() if isinstance(one, dict)}) > 1:
        raise Wrong("the two engines differ")
    return "decoded"


def _decoded(archive: ArchiveFile, engine: str) -> dict[str, bytes] | VaedensityError:
    """What an engine decodes, or how it refuses."""
    try:
        return {n: a.tobytes() for n, a in read_arrays(archive, model_for(archive, None, engine), threads=1).items()}
    except VaedensityError as error:
        return error


def run_model(path: Path, chances: Chances, models: Models) -> str:
    """A model file in torch, ready to code, and now and then in real arithmetic."""
    file = parse_model(path.read_bytes(), path)
    model = coding_model(file, "x")
    if chances.of(0.05):
        file.float_model()
    return f"{len(model.sha256)}"


def run_numpy_model(path: Path, chances: Chances, models: Models) -> str:
    """A model file in the numpy engine; in torch it has the same SHA-256."""
    decoder = engine("numpy").load_decoder(path)
    if chances.of(0.05):
        try:
            other = coding_model(parse_model(path.read_bytes(), path), "x")
        except ModelError as error:
            return f"torch alone refuses: {_sites(error)}"
        if other.sha256 != decoder.sha256:
            raise Wrong("the engines see two models")
    return "read"


ARCHIVE_RUNS = [(run_archive, 100), (run_describe, 4), (run_repair, 3), (run_restore, 3)]


def runs_of(target: str, suffix: str) -> list[tuple[Any, int]]:
    """What may be done with an input, with weights."""
    if suffix == ".safetensors":
        return [(run_model, 2), (run_numpy_model, 1)]
    if target == "numpy":
        return [(run_engines, 1)]
    return [*ARCHIVE_RUNS, (run_engines, 10)] if target == "all" else ARCHIVE_RUNS
