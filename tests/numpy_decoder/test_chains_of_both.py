"""Both readers agree on networks of random weights, of kinds that no golden archive has."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sequences import NOISES, random_model, random_series, save

from vaedensity.archive.writer import write_archive
from vaedensity.coding import model_blocks
from vaedensity.coding.quantise import coding_model, quantise
from vaedensity.model.checkpoint import load_model, save_model
from vaedensity.model.config import VAEConfig
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.numpy_decoder.archive import read_arrays

IMAGES = {
    "line": dict(height=1, width=9, channels=1, levels=33),
    "seven-column": dict(height=9, width=1, channels=1, levels=2, neighbours=8, sub_images=7),
    "categories": dict(height=7, width=8, channels=1, levels=17, likelihood="categorical"),
    "colour-categories": dict(height=4, width=6, channels=3, levels=40, sub_images=7, likelihood="categorical"),
}
SERIES = [
    *({"noise": noise} for noise in NOISES),
    {"levels": 2, "length": 33, "categories": 2},
    {"levels": 20, "length": 16, "contexts": ()},
    {"contexts": (2, 5, 16), "length": 50, "noise": "uniform", "categories": 32, "variables": 7},
]


def read_back(folder: Path, model: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch, **how: int) -> np.ndarray:
    """What the second reader makes of items that the first packed with a model, be it ever so bad."""
    monkeypatch.setattr(model_blocks, "WORTH_ASKING", float("inf"))
    with open(folder / "x.vdz", "wb") as f:
        tally = write_archive(
            f, {"x": x}, {"collections": []}, coding_model(load_model(model), "m"), verify=False, **how
        )
    assert tally.model_items == len(x)
    return read_arrays(folder / "x.vdz", str(model))["x"]


@pytest.mark.parametrize("particles", [1, 33])
@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind: str, particles: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = dict(latents=((4, 3), (2, 2)), widths=(12, 8), blocks=1, sub_image_blocks=1, components=3)
    config = VAEConfig(**(IMAGES[kind] | sizes))  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = HierarchicalVAE(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.3 if "head" in name else 0.02))
    x = torch.randint(0, config.levels, (8 if particles > 1 else 12, *config.item_shape)).to(torch.uint8)
    integers = quantise(model.eval(), x[:4])
    card, path = {"integer_bits_per_dim": 4.0}, tmp_path / "m.safetensors"
    unit = integers.config.unit
    save_model(path, model, None, card, integers.kernels, integers.start, unit, integers.direct_steps, overwrite=True)
    items = np.ascontiguousarray(x.numpy()[:, 0] if config.channels == 1 else x.numpy())
    assert (read_back(tmp_path, path, items, monkeypatch, particles=particles, coder=20) == items).all()


@pytest.mark.parametrize("number", range(len(SERIES)))
def test_series(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(number, **SERIES[number])
    path = save(tmp_path / "m.safetensors", model, (64, 128, 256)[number % 3])
    items = np.ascontiguousarray(random_series(model.config, 12, number)[:, 0, 0].numpy())
    assert (read_back(tmp_path, path, items, monkeypatch) == items).all()
