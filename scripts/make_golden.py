"""Make the golden archives that every later version must decode (tests/golden). Never overwrites one.

    python scripts/make_golden.py

Each golden is NAME.vdz with NAME.npz (what it must decode to) and NAME.safetensors (its model). The
models are small networks fitted for a moment to variations of the embedded digits.
"""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vaedensity.api.packing import gather
from vaedensity.api.settle import settle
from vaedensity.archive.block import Codec, Kind
from vaedensity.archive.writer import write_archive
from vaedensity.coding.engine import coding_model
from vaedensity.coding.quantise import coded_bits, quantise
from vaedensity.data.array_files import save_npz
from vaedensity.data.named import load_digits
from vaedensity.data.tree import scan
from vaedensity.items import apply_map, layout_of, series_layout, to_items, value_map
from vaedensity.model.checkpoint import load_model, save_model, slim_model
from vaedensity.model.config import VAEConfig
from vaedensity.model.kinds import Config
from vaedensity.model.sequence_config import SequenceConfig
from vaedensity.training.fit import fit
from vaedensity.training.schedule import Length, WarmupCosine
from vaedensity.training.settings import FitSettings

FOLDER = Path(__file__).parent.parent / "tests" / "golden"
DIGITS = load_digits()
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Golden:
    """What a golden is made of.

    Images or series to fit and to store, other arrays to store, changes of the network, particles, codec of the model's
    blocks (None: the writer chooses); whether the model lies inside, and whether the images are stored as files of a
    folder with other things in it.
    """

    train: np.ndarray
    stored: np.ndarray
    others: dict[str, np.ndarray] = field(default_factory=dict)
    network: dict[str, int | str] = field(default_factory=dict)
    particles: int = 1
    codec: Codec | None = None
    inside: bool = False
    folder: bool = False


def variations() -> dict[str, Golden]:
    a, b, c = DIGITS[:590], DIGITS[590:1180], DIGITS[1180:1770]
    colour = np.stack([9 * a + 6 * b, 7 * a + 5 * b + 3 * c, 3 * a + 11 * b + c], -1)[:, :7, :5]
    stretched = (np.minimum(DIGITS, 15) * 17).astype(np.uint8) + (DIGITS % 16 > 0) * (
        np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
    )
    stretched[DIGITS >= 15] = 255
    mixed = {
        "noise": RNG.integers(0, 256, (30, 8, 8), np.uint8),
        "labels": np.arange(-3, 20, dtype=">i2"),
        "text": np.array(["ein", "zwei", "drei"] * 40),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 8, 8), np.uint8),
        "flags": DIGITS[:9] > 8,
    }
    return {
        "grey": Golden(DIGITS[:1500], DIGITS[1500:1560], mixed),
        "colour-odd": Golden(colour[:500], colour[500:525]),
        "two-valued": Golden((DIGITS[:1500] > 7) * np.uint8(255), (DIGITS[1500:1540] > 7) * np.uint8(255)),
        "seven-sub-images": Golden(colour[:500], colour[500:540], network={"neighbours": 8, "sub_images": 7}),
        "coupled": Golden(
            (DIGITS[:1500] > 7) * np.uint8(255),
            (DIGITS[1500:1700] > 7) * np.uint8(255),
            {"n": np.arange(5)},
            particles=6,
        ),
        "coupled-seven": Golden(
            DIGITS[:1500], DIGITS[1500:1600], network={"neighbours": 4, "sub_images": 7}, particles=3
        ),
        "ends-first": Golden(
            stretched[:1500],
            stretched[1500:1560],
            {"n": np.arange(5)},
            codec=Codec(Kind.MODEL, ends_first=True),
        ),
        "coupled-ends-first": Golden(
            stretched[:1500],
            stretched[1500:1580],
            particles=3,
            codec=Codec(Kind.MODEL, coupled=True, ends_first=True),
        ),
        "series": Golden(
            stretched[:1500].reshape(-1, 64),
            stretched[1500:1560].reshape(-1, 64),
            {"outside": np.arange(256, dtype=np.uint8).reshape(4, 64), "rest": np.arange(9, dtype=np.uint8)},
            network={"noise": "normal"},
        ),
        "model-inside": Golden(
            DIGITS[:1500],
            DIGITS[1500:1560],
            mixed | {"planes": np.arange(3000, dtype="<i4") * 70000, "halves": np.linspace(0, 1, 900, dtype="<f2")},
            network={"neighbours": 4, "sub_images": 7},
            particles=3,
            inside=True,
        ),
        "categories": Golden(DIGITS[:1500], DIGITS[1500:1560], network={"likelihood": "categorical"}),
        "tree": Golden(DIGITS[:1500], DIGITS[1500:1530], folder=True),
    }


