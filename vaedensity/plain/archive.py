"""From a .vdz file to its arrays and files: which model, the checks of section 16, restoring."""

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data import restore
from vaedensity.errors import DamagedArchive, ModelError, UsageError
from vaedensity.model.released import released, resolve
from vaedensity.plain.blocks import Progress, decode_array, require_none_lost
from vaedensity.plain.container import Directory
from vaedensity.plain.layout import FRAMED
from vaedensity.plain.model_file import LARGEST, Model, model_inside, read_model
from vaedensity.plain.network import Network
from vaedensity.plain.record import Entry
from vaedensity.plain.series import SeriesNetwork


def decompress(
    path: Path,
    folder: Path,
    model_name: str | None = None,
    *,
    overwrite: bool = False,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """Restore everything in ``folder``; nothing appears there before all of it is checked. Returns the record of
    ``decompress --json``. Raises DamagedArchive, ModelError, UsageError, VaedensityError."""
    started = time.monotonic()
    with _opened(path) as file:
        directory = Directory(file, path)
        notes = directory.note.get("collections")
        notes = notes if isinstance(notes, list) else []
        restore.check_note(notes, [a.name for a in directory.restored])
        goals = restore.targets(notes, folder, overwrite)
        model = find_model(directory, model_name)
        with restore.staging(folder) as stage:
            arrays = read(directory, model, lockstep=lockstep, progress=progress)
            staged = [restore.write_collection(note, arrays, stage) for note in notes]
            for temporary, goal in zip(staged, goals):
                restore.move_into_place(temporary, goal, overwrite)
    return {
        "archive": str(path),
        "items": restore.count_items(notes, {a.name: a.rows for a in directory.restored}),
        "bytes_in": path.stat().st_size,
        "bytes_out": sum(a.nbytes for a in directory.restored),
        "model": directory.model["name"] if directory.model else None,
        "restored": [str(goal) for goal in goals],
        "seconds": time.monotonic() - started,
    }


def read_arrays(path: Path, model_name: str | None = None) -> dict[str, NDArray[Any]]:
    """All arrays of an archive by name, but the one that holds its model, checked against the SHA-256 of the data."""
    with _opened(path) as file:
        directory = Directory(file, path)
        return read(directory, find_model(directory, model_name))


def _opened(path: Path) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def find_model(directory: Directory, name: str | None) -> Model | None:
    """The model that the archive was made with: the one named, else the one inside, else a released one. Raises
    ModelError, or DamagedArchive where the one inside is damaged."""
    wanted = directory.model
    if wanted is None:
        return None
    said = f"{wanted['name']} (sha256 {wanted['sha256'][:16]}...)"
    if name is not None or directory.inside is not None:
        model = _inside(directory) if name is None else read_model(resolve(name))
        if model.sha256 != wanted["sha256"]:
            found = model.path.stem if name is not None else "another one inside"
            raise ModelError(f"{directory.path}: made with model {said}, found {found} (sha256 {model.sha256[:16]}...)")
        return model
    for _, path in sorted(released().items(), key=lambda pair: pair[0] != wanted["name"]):
        model = read_model(path)
        if model.sha256 == wanted["sha256"]:
            return model
    raise ModelError(
        f"{directory.path}: needs the model {said}, which is not among the released ones; pass its file with -m"
    )


def _inside(directory: Directory) -> Model:
    """The model that an array of the archive holds (section 8.1); ``read`` checks the array's digest."""
    array = directory.inside
    assert array is not None
    if array.nbytes > LARGEST:
        raise ModelError(f"{directory.path}: a model of {array.nbytes} bytes inside is beyond the limit of {LARGEST}")
    require_none_lost(directory, [array])
    return model_inside(decode_array(directory, array, None).tobytes(), directory.path)


def read(
    directory: Directory, model: Model | None, *, lockstep: int | None = None, progress: Progress = lambda n: None
) -> dict[str, NDArray[Any]]:
    """All arrays by name, but the one that holds the model, which is only checked as they are. Raises DamagedArchive, or
    ModelError where ``model`` cannot be used."""
    require_none_lost(directory, directory.arrays)
    network = None
    try:
        if model is not None:
            network = SeriesNetwork(model) if model.is_series else Network(model)
    except ValueError as error:
        assert model is not None
        raise ModelError(f"{model.path}: its integer network is not usable ({error}); fit again") from error
    out = {}
    for array in directory.arrays:
        data = decode_array(directory, array, network, lockstep, progress)
        if directory.version >= FRAMED:
            _require_digest(directory, array, data)
        if array is not directory.inside:
            out[array.name] = data
    if directory.version < FRAMED and _sha256(*out.values()) != directory.digests[0]:
        raise DamagedArchive(
            f"{directory.path}: the decoded data do not have the SHA-256 of the original; nothing was restored"
        )
    return out


def _require_digest(directory: Directory, array: Entry, data: NDArray[Any]) -> None:
    """Raise DamagedArchive unless ``data`` of ``array`` have the SHA-256 that the closing gives it, or it gives none."""
    digest = directory.digests[directory.arrays.index(array)]
    if digest is not None and _sha256(data) != digest:
        raise DamagedArchive(
            f"{directory.path}: array {array.name} does not have the SHA-256 of the original; nothing was restored"
        )


def _sha256(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.reshape(-1).view(np.uint8).data if array.nbytes else b"")
    return digest.hexdigest()
