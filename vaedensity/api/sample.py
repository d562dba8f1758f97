"""Draw new items from a model, and set items beside their reconstructions."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vaedensity import items
from vaedensity.api.model_items import model_levels, scoring_model
from vaedensity.arithmetic import full_precision, torch_threads
from vaedensity.data.atomic import atomic_file, refuse_existing
from vaedensity.density.bdmc import simulate
from vaedensity.density.entropy import scale_entropy
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import ModelFile
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.kinds import Network
from vaedensity.model.likelihood import Reshaped
from vaedensity.model.sequence import SequenceVAE
from vaedensity.model.sequence_config import SequenceConfig

MOST_ITEMS, MOST_VALUES = 64, 1 << 20  # of one pass
GAP = 96  # between the tiles of a mosaic: neither black nor white
MOST_PIXELS = 1 << 28  # of a mosaic
Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class Samples:
    """New items that were written: ``n`` of ``shape`` (H,W) or (H,W,C) to ``output``, a file of ``bytes``."""

    n: int
    shape: tuple[int, ...]
    output: Path
    bytes: int
    seed: int
    entropy: float | None
    model_sha256: str
    seconds: float


@dataclass(frozen=True)
class Reconstructions:
    """Items that were written beside their reconstructions: ``n`` to ``output``, a file of ``bytes``. The error is the
    mean over all values."""

    n: int
    mean_absolute_error_levels: float
    output: Path
    bytes: int
    model_sha256: str
    seconds: float


def check_output(path: Path, suffixes: tuple[str, ...], *, overwrite: bool) -> None:
    """Raise UsageError for an output that cannot be written, before the work rather than after it."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: expected a name ending in {' or '.join(suffixes)}")
    refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder; make it first")


def sample_batches(file: ModelFile, model: Network, n: int, seed: int) -> Iterator[Levels]:
    """Items 0 to ``n`` - 1 that ``model`` draws with ``seed``, as levels (B,C,H,W) a few at a time.

    Item i is the same whatever ``n`` is. Every pass has the full size, which depends on the model alone: a sum of
    float32 may round otherwise in a batch of another size.
    """
    size = _pass_size(file)
    for first in range(0, n, size):
        x = simulate(model, size, model_sha256=file.sha256, seed=seed, first=first)[0]
        yield x[: n - first].cpu().numpy()


def pictures(levels: Levels) -> NDArray[np.uint8]:
    """(B,C,H,W) as (B,H,W) for one channel, else (B,H,W,C)."""
    return items.from_items(levels, "NHW" if levels.shape[1] == 1 else "NHWC")


def original_values(file: ModelFile, levels: Levels) -> NDArray[np.uint8]:
    """Levels (B,C,H,W) as :func:`pictures` in the values of the data that the model was fitted to."""
    return pictures(items.undo_map(levels, file.values))