def make_folder(path: Path, images: np.ndarray) -> None:
    """Images with and without metadata, other files, links, an empty folder, odd names, times and permissions."""
    (path / "empty").mkdir(parents=True)
    (path / "sub").mkdir()
    for i, pixels in enumerate(images):
        info = PngInfo()
        info.add_text("Title", f"digit {i}")
        Image.fromarray(pixels).save(path / ("sub" if i % 3 else ".") / f"{i}.png", pnginfo=info if i % 2 else None)
    (path / "notes.txt").write_text("What these are: digits.\n" * 9)
    (path / "nothing").touch()
    (path / os.fsdecode(b"caf\xe9")).write_bytes(bytes(range(256)))
    (path / "link").symlink_to("sub/1.png")
    (path / "notes.txt").chmod(0o640)
    for number, (parent, folders, files) in enumerate(os.walk(path, topdown=False)):
        for name in (*files, *folders, "."):
            os.utime(os.path.join(parent, name), ns=(0, 1_600_000_000_123_456_789 + number), follow_symlinks=False)


def config_of(item_shape: tuple[int, ...], levels: int, golden: Golden, series: bool) -> Config:
    """A small network for such items."""
    channels, height, width = item_shape
    if series:
        sizes = {"variables": 4, "categories": 5, "width": 16, "encoder_width": 12, "context_bits": 8}
        shape = {"dilations": (1, 2, 5, 1), "contexts": (2, 3), "context_width": 8}
        return SequenceConfig(length=width, levels=levels, **sizes, **shape, **golden.network)  # type: ignore[arg-type]
    sizes = {"blocks": 1, "sub_image_blocks": 1, "components": 3}
    return VAEConfig(height, width, channels, levels, ((4, 3), (2, 2)), (16, 12), **sizes, **golden.network)  # type: ignore[arg-type]


def make(name: str, golden: Golden) -> None:
    train = golden.train
    layout = layout_of(train) or series_layout(train)
    assert layout is not None
    items = np.ascontiguousarray(to_items(train, layout))
    levels, values = value_map(items)
    items, _ = apply_map(items, levels, values)
    config = config_of(items.shape[1:], levels, golden, layout == "NT")
    settings = FitSettings(Length(steps=400), batch_size=64, schedule=WarmupCosine(peak=5e-3, warmup_steps=20))
    fitted = fit(items[50:], items[:50], config, settings).model
    integers = quantise(fitted, torch.from_numpy(items[:128]))
    rate = coded_bits(integers, torch.from_numpy(items[:50])) / config.dims
    path = FOLDER / f"{name}.safetensors"
    card = {"name": name, "data": "variations of the embedded digits", "integer_bits_per_dim": rate}
    unit = integers.config.unit
    save_model(
        path, fitted, values, card, integers.kernels, integers.start, unit, integers.direct_steps, overwrite=False
    )
    model, metas = coding_model(load_model(path), name), []
    arrays: dict[str, np.ndarray] = {"series" if layout == "NT" else "images": golden.stored, **golden.others}
    if golden.folder:
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder, "digits"), golden.stored)
            arrays, metas = gather(settle([scan(Path(folder, "digits"))], model))
    with open(FOLDER / f"{name}.vdz", "xb") as f:
        inside = slim_model(load_model(path)) if golden.inside else None
        tally = write_archive(f, arrays, metas, model, particles=golden.particles, codec=golden.codec, inside=inside)
    with open(FOLDER / f"{name}.npz", "xb") as f:
        save_npz(f, arrays)
    print(
        f"{name}: {rate:.3f} bits/dim, {tally.model_items} items by the model, {tally.fallback_blocks} fallback blocks"
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, golden in variations().items():
        if (FOLDER / f"{name}.vdz").exists():
            print(f"{name} is there")
        else:
            make(name, golden)


if __name__ == "__main__":
    main()
