"""Complete archives against general codecs: the same bytes, one run, every rival verified by decoding.

    python scripts/bench_archive.py data/mnist.npz:x_test --model mnist [--json out.json]

Sizes are complete files. Seconds are wall time of this machine; ``vs zpaq`` is zpaq's time over the
codec's. vaedensity is timed without verification (--no-verify), as the others are, and with two
threads where the machine has two cores; zpaq -m5 is given as many threads but has one block to code.
"""

import argparse
import io
import json
import lzma
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaedensity.data.load import load, load_array
from vaedensity.tasks.packing import compress, decompress, open_model

Encode, Decode = Callable[[], bytes], Callable[[bytes], bytes]


def mosaic(array: np.ndarray) -> np.ndarray:
    """Images (N,H,W[,C]) as one picture, about square; N is cut to fill it."""
    columns = next(c for c in range(int(len(array) ** 0.5), 0, -1) if len(array) % c == 0)
    rows = len(array) // columns
    grid = array.reshape(rows, columns, *array.shape[1:])
    return np.ascontiguousarray(
        np.moveaxis(grid, 1, 2).reshape(rows * array.shape[1], columns * array.shape[2], *array.shape[3:])
    )


def timed(encode: Encode, decode: Decode, expected: bytes) -> dict[str, Any]:
    started = time.monotonic()
    coded = encode()
    middle = time.monotonic()
    back = decode(coded)
    ended = time.monotonic()
    if back != expected:
        raise SystemExit("a rival does not give the data back; fix the benchmark")
    return {"bytes": len(coded), "in_seconds": middle - started, "out_seconds": ended - middle}


def rivals(array: np.ndarray) -> dict[str, Callable[[], dict[str, Any]]]:
    raw, picture = array.tobytes(), mosaic(array)
    flat = picture.tobytes()
    found: dict[str, Callable[[], dict[str, Any]]] = {}

    def pillow(**options: Any) -> Callable[[], dict[str, Any]]:
        def encode() -> bytes:
            f = io.BytesIO()
            source = picture if picture.ndim == 3 or options["format"] == "PNG" else np.stack([picture] * 3, -1)
            Image.fromarray(source).save(f, **options)
            return f.getvalue()

        def decode(coded: bytes) -> bytes:
            pixels = np.asarray(Image.open(io.BytesIO(coded)))
            return (pixels if pixels.ndim == picture.ndim else pixels[..., 0]).tobytes()

        return lambda: timed(encode, decode, flat)

    found["PNG, mosaic"] = pillow(format="PNG", optimize=True)
    found["WebP lossless m6, mosaic"] = pillow(format="WEBP", lossless=True, quality=100, method=6)
    found["xz -9e, whole array"] = lambda: timed(
        lambda: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME), lzma.decompress, raw
    )
    try:
        import imagecodecs
    except ImportError:
        print("imagecodecs is not installed: no JPEG XL, no brotli, no zstd")
    else:
        found["zstd -22, whole array"] = lambda: timed(
            lambda: imagecodecs.zstd_encode(raw, level=22), lambda c: bytes(imagecodecs.zstd_decode(c)), raw
        )
        found["brotli 11, whole array"] = lambda: timed(
            lambda: imagecodecs.brotli_encode(raw, level=11, lgwin=24),
            lambda c: bytes(imagecodecs.brotli_decode(c)),
            raw,
        )
        found["JPEG XL e9, mosaic"] = lambda: timed(
            lambda: imagecodecs.jpegxl_encode(picture, lossless=True, effort=9, numthreads=1),
            lambda c: imagecodecs.jpegxl_decode(c).tobytes(),
            flat,
        )
    if shutil.which("zpaq"):
        found["zpaq -m5, whole array"] = lambda: zpaq(raw)
    return found


def zpaq(raw: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "raw").write_bytes(raw)
        started = time.monotonic()
        subprocess.run(["zpaq", "add", "a.zpaq", "raw", "-m5"], cwd=folder, check=True, capture_output=True)
        middle = time.monotonic()
        subprocess.run(["zpaq", "extract", "a.zpaq", "raw", "-to", "back"], cwd=folder, check=True, capture_output=True)
        ended = time.monotonic()
        if Path(folder, "back").read_bytes() != raw:
            raise SystemExit("zpaq does not give the data back")
        return {
            "bytes": Path(folder, "a.zpaq").stat().st_size,
            "in_seconds": middle - started,
            "out_seconds": ended - middle,
        }


def ours(data: str, model: str, array: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    coder = open_model(model)
    with tempfile.TemporaryDirectory() as folder:
        archive, back = Path(folder, "a.vdz"), Path(folder, "back")
        record = compress([load(data)], archive, coder, verify=False)
        restored = decompress(archive, back, model)
        found = np.load(restored["restored"][0])
        if found.dtype != array.dtype or found.shape != array.shape or (found != array).any():
            raise SystemExit("vaedensity does not give the data back")
    return record, {"bytes": record["bytes_out"], "in_seconds": record["seconds"], "out_seconds": restored["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _, mapped = load_array(options.data)
    array = np.ascontiguousarray(mapped)
    record, mine = ours(options.data, options.model, array)
    results = {f"vaedensity, model {options.model}": mine}
    for name, measure in rivals(array).items():
        results[name] = measure()
    megabytes, reference = array.nbytes / 1e6, results.get("zpaq -m5, whole array")
    print(f"{options.data}: {len(array)} items, {array.nbytes} bytes; {os.cpu_count()} processors\n")
    print("| codec | bytes | bits/dim | MB/s in | MB/s out | time vs zpaq, in | out |\n|---|---|---|---|---|---|---|")
    for name, r in sorted(results.items(), key=lambda pair: pair[1]["bytes"]):
        ratio = [f"{reference[k] / r[k]:.2f}x" if reference else "" for k in ("in_seconds", "out_seconds")]
        speeds = [f"{megabytes / r[k]:.2f}" for k in ("in_seconds", "out_seconds")]
        print(
            f"| {name} | {r['bytes']} | {8 * r['bytes'] / array.size:.4f} | {speeds[0]} | {speeds[1]} | {ratio[0]} | {ratio[1]} |"
        )
    share = 100 * sum(record["overhead_bytes"].values()) / record["bytes_out"]
    print(
        f"\nexpected {record['expected_bits_per_dim']:.4f} bits/dim (-ELBO of the integer model), file {record['bits_per_dim']:.4f}"
    )
    print(f"overhead {record['overhead_bytes']} = {share:.3f} % of the file; model {record['model_bytes']} bytes")
    if options.json:
        options.json.write_text(
            json.dumps({"data": options.data, "record": record, "codecs": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
