"""Complete archives against general codecs: the same bytes, one run, everything verified by decoding."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def bench(
    array: NDArray[np.generic],
    source: str,
    models: list[str],
    rivals: list[str] | None = None,
    *,
    particles: int | None = None,
    threads: int | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Sizes and times of ``models``' archives of ``array`` and of ``rivals`` (all that are there, unless named).

    With ``particles`` each model is measured twice, with one and with so many. Each rival is tried in every layout that suits it and keeps the smallest. Seconds are wall time, archives
    without their own verification, as the rivals; what is decoded is compared outside of the clock.
    Raises UsageError, and VaedensityError where a codec does not give the data back.
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
        rows += [
            measure_archive(array, model, k, threads, say) for k in ((1,) if particles is None else (1, particles))
        ]
    images: NDArray[np.uint8] = array.view(np.uint8)
    if not series:
        images = np.ascontiguousarray(items.from_items(data, "NHWC" if data.shape[1] == 3 else "NHW"))
    if values is not None:
        images = (images == max(values)).astype(np.uint8) * np.uint8(255)
    for rival in chosen:
        trials = []
        for layout in [name for name in rival.layouts if not series or name in LAYOUTS_OF_SERIES]:
            say(f"{rival.name}, {layout}")
            trials.append(measure_rival(rival, layout, images))
        if trials:
            rows.append(min(trials, key=lambda r: r["bytes"]))
    for row in rows:
        row["bits_per_dim"] = 8 * row["bytes"] / array.size
        for way in ("compress", "decompress"):
            row[f"{way}_mb_per_second"] = array.nbytes / 1e6 / row[f"{way}_seconds"]
        if "model_bytes" in row:
            row["bits_per_dim_with_model"] = {
                str(n): row["bits_per_dim"] + 8 * row["model_bytes"] / (n * dims)
                for n in ((1,) if array.ndim == 1 else COLLECTIONS)
            }
    return {
        "data": source,
        "items": len(data),
        "dims": dims,
        "bytes_in": array.nbytes,
        "processors": os.cpu_count(),
        "threads": threads,
        "codecs": sorted(rows, key=lambda r: r["bytes"]),
    }


def choose_rivals(names: list[str] | None, two_valued: bool) -> list[Rival]:
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


def measure_archive(
    array: NDArray[np.generic], model: str, particles: int, threads: int, say: Say = lambda line: None
) -> dict[str, Any]:
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
    used = f"vaedensity, model {coder.name}" if record.model_items else f"vaedensity, model {coder.name} not used"
    return {
        "codec": used + (f", {particles} particles" if particles > 1 else ""),
        "layout": "archive",
        "bytes": record.bytes_out,
        "compress_seconds": record.seconds,
        "decompress_seconds": restored.seconds,
        "model_bytes": record.model_bytes,
        "expected_bits_per_dim": record.expected_bits_per_dim,
        "overhead_bytes": record.overhead_bytes,
        "model_items": record.model_items,
    }


def measure_rival(rival: Rival, layout: str, images: NDArray[np.uint8]) -> dict[str, Any]:
    pieces = lay_out(images, layout)
    started = time.perf_counter()
    coded = [rival.codec.encode(piece) for piece in pieces]
    middle = time.perf_counter()
    decoded = [rival.codec.decode(data) for data in coded]
    ended = time.perf_counter()
    if any(not np.array_equal(a.reshape(-1), b.reshape(-1)) for a, b in zip(pieces, decoded)):
        raise VaedensityError(f"{rival.name}, {layout}: does not give the data back")
    return {
        "codec": rival.name,
        "layout": layout,
        "bytes": sum(map(len, coded)),
        "compress_seconds": middle - started,
        "decompress_seconds": ended - middle,
    }
