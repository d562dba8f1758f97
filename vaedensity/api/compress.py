"""Compress collections into an archive."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from vaedensity import items
from vaedensity.api.choose import open_model, worthwhile
from vaedensity.api.packing import Coded, Say, Written, coded, cut_bytes, gather, require_readable
from vaedensity.api.settle import smaller
from vaedensity.archive.engine import Encoder
from vaedensity.archive.model_blocks import fits
from vaedensity.archive.writer import Tally, write_archive
from vaedensity.coding.engine import CodingModel
from vaedensity.coding.plan import MOST_PARTICLES, Tick, silent
from vaedensity.data.atomic import atomic_file, refuse_existing
from vaedensity.data.collection import Collection
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import load_model, slim_model
from vaedensity.model.released import resolve

# An archive of a model takes so many bytes at most to say so: of arrays this small it is written without, too.
SMALL_BYTES, SHARE_OF_MODEL = 1 << 20, 32


@dataclass(frozen=True, kw_only=True)
class Packed(Coded):
    """What became of collections.

    ``dims``: values of an item, None where items differ; ``expected_bits_per_dim``: minus the ELBO;
    ``overhead_bytes``: by what they are spent on; ``model_tried``, ``model_tried_items``: used in the end or not;
    ``bytes_with_model``, ``bytes_without_model``: of the archive, where that was tried.
    """

    dims: int | None
    bits_per_dim: float | None
    model_bytes: int
    expected_bits_per_dim: float | None
    overhead_bytes: dict[str, int]
    particles: int
    model_tried: str | None
    model_tried_items: int
    bytes_with_model: int | None
    bytes_without_model: int | None


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
) -> Packed:
    """Write named arrays to an archive, which ``vaedensity decompress`` restores as ``NAME.npy`` files.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Of any type but Python objects.
    out : str or Path
        The archive to write.
    model : str or Path, optional
        A model file or released name. None: fallback codecs alone.
    particles : int
        At most 256; they make the file smaller and the work so many times longer.
    embed_model : bool
        Whether the model is stored in the archive.
    overwrite : bool
        Whether ``out`` may exist.
    verify : bool
        Whether every block is decoded and compared.
    threads : int, optional
        How many to use; None: as many as are worth while here now.

    Returns
    -------
    Packed

    Raises
    ------
    UsageError, ModelError, VaedensityError

    Examples
    --------
    >>> import tempfile, vaedensity as vd
    >>> path = tempfile.mkdtemp() + "/digits.vdz"
    >>> packed = vd.compress({"digits": vd.load_digits()[:99]}, path, model="digits")
    >>> packed.items, packed.model, packed.bytes_out < packed.bytes_in
    (99, 'digits', True)
    """
    collections = [
        Collection(name, {name: items.plain_array(a, name, convert=False)}, {"kind": "npy", "name": f"{name}.npy"})
        for name, a in arrays.items()
    ]
    return pack(
        collections,
        Path(out),
        open_model(str(model)) if model is not None else None,
        particles=particles,
        embed=model if embed_model else None,
        overwrite=overwrite,
        verify=verify,
        threads=threads,
    )


def pack(
    collections: list[Collection],
    out: Path,
    model: CodingModel | None,
    *,
    overwrite: bool = False,
    verify: bool = True,
    particles: int = 1,
    embed: str | Path | None = None,
    threads: int | None = None,
    progress: Tick = silent,
    say: Say = lambda line: None,
) -> Packed:
    """Write ``collections`` to the archive ``out``.

    The smallest is kept of what is tried: with as many ``particles`` (at most 256, which cost that many times the time)
    and with one; small collections also without the model, whose name and hash take room.

    ``embed``: file or released name of ``model``, where it is to be stored in the archive, unless no block needs it.
    ``say`` hears where particles are not worth trying.
    """
    refuse_existing(out, overwrite)
    if not 1 <= particles <= MOST_PARTICLES:
        raise UsageError(f"{particles} particles: expected 1 to {MOST_PARTICLES}")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder; make it first")
    arrays, _ = gather([cut_bytes(collection, model) for collection in collections])
    if model is not None:
        require_fit(model, arrays)
    started = time.monotonic()
    if particles > 1:
        particles = worthwhile(particles, model, arrays, say)
    inside = None if embed is None else slim_model(load_model(resolve(str(embed))))

    def write(f: BinaryIO, model: CodingModel | None, particles: int, progress: Tick) -> Written:
        def attempt(collections: list[Collection]) -> tuple[Tally, list[dict[str, Any]]]:
            arrays, metas = gather([cut_bytes(collection, model) for collection in collections])
            how = {"verify": verify, "particles": particles, "threads": threads, "progress": progress}
            return write_archive(f, arrays, metas, model, inside=inside, **how), metas  # type: ignore[arg-type]

        return settled(f, collections, model, particles, attempt)

    with atomic_file(out, overwrite) as f:
        tried = [write(f, model, particles, progress)]
        best = tried[0]
        for how in _others(best, sum(a.nbytes for a in arrays.values()), inside):
            with tempfile.TemporaryFile(dir=out.parent) as other:
                tried.append(write(other, *how, silent))
                wished = embed is not None and best.tally.model_items > 0 and tried[-1].model is None
                if tried[-1].size < best.size and not wished:
                    best = tried[-1]
                    f.seek(0)
                    f.truncate()
                    other.seek(0)
                    shutil.copyfileobj(other, f, 1 << 20)
        if best.model is not None and best.particles < particles:
            say(f"{particles} particles make the archive larger: one is used")
        for collection in collections:
            collection.require_unchanged()
        require_readable(f)
    with_model = [one for one in tried if one.model is not None]
    without = [one.size for one in tried if one.model is None]
    tally, by_model = best.tally, best.tally.model_items > 0
    counted, values = tally.items_and_values()
    mostly_other = any(image for _, _, image in tally.arrays) and values < tally.bytes_in / 2  # of a byte each
    return Packed(
        **coded(best, time.monotonic() - started),
        dims=values // counted if counted and values % counted == 0 else None,
        bits_per_dim=8 * best.size / values if values and not mostly_other else None,
        model_bytes=best.model.file_bytes if best.model and by_model else 0,
        expected_bits_per_dim=float(tally.model_bits_expected) / tally.model_dims if by_model else None,
        overhead_bytes=tally.overhead_bytes,
        particles=best.particles,
        model_tried=model.name if model is not None else None,
        model_tried_items=tried[0].tried_items,
        bytes_with_model=min((one.tried_bytes for one in with_model), default=None),
        bytes_without_model=min(without, default=None),
    )


def _others(first: Written, raw_bytes: int, inside: bytes | None) -> Iterator[tuple[CodingModel | None, int]]:
    """Models and numbers of particles that may make less than ``first``."""
    if first.model is not None and first.particles > 1:
        yield first.model, 1
    small = raw_bytes <= max(SMALL_BYTES, SHARE_OF_MODEL * len(inside or b""))
    if first.model is not None and (small or not first.tally.model_items):
        yield None, 1


def settled(
    f: BinaryIO,
    collections: list[Collection],
    model: CodingModel | None,
    particles: int,
    attempt: Callable[[list[Collection]], tuple[Tally, list[dict[str, Any]]]],
) -> Written:
    """What ``attempt`` has written to ``f`` of ``collections``, of folders as files those images larger as pixels.

    ``attempt`` writes a whole archive and returns restore metadata of each collection.
    """
    first: tuple[int, int] | None = None
    while True:
        f.seek(0)
        f.truncate()
        tally, metas = attempt(collections)
        first = first or (tally.fitting_items, f.tell() + tally.declined_bytes)
        better = smaller(collections, metas, tally.stored)
        if better is None:
            return Written(model, particles, f.tell(), tally, collections, *first)
        collections = better


def require_fit(model: Encoder, arrays: dict[str, NDArray[Any]]) -> None:
    """Raise UsageError where no array holds items of ``model``."""
    if any(fits(model, array) for array in arrays.values()):
        return
    shape = model.item_shape
    wanted = f"items {list(shape)} (C,H,W)"
    if model.is_series:
        wanted = f"series of {shape[2]} values, or at least so many bytes"
    found = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items())
    raise UsageError(f"the model {model.name} codes {wanted}; found {found}; use no model, or fit one to them")
