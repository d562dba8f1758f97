"""Small networks of random weights for items of many shapes, each made once, and arrays of items for them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sequences
import torch
from cases import CONTENTS, filled
from hypothesis import strategies as st
from networks import random_items, random_model

from vaedensity.coding.engine import CodingModel, coding_model
from vaedensity.coding.quantise import build
from vaedensity.model.checkpoint import load_model, save_model, slim_model
from vaedensity.model.config import with_unit
from vaedensity.model.kinds import untrained

ONE_LEVEL = dict(latents=((2, 2),), widths=(6,), components=2)
TWO_LEVELS = dict(latents=((4, 2), (2, 1)), widths=(6, 4), components=2)
IMAGES = {
    "dot": dict(height=1, width=1, channels=1, levels=256) | ONE_LEVEL,
    "two by three": dict(height=2, width=3, channels=1, levels=256) | ONE_LEVEL,
    "grey": dict(height=8, width=8, channels=1, levels=256, neighbours=3) | TWO_LEVELS,
    "colour": dict(height=8, width=8, channels=3, levels=256) | ONE_LEVEL,
    "column": dict(height=9, width=1, channels=1, levels=2, neighbours=8, sub_images=7) | TWO_LEVELS,
    "two-valued": dict(height=6, width=5, channels=1, levels=2) | ONE_LEVEL,
    "two colours": dict(height=3, width=4, channels=3, levels=2) | ONE_LEVEL,
    "tall": dict(height=17, width=5, channels=1, levels=200) | TWO_LEVELS,
    "tall colour": dict(height=17, width=5, channels=3, levels=33, neighbours=2, sub_images=7) | TWO_LEVELS,
    "categories": dict(height=5, width=4, channels=1, levels=17, likelihood="categorical") | ONE_LEVEL,
    "colour categories": dict(height=4, width=6, channels=3, levels=40, likelihood="categorical") | ONE_LEVEL,
}
LARGE = {"large": dict(height=300, width=300, channels=3, levels=256) | ONE_LEVEL}
SERIES = {
    "bytes": dict(),
    "binary": dict(levels=2, length=33, categories=2),
    "twenty": dict(levels=20, length=16, contexts=(), noise="normal"),
    "short": dict(length=1, levels=3, variables=1, noise="uniform"),
}
VALUES = {"two-valued": [7, 200], "two colours": [255, 0]}


def packed(path: Path, name: str) -> tuple[CodingModel, bytes]:
    """The coding side of a model file, and what of it goes into an archive."""
    file = load_model(path)
    return coding_model(file, name), slim_model(file)


@lru_cache
def network(name: str) -> tuple[CodingModel, bytes]:
    """The model of that name and its file's bytes."""
    seed = sum(name.encode())
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        if name in SERIES:
            return packed(sequences.save(path, sequences.random_model(seed, **SERIES[name])), name)
        model, unit = random_model("grey", seed, **(IMAGES | LARGE)[name]), (64, 128, 256)[seed % 3]
        shell = untrained(with_unit(model.config, unit))
        shell.load_state_dict(model.state_dict())
        kernels = {key: layer.quantise() for key, layer in shell.integer_convs().items()}
        start = torch.round(shell.start.detach() * shell.start_unit).to(torch.int32)
        steps = [[2 ** ((seed + k) % 9) for k in range(c)] for c, _, _ in shell.latent_shapes]
        build(shell.config, kernels, start, steps)
        card = {"name": name, "integer_bits_per_dim": 4.0}
        save_model(path, model, VALUES.get(name), card, kernels, start, unit, steps, overwrite=True)
        return packed(path, name)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "NHW": lambda x: x[:, 0],
    "NHWC": lambda x: x.transpose(0, 2, 3, 1),
    "NCHW": lambda x: x,
}


@dataclass(frozen=True)
class Items:
    """An array of items for a model: of what contents, how they lie, and which hold a value that the model does not
    know."""

    model: str
    count: int
    contents: str
    seed: int
    layout: str = "NHW"
    unknown: tuple[int, ...] = ()
    as_bool: bool = False

    def make(self) -> np.ndarray:
        model, _ = network(self.model)
        c = model.integers.config
        shape = (self.count, *c.item_shape)
        if self.contents == "ramps" and not model.integers.is_sequence:
            levels = random_items(c, self.count, self.seed).numpy()
        else:
            contents = "noise" if self.contents == "ramps" else self.contents
            raw = filled(contents, self.seed, int(np.prod(shape))).reshape(shape)
            levels = (raw.astype(np.uint16) * (c.levels - 1) // 255).astype(np.uint8)
        x = levels if model.values is None else np.array(model.values, np.uint8)[levels]
        for item in self.unknown:
            x[item % self.count].reshape(-1)[self.seed % c.dims] = 100 if c.levels == 2 else 255
        x = x[:, 0, 0] if model.integers.is_sequence else LAYOUTS[self.layout](x)
        return x.astype(np.bool_) if self.as_bool else x

    def known(self) -> np.ndarray:
        """Which items the model knows all values of."""
        out = np.ones(self.count, bool)
        out[[item % self.count for item in self.unknown]] = False
        return out


@st.composite
def items(draw: st.DrawFn, names: tuple[str, ...], most: int = 6) -> Items:
    name = draw(st.sampled_from(names))
    c = network(name)[0].integers.config
    layout = draw(st.sampled_from(["NHW", "NHWC", "NCHW"])) if name not in SERIES else "NT"
    if (layout == "NHW" and c.item_shape[0] == 3) or (layout == "NCHW" and c.item_shape[2] in (1, 3)):
        layout = "NHWC"
    count, seed = draw(st.integers(1, most)), draw(st.integers(0, 1000))
    contents = draw(st.sampled_from(["ramps", *CONTENTS]))
    two = c.levels == 2 and name not in VALUES
    as_bool = two and draw(st.booleans())
    strange = not as_bool and c.levels < 256 and draw(st.integers(0, 3)) == 3
    unknown = tuple(draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2))) if strange else ()
    return Items(name, count, contents, seed, layout, unknown, as_bool)
