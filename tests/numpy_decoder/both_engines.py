"""Models of random weights in either engine, and items for them."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sequences
from networks import SHAPES, random_items, random_model

from vaedensity.coding import engine as torch_engine
from vaedensity.coding.plan import Items
from vaedensity.coding.quantise import quantise
from vaedensity.model.checkpoint import load_model, save_model, slim_model
from vaedensity.numpy_decoder import engine as numpy_engine

SERIES: dict[str, dict[str, object]] = {
    **{noise: {"noise": noise} for noise in sequences.NOISES},
    "binary series": {"levels": 2, "length": 33, "categories": 2},
    "no contexts": {"levels": 20, "length": 16, "contexts": ()},
    "many contexts": {"contexts": (2, 5, 16), "length": 50, "noise": "uniform", "categories": 32, "variables": 7},
}
VALUES = {"binary": [7, 200]}


@cache
def model_file(kind: str) -> bytes:
    """The part of a model file that decoding needs."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "m.safetensors")
        seed = sum(kind.encode())
        if kind in SERIES:
            sequences.save(path, sequences.random_model(seed, **SERIES[kind]), (64, 128, 256)[seed % 3])
        else:
            model = random_model(kind, seed)
            found = quantise(model, random_items(model.config, 8, seed))
            parts = found.kernels, found.start, found.config.unit, found.direct_steps
            save_model(path, model, VALUES.get(kind), {"integer_bits_per_dim": 4.0}, *parts, overwrite=True)
        return slim_model(load_model(path))


@cache
def both(kind: str) -> tuple[torch_engine.CodingModel, numpy_engine.NumpyDecoder]:
    """The model in either engine."""
    data, path = model_file(kind), Path("a.vdz")
    return torch_engine.parse_decoder(data, kind, path), numpy_engine.parse_decoder(data, kind, path)


def items_of(kind: str, count: int) -> Items:
    """(count,C,H,W) levels."""
    c = both(kind)[0].integers.config
    found = sequences.random_series(c, count) if kind in SERIES else random_items(c, count)
    return found.numpy()


def same(found: list[Items], expected: list[Items]) -> bool:
    return len(found) == len(expected) and all(
        a.dtype == np.uint8 and np.array_equal(a, b) for a, b in zip(found, expected)
    )


KINDS = [*SHAPES, *SERIES]
