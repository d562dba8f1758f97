"""Draw new items from a model, and set items beside the model's picture of them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.api.score import model_levels, scoring_model
from vaedensity.arithmetic import full_precision, torch_threads
from vaedensity.data.atomic import atomic_file, refuse_existing
from vaedensity.density.bdmc import simulate
from vaedensity.density.entropy import scale_entropy
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import ModelFile
from vaedensity.model.kinds import Network
from vaedensity.model.likelihood import Reshaped
from vaedensity.model.sequence import SequenceVAE
from vaedensity.model.sequence_config import SequenceConfig
from vaedensity.report.mosaic import GAP, MOST_PIXELS, mosaic_size, write_mosaic

MOST_ITEMS, MOST_VALUES = 64, 1 << 20  # of one pass
Levels = NDArray[np.uint8]


def check_output(path: Path, suffixes: tuple[str, ...], *, overwrite: bool) -> None:
    """Refuse an output before the work rather than after it. Raises UsageError."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: expected a name ending in {' or '.join(suffixes)}")
    refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder; make it first")


def sample_batches(file: ModelFile, model: Network, n: int, seed: int) -> Iterator[Levels]:
    """Items 0 .. ``n`` - 1 that ``model`` draws with ``seed``, as levels (B,C,H,W) a few at a time.

    Item i is the same whatever ``n`` is: every pass has the full size, which depends on the model alone, because
    a sum of float32 may round otherwise in a batch of another size.
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
) -> dict[str, Any]:
    """Write ``n`` new items to ``out``; returns the record of ``sample --json``.

    ``entropy``: draw every value from the power of its distribution that has this fraction of its entropy.

    .npy: uint8 (n,H,W), (n,H,W,C) or, of series, (n,T) in the values of the training data. .png: one mosaic whose white is the
    model's highest level. An array is written as it is drawn; a mosaic has at most 2^28 pixels.
    """
    check_output(out, (".npy", ".png"), overwrite=overwrite)
    if n < 1:
        raise UsageError(f"found {n} items to draw; expected at least 1")
    started = time.monotonic()
    shape = _picture_shape(file)
    across, down = mosaic_size(n, *shape[:2])
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
            write_mosaic(f, (tile for batch in batches for tile in _bright(file, batch)), n, shape)
    return {
        "n": n,
        "shape": list(shape),
        "output": str(out),
        "bytes": out.stat().st_size,
        "seed": seed,
        "entropy": entropy,
        "model_sha256": file.sha256,
        "seconds": time.monotonic() - started,
    }


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
) -> dict[str, Any]:
    """Write a mosaic .png of the first ``n`` items of ``array``, each above its reconstruction.

    Returns the record of ``reconstruct --json``, whose ``n`` is smaller where there are fewer items.
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
        write_mosaic(f, pairs, len(pairs), pairs.shape[1:])
    return {
        "n": len(pairs),
        "mean_absolute_error_levels": float(np.abs(originals.astype(np.int16) - copies).mean()),
        "output": str(out),
        "bytes": out.stat().st_size,
        "model_sha256": file.sha256,
        "seconds": time.monotonic() - started,
    }


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
