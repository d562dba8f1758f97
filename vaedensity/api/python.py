"""The jobs of the command line for people who hold arrays rather than files.

``threads`` is how many to use; None: as many as are worth while here now (``vaedensity/machine.py``). What a caller has set in torch
changes no result, and is as it was afterwards.
"""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vaedensity.api.compress import compress as compress_collections
from vaedensity.api.models import model_for, open_model
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import Archive
from vaedensity.arithmetic import fresh_thread
from vaedensity.data.collection import Collection
from vaedensity.items import plain_array


@fresh_thread()
def compress(
    arrays: dict[str, NDArray[Any]],
    out: str | Path,
    *,
    model: str | Path | None = None,
    particles: int = 1,
    embed_model: bool = False,
    overwrite: bool = False,
    verify: bool = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write named arrays to an archive that ``vaedensity decompress`` restores as ``NAME.npy`` files.

    ``model``: file or released name; None for the fallback codec. ``particles``, at most 256, make the file smaller
    and the work so many times longer. ``embed_model`` stores the model in the archive. Returns the record of
    ``vaedensity compress --json``.
    """
    collections = [
        Collection(name, {name: plain_array(a, name, convert=False)}, {"kind": "npy", "name": f"{name}.npy"})
        for name, a in arrays.items()
    ]
    coder = open_model(str(model)) if model is not None else None
    embed = model if embed_model else None
    return compress_collections(
        collections,
        Path(out),
        coder,
        particles=particles,
        embed=embed,
        overwrite=overwrite,
        verify=verify,
        threads=threads,
    )


@fresh_thread()
def decompress(
    path: str | Path,
    *,
    model: str | Path | None = None,
    models: str | Path | None = None,
    limits: Limits = Limits(),
    threads: int | None = None,
) -> dict[str, NDArray[Any]]:
    """All arrays of an archive in memory, checked against the SHA-256 of the originals. ``model``: file or released name;
    ``models``: a folder to find it in by its SHA-256. ``limits``: what the arrays may take."""
    given = models if model is None else model
    with Archive(path) as archive:
        limits.check(archive)
        return read_arrays(archive, model_for(archive, None if given is None else str(given)), threads=threads)