@full_precision()
@torch_threads()
def write_samples(
    file: ModelFile,
    out: Path,
    n: int,
    *,
    seed: int = 0,
    entropy: float | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Samples:
    """Write new items to ``out``.

    Parameters
    ----------
    file : ModelFile
    out : Path
        .npy: uint8 (n,H,W), (n,H,W,C) or, of series, (n,T) in the values of the training data, written as they are
        drawn. .png: one mosaic of at most 2^28 pixels, whose white is the model's highest level.
    n : int
        How many items to draw.
    seed : int
        The first items are the same whatever ``n`` is.
    entropy : float, optional
        Draw every value from the power of its distribution that has this fraction of its entropy: below 1 sharper,
        above 1 flatter.
    device : str
    overwrite : bool
        Replace an existing file.
    progress : callable
        Told after every batch how many items are done.

    Raises
    ------
    UsageError
        For an output that cannot be written and numbers that make no sense.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import vaedensity as vd
    >>> with TemporaryDirectory() as folder:
    ...     write_samples(vd.load_model("digits"), Path(folder, "new.npy"), 2).shape
    (8, 8)
    """
    check_output(out, (".npy", ".png"), overwrite=overwrite)
    if n < 1:
        raise UsageError(f"found {n} items to draw; expected at least 1")
    started = time.monotonic()
    shape = _picture_shape(file)
    across, down = _mosaic_size(n, *shape[:2])
    if out.suffix.lower() == ".png" and across * down > MOST_PIXELS:
        raise UsageError(
            f"{out}: a mosaic of {n} items has {across * down} pixels, the limit is {MOST_PIXELS}; write .npy"
        )
    network = scoring_model(file, device)
    if entropy is not None:
        if not 0 <= entropy < float("inf"):
            raise UsageError(f"entropy {entropy}: expected a number of at least 0")
        if isinstance(network, SequenceVAE):
            network.reshape = lambda log_p: scale_entropy(log_p, entropy)
        else:
            network.likelihood = Reshaped(network.likelihood, lambda log_p: scale_entropy(log_p, entropy))
    batches = _counted(sample_batches(file, network, n, seed), progress)
    with atomic_file(out, overwrite) as f:
        if out.suffix.lower() == ".npy":
            whole = (n, file.config.dims) if isinstance(file.config, SequenceConfig) else (n, *shape)
            header = {"descr": "|u1", "fortran_order": False, "shape": whole}
            np.lib.format.write_array_header_1_0(f, header)
            for batch in batches:
                f.write(original_values(file, batch).tobytes())
        else:
            _write_mosaic(f, (tile for batch in batches for tile in _bright(file, batch)), n, shape)
    return Samples(n, shape, out, out.stat().st_size, seed, entropy, file.sha256, time.monotonic() - started)


@full_precision()
@torch_threads()
def write_reconstructions(
    file: ModelFile,
    array: NDArray[np.generic],
    source: str,
    out: Path,
    *,
    n: int = 16,
    device: str = "cpu",
    overwrite: bool = False,
) -> Reconstructions:
    """Write a mosaic of the first items of ``array``, each above its reconstruction.

    Parameters
    ----------
    file : ModelFile
    array : ndarray
        Images as for :func:`vaedensity.score`, called ``source`` in messages.
    out : Path
        A .png whose white is the model's highest level.
    n : int
        How many items at most.
    device : str
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    UsageError
        For an output that cannot be written, data that do not fit, and models of series.
    """
    check_output(out, (".png",), overwrite=overwrite)
    if n < 1:
        raise UsageError(f"found {n} items to reconstruct; expected at least 1")
    if isinstance(file.config, SequenceConfig):
        raise UsageError(
            f"{file.path}: a model of series has no pictures to reconstruct; draw some with 'vaedensity sample'"
        )
    originals = model_levels(file, array[:n] if array.ndim else array, source)
    started = time.monotonic()
    model = scoring_model(file, device)
    assert isinstance(model, HierarchicalVAE)
    size, parts = _pass_size(file), []
    with torch.inference_mode():
        for first in range(0, len(originals), size):
            part = np.ascontiguousarray(originals[first : first + size])
            parts.append(model.reconstruct(torch.from_numpy(part).to(device)).cpu().numpy())
    copies = np.concatenate(parts)
    above, below = _bright(file, originals), _bright(file, copies)
    between = np.full_like(above[:, :1], GAP)
    pairs = np.concatenate([above, between, below], 1)
    with atomic_file(out, overwrite) as f:
        _write_mosaic(f, pairs, len(pairs), pairs.shape[1:])
    error = float(np.abs(originals.astype(np.int16) - copies).mean())
    return Reconstructions(len(pairs), error, out, out.stat().st_size, file.sha256, time.monotonic() - started)


def _pass_size(file: ModelFile) -> int:
    return max(1, min(MOST_ITEMS, MOST_VALUES // file.config.dims))


def _picture_shape(file: ModelFile) -> tuple[int, ...]:
    channels, height, width = file.config.item_shape
    return (height, width) if channels == 1 else (height, width, channels)


def _bright(file: ModelFile, levels: Levels) -> NDArray[np.uint8]:
    """Levels (B,C,H,W) as :func:`pictures` from black, level 0, to white, the highest level."""
    highest = file.config.levels - 1
    return pictures(((levels.astype(np.uint32) * 255 + highest // 2) // highest).astype(np.uint8))


def _counted(batches: Iterator[Levels], progress: Callable[[int], None]) -> Iterator[Levels]:
    for batch in batches:
        yield batch
        progress(len(batch))


def _columns(n: int, height: int, width: int) -> int:
    """Tiles in a row, so that ``n`` tiles of ``height`` x ``width`` pixels come nearly as high as wide."""
    return min(n, math.ceil(math.sqrt(n * (height + 1) / (width + 1))))


def _mosaic_size(n: int, height: int, width: int) -> tuple[int, int]:
    """(width, height) in pixels of ``n`` tiles with gaps of one pixel."""
    columns = _columns(n, height, width)
    return columns * (width + 1) - 1, -(-n // columns) * (height + 1) - 1


def _write_mosaic(f: BinaryIO, tiles: Iterable[NDArray[np.uint8]], n: int, shape: tuple[int, ...]) -> None:
    """Write ``n`` tiles of ``shape`` (H,W) grey or (H,W,3) RGB, uint8, row by row with a gap of one pixel."""
    height, width = shape[:2]
    across, down = _mosaic_size(n, height, width)
    columns = _columns(n, height, width)
    canvas = np.full((down, across, *shape[2:]), GAP, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = tile
    Image.fromarray(canvas).save(f, format="PNG")
