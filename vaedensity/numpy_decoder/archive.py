"""From a .vdz file to its arrays and files: which model, the checks of section 16, restoring."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity.data import restore
from vaedensity.errors import DamagedArchive, ModelError, UsageError, naming
from vaedensity.model.released import not_found, resolve, said, search
from vaedensity.numpy_decoder.blocks import decode_array
from vaedensity.numpy_decoder.chains import AnyNetwork, Progress
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.layout import FRAMED
from vaedensity.numpy_decoder.lost import Losses, require_none_lost
from vaedensity.numpy_decoder.model_file import LARGEST, Model, model_inside, read_model
from vaedensity.numpy_decoder.network import Network
from vaedensity.numpy_decoder.probe import require_same
from vaedensity.numpy_decoder.record import Entry
from vaedensity.numpy_decoder.series import SeriesNetwork

Approve = Callable[[Directory], None]


def decompress(
    path: Path,
    folder: Path,
    model_name: str | None = None,
    *,
    overwrite: bool = False,
    lockstep: int | None = None,
    keep_going: bool = False,
    links: str = "inside",
    approve: Approve = lambda directory: None,
    progress: Progress = lambda n: None,
) -> dict[str, Any]:
    """Restore everything in ``folder``; nothing appears there before all of it is checked. Returns the record of
    ``decompress --json``. Raises DamagedArchive, ModelError, UsageError, VaedensityError.

    ``keep_going``: items of damaged blocks are zeros, files that they were in are left out, and the record says which.
    ``links``: as of ``restore.write_collection``. ``approve``: raises where what the archive would cost is too much."""
    started = time.monotonic()
    with opened(path) as file:
        directory = Directory(file, path)
        metas = checked_metadata(directory)
        goals = restore.targets(metas, folder, overwrite, links)
        approve(directory)
        model = find_model(directory, model_name)
        losses, left_out, remarks = Losses(keep_going), list[str](), list[str]()
        with restore.staging(folder) as stage:
            arrays = read(directory, model, lockstep=lockstep, progress=progress, losses=losses)
            with naming(path):
                staged = [
                    restore.write_collection(
                        meta, arrays, stage, losses.holes(), left_out, links=links, remarks=remarks
                    )
                    for meta in metas
                ]
            restore.place(metas, staged, goals, overwrite)
    record = {
        "archive": str(path),
        "items": restore.count_items(metas, {a.name: a.rows for a in directory.restored}),
        "bytes_in": path.stat().st_size,
        "bytes_out": sum(a.nbytes for a in directory.restored),
        "model": directory.model["name"] if directory.model else None,
        "restored": [str(goal) for goal in goals],
        "remarks": remarks,
        "seconds": time.monotonic() - started,
    }
    if keep_going:
        record["lost"], record["left_out"] = [one._asdict() for one in losses.found], left_out
        record["items_lost"] = restore.count_lost(metas, losses.holes(), left_out)
    return record


def checked_metadata(directory: Directory) -> list[Any]:
    """How the archive's arrays become files. Raises DamagedArchive."""
    metas = directory.meta.get("collections")
    metas = metas if isinstance(metas, list) else []
    with naming(directory.path):
        restore.check_restore_metadata(metas, [array.name for array in directory.restored])
    return metas


def read_arrays(path: Path, model_name: str | None = None) -> dict[str, NDArray[Any]]:
    """All arrays of an archive by name, but the one that holds its model, checked against the SHA-256 of the data."""
    with opened(path) as file:
        directory = Directory(file, path)
        return read(directory, find_model(directory, model_name))


def opened(path: Path) -> BinaryIO:
    """Raises UsageError where the file cannot be read."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def find_model(directory: Directory, name: str | None) -> Model | None:
    """The model that the archive was made with: the one named, else the one inside, else the one with its SHA-256 in the
    folder named ``name`` or where ``released.search`` looks. Raises ModelError, or DamagedArchive where the one inside is
    damaged."""
    wanted = directory.model
    if wanted is None:
        return None
    folder = Path(name) if name is not None and Path(name).is_dir() else None
    named = name if folder is None else None
    if named is not None or directory.inside is not None:
        model = _inside(directory) if named is None else read_model(resolve(named))
        if model.sha256 != wanted["sha256"]:
            found = said({"name": "another one inside" if named is None else model.path.stem, "sha256": model.sha256})
            raise ModelError(f"{directory.path}: made with model {said(wanted)}, found {found}")
        return model
    for path in search(wanted["sha256"], wanted["name"], directory.path, folder):
        model = read_model(path)
        if model.sha256 == wanted["sha256"]:
            return model
    raise not_found(directory.path, wanted, folder)


def _inside(directory: Directory) -> Model:
    """The model that an array of the archive holds (section 8.1); ``read`` checks the array's digest."""
    array = directory.inside
    assert array is not None
    if array.nbytes > LARGEST:
        raise ModelError(f"{directory.path}: a model of {array.nbytes} bytes inside is beyond the limit of {LARGEST}")
    require_none_lost(directory, array.blocks)
    return model_inside(decode_array(directory, array, None).tobytes(), directory.path)


def read(
    directory: Directory,
    model: Model | None,
    *,
    lockstep: int | None = None,
    progress: Progress = lambda n: None,
    losses: Losses | None = None,
) -> dict[str, NDArray[Any]]:
    """All arrays by name, but the one that holds the model, which is only checked as they are. ``losses``: takes damaged
    blocks. Raises DamagedArchive, or ModelError where ``model`` cannot be used."""
    losses = losses or Losses(allowed=False)
    if not losses.allowed:
        require_none_lost(directory, directory.blocks)
    network = network_of(model)
    require_same(directory, network)
    out = {}
    for array in directory.arrays:
        before = len(losses.found)
        data = decode_array(directory, array, network, lockstep, progress, losses)
        if directory.version >= FRAMED and len(losses.found) == before:
            _require_digest(directory, array, data, losses)
        if array is not directory.inside:
            out[array.name] = data
    if directory.version < FRAMED and not losses.found and _sha256(*out.values()) != directory.digests[0]:
        raise DamagedArchive(
            f"{directory.path}: the decoded data do not have the SHA-256 of the original; nothing was restored"
        )
    return out


def network_of(model: Model | None) -> AnyNetwork | None:
    """What ``model`` computes with. Raises ModelError."""
    if model is None:
        return None
    try:
        return SeriesNetwork(model) if model.is_series else Network(model)
    except ValueError as error:
        raise ModelError(f"{model.path}: its integer network is not usable ({error}); fit again") from error


def _require_digest(directory: Directory, array: Entry, data: NDArray[Any], losses: Losses) -> None:
    """``data`` of ``array`` have the SHA-256 that the closing gives it, or it gives none; else all of them are lost."""
    digest = directory.digests[directory.arrays.index(array)]
    if digest is not None and _sha256(data) != digest:
        error = f"array {array.name} does not have the SHA-256 of the original; keep going to restore the others"
        losses.take_array(directory, array, data, DamagedArchive(f"{directory.path}: {error}"))


def _sha256(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.reshape(-1).view(np.uint8).data if array.nbytes else b"")
    return digest.hexdigest()
