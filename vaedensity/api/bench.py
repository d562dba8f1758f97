"""Complete archives against general codecs: the same bytes, one run, everything verified by decoding."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.api.choose import open_model
from vaedensity.api.compress import pack
from vaedensity.api.decompress import unpack
from vaedensity.api.rivals import MISSING, Rival, known_rivals, lay_out
from vaedensity.data.collection import Collection
from vaedensity.errors import UsageError, VaedensityError
from vaedensity.machine import choose_threads

LAYOUTS_OF_SERIES = ("whole array", "packed bits")
COLLECTIONS = (10_000, 60_000)  # items for which the rate with the model's bytes is given
Say = Callable[[str], None]


@dataclass(frozen=True)
class ModelUse:
    """What a model did in an archive: the items that it coded, the rate that its ELBO foretold, the overhead by kind,
    and the rate with the model's own bytes for collections of so many items."""

    model_bytes: int
    expected_bits_per_dim: float | None
    overhead_bytes: dict[str, int]
    model_items: int
    bits_per_dim_with_model: dict[str, float]


@dataclass(frozen=True)
class BenchRow:
    """One codec's complete file. Speeds are in 10^6 bytes of raw data a second; ``model`` is None of general codecs."""

    codec: str
    layout: str
    bytes: int
    bits_per_dim: float
    compress_seconds: float
    decompress_seconds: float
    compress_mb_per_second: float
    decompress_mb_per_second: float
    model: ModelUse | None = None


@dataclass(frozen=True)
class Bench:
    """All codecs on one array, the smallest file first."""

    data: str
    items: int
    dims: int
    bytes_in: int
    processors: int | None
    threads: int
    codecs: tuple[BenchRow, ...]


def bench(
    array: NDArray[np.generic],
    source: str,
    models: list[str],
    rivals: list[str] | None = None,
    *,
    particles: int | None = None,
    threads: int | None = None,
    say: Say = lambda line: None,
) -> Bench:
    """Measure the sizes and times of archives and of general codecs on the same array.

    Each rival is tried in every layout that suits it and keeps the smallest. Seconds are wall time, of archives without
    their own verification, as of rivals. What is decoded is compared outside of the clock.

    Parameters
    ----------
    array : ndarray
        Images, series or bytes, called ``source`` in messages.
    models : list of str
        Model files or released names.
    rivals : list of str, optional
        Names of general codecs; by default all that this machine has.
    particles : int, optional
        Measure each model twice, with one and with so many coupled particles.
    threads : int, optional
    say : callable
        Told in one line what is measured next.

    Raises
    ------
    UsageError
        For data and names that do not fit.
    VaedensityError
        Where a codec does not give the data back.
    """
    threads = choose_threads(threads)
    array = np.ascontiguousarray(array)
    series = array.ndim in (1, 2)
    if array.ndim == 1:
        items.require_series(array, source, 1)
        data, values, dims = array[None], None, array.size
    else:
        data = items.require_series(array, source) if series else items.require_items(array, source)
        (_, values), dims = items.value_map(data), data[0].size
    chosen = choose_rivals(rivals, values is not None)
    rows = []
    for model in models:
        say(f"vaedensity, model {model}")
        rows += [_archive_row(array, model, k, threads, say) for k in ((1,) if particles is None else (1, particles))]
    images: NDArray[np.uint8] = array.view(np.uint8)
    if not series:
        images = np.ascontiguousarray(items.from_items(data.view(np.uint8), "NHWC" if data.shape[1] == 3 else "NHW"))
    if values is not None:
        images = (images == max(values)).astype(np.uint8) * np.uint8(255)
    for rival in chosen:
        trials = []
        for layout in [name for name in rival.layouts if not series or name in LAYOUTS_OF_SERIES]:
            say(f"{rival.name}, {layout}")
            trials.append(_rival_row(rival, layout, images, array))
        if trials:
            rows.append(min(trials, key=lambda row: row.bytes))
    ranked = tuple(sorted(rows, key=lambda row: row.bytes))
    return Bench(source, len(data), dims, array.nbytes, os.cpu_count(), threads, ranked)


