"""The whole story on the embedded digits: fit, score, compress, decompress, compare."""

import io
import lzma
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaedensity.api.choose import open_model
from vaedensity.api.compress import pack
from vaedensity.api.decompress import unpack
from vaedensity.api.fit import fit_model
from vaedensity.api.fit_request import FitRequest
from vaedensity.api.score import ScoreRequest, score_array
from vaedensity.data.collection import LoadOptions
from vaedensity.data.named import load_named
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import VaedensityError
from vaedensity.model.checkpoint import load_model
from vaedensity.training.fit import Observer


def run_demo(
    seconds: float,
    *,
    observers: tuple[Observer, ...] = (),
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Fit on digits:train for ``seconds``, then score and archive digits:test."""
    train, held_out = (load_named(f"digits:{split}", LoadOptions()) for split in ("train", "test"))
    array = held_out.arrays["digits-test"]
    with tempfile.TemporaryDirectory(prefix="vaedensity-demo-") as folder:
        model, archive = Path(folder, "digits.safetensors"), Path(folder, "digits.vdz")
        fitted = fit_model(
            train.arrays["digits-train"],
            train.source,
            model,
            FitRequest(preset="tiny", seconds=seconds),
            observers=observers,
            say=say,
        )
        say("scoring")
        scores = score_array(
            load_model(model), array, held_out.source, ScoreRequest(ImportanceSampling(256)), progress=progress
        ).record
        say("compressing and decompressing")
        packed = pack([held_out], archive, open_model(str(model)), progress=progress)
        unpack(archive, Path(folder, "restored"), str(model), progress=progress)
        back = np.load(Path(folder, "restored", "digits-test.npy"), allow_pickle=False)
        if back.dtype != array.dtype or back.shape != array.shape or (back != array).any():
            raise VaedensityError("the restored digits differ from the originals")
    bits = 8 * array.size / array.size
    table = [
        {"name": f"log-likelihood, K = {scores['samples']}", "bits_per_dim": scores["bits_per_dim"], "bytes": None},
        {"name": "ELBO", "bits_per_dim": scores["elbo_bits_per_dim"], "bytes": None},
        {"name": "vaedensity archive, complete", "bits_per_dim": packed.bits_per_dim, "bytes": packed.bytes_out},
    ]
    for name, size in general_codecs(array).items():
        table.append({"name": name, "bits_per_dim": bits * size / array.size, "bytes": size})
    return {
        "items": len(array),
        "fit": asdict(fitted) | {"model": str(fitted.model)},
        "score": scores,
        "compress": asdict(packed),
        "table": table,
        "verdict": f"restored bit for bit: {len(array)} digits, {array.nbytes} bytes from {packed.bytes_out}",
    }


def general_codecs(array: NDArray[np.uint8]) -> dict[str, int]:
    """Bytes that general codecs need for images (N,H,W), each in its better layout."""
    raw = array.tobytes()
    columns = 16
    rows = -(-len(array) // columns)
    padded = np.zeros((rows * columns, *array.shape[1:]), np.uint8)
    padded[: len(array)] = array
    mosaic = padded.reshape(rows, columns, *array.shape[1:]).swapaxes(1, 2).reshape(rows * array.shape[1], -1)
    return {
        "zlib -9, whole array": len(zlib.compress(raw, 9)),
        "xz -9e, whole array": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)),
        "PNG, one mosaic": _image_bytes(mosaic, format="PNG", optimize=True),
        "WebP lossless, one mosaic": _image_bytes(
            np.stack([mosaic] * 3, -1), format="WEBP", lossless=True, quality=100, method=6
        ),
    }


def _image_bytes(pixels: NDArray[np.uint8], **options: Any) -> int:
    f = io.BytesIO()
    Image.fromarray(pixels).save(f, **options)
    return f.tell()
