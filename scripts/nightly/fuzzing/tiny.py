"""Networks and archives that are as small as they can be, of fixed numbers."""

import io
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity.archive import model_blocks, writer
from vaedensity.archive.block import Codec
from vaedensity.coding.engine import CodingModel, coding_model
from vaedensity.model.checkpoint import parse_model, save_model, slim_model
from vaedensity.model.config import VAEConfig
from vaedensity.model.kinds import Config, untrained
from vaedensity.model.sequence_config import SequenceConfig

RNG_SEED = 7
IMAGES = VAEConfig(4, 4, 1, 256, ((2, 1),), (2,), 0, 0, 1)
COLOURS = VAEConfig(4, 3, 3, 17, ((4, 1), (2, 1)), (2, 2), 1, 0, 2, neighbours=2, sub_images=7)
TWO = VAEConfig(4, 4, 1, 2, ((2, 1),), (2,), 0, 0, 1)
SERIES = SequenceConfig(6, 256, 2, 2, 4, 4, (1, 2), contexts=(2,), context_bits=2, context_width=2)


def model_bytes(config: Config, values: list[int] | None = None, *, slim: bool = True, seed: int = RNG_SEED) -> bytes:
    """A model file of a network of fixed small weights; ``slim``: without those in floating point."""
    rng = np.random.default_rng(seed)
    network = untrained(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.3, tuple(parameter.shape)).astype(np.float32)))
    kernels = {name: layer.quantise() for name, layer in network.integer_convs().items()}
    start = torch.round(network.start.detach() * network.start_unit).to(torch.int32)
    steps = [[1] * c for c, _, _ in network.latent_shapes]
    card = {"name": "tiny", "integer_bits_per_dim": 4.0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.safetensors")
        save_model(path, network.eval(), values, card, kernels, start, config.unit, steps, overwrite=True)
        data = path.read_bytes()
    return slim_model(parse_model(data, path)) if slim else data


def coding(data: bytes, name: str = "tiny") -> CodingModel:
    return coding_model(parse_model(data, Path(f"{name}.safetensors")), name)


def packed(
    arrays: dict[str, NDArray[Any]],
    *metas: dict[str, Any],
    model: bytes | None = None,
    inside: bool = True,
    particles: int = 1,
    codec: Codec | None = None,
) -> bytes:
    """An archive.

    Without ``metas`` the arrays are restored as all.npz; each of them that does not say otherwise has all arrays under
    their own names. However bad the tiny model is, its blocks are taken.
    """
    own = {name: name for name in arrays}
    restore = [{"arrays": own} | meta for meta in metas or ({"kind": "npz", "name": "all.npz"},)]
    f, network = io.BytesIO(), None if model is None else coding(model)
    never = mock.Mock(return_value=False)
    with mock.patch.object(model_blocks, "worth_asking", never), mock.patch.object(writer, "worth_asking", never):
        writer.write_archive(
            f,
            arrays,
            restore,
            network,
            particles=particles,
            codec=codec,
            inside=model if inside else None,
            threads=1,
        )
    return f.getvalue()


def pictures(config: VAEConfig, count: int, coloured_last: bool = True) -> NDArray[np.uint8]:
    """Items of a network's shape, nearly flat, so that it codes them smaller than a fallback codec."""
    rng = np.random.default_rng(RNG_SEED)
    items = rng.integers(0, min(config.levels, 4), (count, config.height, config.width, config.channels), np.uint8)
    return items if config.channels > 1 else items[..., 0]


def series(config: SequenceConfig, count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(RNG_SEED).integers(0, 4, (count, config.length), np.uint8)


def png_comment() -> bytes:
    """A PNG chunk that is metadata."""
    body = b"tEXtComment\0hello"
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def tree_meta(**changes: Any) -> dict[str, Any]:
    """A folder with a file, two images, a folder and a link, of the arrays of :func:`tree_arrays`."""
    meta = {
        "kind": "tree",
        "name": "t",
        "entries": ["a.txt", "b", "b/c.png", "b/d.bmp", "b/l"],
        "types": "fdiil",
        "bytes": ["pool"],
        "images": [{"array": "grey", "mode": "L"}],
        "sizes": [5],
        "extras": [len(png_comment()), 0],
        "links": ["../a.txt"],
        "rights": [493, 420, 493, 420, 420, 0],
        "times": [10**18, 5, -7, 0, 0, 1],
    }
    return meta | changes


def tree_arrays() -> dict[str, NDArray[Any]]:
    pool = np.frombuffer(b"hello" + png_comment(), np.uint8)
    return {"pool": pool, "grey": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)}
