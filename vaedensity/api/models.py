"""Which model decodes an archive, and how it is found. Needs no torch where the engine needs none."""

from pathlib import Path

from vaedensity.archive.decoding import read_whole
from vaedensity.archive.engine import Decoder, engine
from vaedensity.archive.limits import usual_output
from vaedensity.archive.reader import ArchiveFile
from vaedensity.errors import ModelError
from vaedensity.model.released import not_found, resolve, said, search

MOST_BYTES = 1 << 32  # of a model file


def model_for(archive: ArchiveFile, given: str | Path | None, engine_name: str = "torch") -> Decoder | None:
    """The model that ``archive`` needs, ready to decode.

    Parameters
    ----------
    archive : ArchiveFile
    given : str or Path, optional
        A model file or released name: that one. A folder: the model with the archive's SHA-256 in it. None: the one
        inside the archive, else the one with its SHA-256 where :func:`~vaedensity.model.released.search` looks.
    engine_name : {"torch", "numpy"}
        What decodes.

    Returns
    -------
    Decoder or None
        None where the archive needs no model.

    Raises
    ------
    ModelError
        There is no such model, or it is another one.
    DamagedArchive
        The model inside the archive is damaged.
    """
    if archive.model is None:
        return None
    load = engine(engine_name).load_decoder
    folder = Path(given) if given is not None and Path(given).is_dir() else None
    wanted = archive.model
    if given is not None and folder is None:
        return _same(archive, load(resolve(str(given))))
    if archive.model_array is not None:
        return _same(archive, _model_inside(archive, engine_name), "another one inside")
    broken: ModelError | None = None
    for path in search(wanted.sha256, wanted.name, archive.path, folder):
        try:
            if (model := load(path)).sha256 == wanted.sha256:
                return model
        except ModelError as error:  # a file that says it is the model and is not: another one may be
            broken = broken or error
    raise broken or not_found(archive.path, wanted.sha256, wanted.name, folder)


def _same(archive: ArchiveFile, model: Decoder, name: str | None = None) -> Decoder:
    """``model``, which must be the archive's. Raises ModelError."""
    assert archive.model is not None
    if model.sha256 != archive.model.sha256:
        raise ModelError(
            f"{archive.path}: made with model {said(archive.model.sha256, archive.model.name)}, found "
            f"{said(model.sha256, name or model.name)}"
        )
    return model


def _model_inside(archive: ArchiveFile, engine_name: str) -> Decoder:
    """The model that ``archive`` holds. Raises DamagedArchive or ModelError."""
    array = archive.model_array
    assert array is not None and archive.model is not None
    if array.nbytes > min(MOST_BYTES, usual_output(archive.path)):
        raise ModelError(f"{archive.path}: a model of {array.nbytes} bytes inside is beyond the limit")
    data = read_whole(archive, array).tobytes()
    return engine(engine_name).parse_decoder(data, archive.model.name, archive.path)