def choose_rivals(names: list[str] | None, two_valued: bool) -> list[Rival]:
    """The general codecs of these names, all there are of None. Raises UsageError for a name that is not there."""
    known = known_rivals(two_valued)
    if names is None:
        return list(known.values())
    for name in names:
        if name not in known:
            if name in MISSING:
                raise UsageError(
                    f"rival {name}: needs {MISSING[name]}; pip install 'vaedensity[bench]' or leave it out"
                )
            raise UsageError(f"rival {name}: expected some of {', '.join(sorted({*known, *MISSING}))}")
    return [known[name] for name in names]


def plot_rates(f: BinaryIO, result: Bench) -> None:
    """Draw rate against speed as a PNG, a point a codec and direction. Needs matplotlib; raises ImportError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes, rates = figure.add_subplot(), [row.bits_per_dim for row in result.codecs]
    ways = {
        "compress": ("o", [row.compress_mb_per_second for row in result.codecs]),
        "decompress": ("x", [row.decompress_mb_per_second for row in result.codecs]),
    }
    for way, (marker, speeds) in ways.items():
        axes.scatter(speeds, rates, marker=marker, label=way, color="black")
    for row in result.codecs:
        left, right = sorted((row.compress_mb_per_second, row.decompress_mb_per_second))
        axes.plot([left, right], [row.bits_per_dim] * 2, color="grey", linewidth=0.8, zorder=0)
        axes.annotate(
            row.codec,
            (right, row.bits_per_dim),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_xlabel("MB/s of raw data")
    axes.set_ylabel("bits per dimension, complete files")
    axes.set_title(f"{result.items} items of {result.dims} dimensions, {result.threads} threads")
    axes.margins(x=0.25)
    axes.legend()
    figure.savefig(f, format="png")


def _archive_row(array: NDArray[np.generic], model: str, particles: int, threads: int, say: Say) -> BenchRow:
    coder = open_model(model)
    with tempfile.TemporaryDirectory(prefix="vaedensity-bench-") as folder:
        archive, back = Path(folder, "a.vdz"), Path(folder, "back")
        collection = Collection("array", {"x": array}, {"kind": "npy", "name": "x.npy"})
        if array.ndim == 1:
            collection = Collection("bytes", {"bytes": array}, {"kind": "file", "name": "x"})
        record = pack([collection], archive, coder, verify=False, particles=particles, threads=threads, say=say)
        restored = unpack(archive, back, model, threads=threads)
        found = np.fromfile(restored.restored[0], np.uint8) if array.ndim == 1 else np.load(restored.restored[0])
        if found.dtype != array.dtype or not np.array_equal(found, array):
            raise VaedensityError(f"vaedensity, model {model}: the restored array differs from the original")
    rate, size = 8 * record.bytes_out / array.size, record.model_bytes
    dims, counts = (array.size, (1,)) if array.ndim == 1 else (array[0].size, COLLECTIONS)
    use = ModelUse(
        size,
        record.expected_bits_per_dim,
        record.overhead_bytes,
        record.model_items,
        {str(n): rate + 8 * size / (n * dims) for n in counts},
    )
    used = f"vaedensity, model {coder.name}" + ("" if use.model_items else " not used")
    codec = used + (f", {particles} particles" if particles > 1 else "")
    return _row(codec, "archive", record.bytes_out, array, record.seconds, restored.seconds, use)


def _rival_row(rival: Rival, layout: str, images: NDArray[np.uint8], array: NDArray[np.generic]) -> BenchRow:
    pieces = lay_out(images, layout)
    started = time.perf_counter()
    coded = [rival.codec.encode(piece) for piece in pieces]
    middle = time.perf_counter()
    decoded = [rival.codec.decode(data) for data in coded]
    ended = time.perf_counter()
    if any(not np.array_equal(a.reshape(-1), b.reshape(-1)) for a, b in zip(pieces, decoded)):
        raise VaedensityError(f"{rival.name}, {layout}: does not give the data back")
    return _row(rival.name, layout, sum(map(len, coded)), array, middle - started, ended - middle)


def _row(
    codec: str,
    layout: str,
    size: int,
    array: NDArray[np.generic],
    compress_seconds: float,
    decompress_seconds: float,
    model: ModelUse | None = None,
) -> BenchRow:
    megabytes = array.nbytes / 1e6
    return BenchRow(
        codec,
        layout,
        size,
        8 * size / array.size,
        compress_seconds,
        decompress_seconds,
        megabytes / compress_seconds,
        megabytes / decompress_seconds,
        model,
    )
