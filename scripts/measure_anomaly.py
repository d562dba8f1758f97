"""How well do the anomaly scores tell normal items from others? AUROC with 95 % intervals (DeLong et al. 1988).

    python scripts/measure_anomaly.py --mnist data/mnist.npz --fashion data/fashion-mnist.npz \\
        --mnist-model mnist --fashion-model fashion-mnist.safetensors --items 300 -k 16 --json anomaly.json

Three questions, each of test images that no model was fitted to: MNIST against Fashion-MNIST under the model of
MNIST, the reverse under the model of Fashion-MNIST, and MNIST against corrupted images of other MNIST digits. Of each
test set twice ``--items`` evenly spaced images are taken: every second one as it is, normal or anomalous; the ones
between are corrupted. Typicality refers to 500 evenly spaced images of the training split (x_train), which the
model may have been fitted to: their mean is a little low. The ratio's background is the other data set's model: in
the first two questions it was fitted to the very anomalies that are to be found, which flatters it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.api.fit import pick_device
from vaedensity.api.model_items import model_levels, scoring_model
from vaedensity.data.load import load_array
from vaedensity.density.anomaly import Likelihood, LikelihoodRatio, Typicality
from vaedensity.density.complexity import CODECS, Complexity
from vaedensity.density.estimate import Estimate, Floats
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.density.regret import LikelihoodRegret
from vaedensity.items import require_items
from vaedensity.model.checkpoint import ModelFile, load_model
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.released import resolve
from vaedensity.report.auroc import auroc

Images = NDArray[np.uint8]  # (N,28,28)
Scores = dict[str, Floats]
REFERENCE_ITEMS = 500
NOISE_SCALE = 64  # grey levels
BLUR, SHIFT = 5, 6  # pixels


def rotate(x: Images, rng: np.random.Generator) -> Images:
    return np.rot90(x, axes=(1, 2))


def invert(x: Images, rng: np.random.Generator) -> Images:
    return 255 - x


def flip(x: Images, rng: np.random.Generator) -> Images:
    return x[:, :, ::-1]


def shuffle(x: Images, rng: np.random.Generator) -> Images:
    """One permutation for all images."""
    order = rng.permutation(x[0].size)
    return x.reshape(len(x), -1)[:, order].reshape(x.shape)


def add_noise(x: Images, rng: np.random.Generator) -> Images:
    return np.rint(x + rng.normal(0, NOISE_SCALE, x.shape)).clip(0, 255).astype(np.uint8)


def blur(x: Images, rng: np.random.Generator) -> Images:
    edge = BLUR // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (BLUR, BLUR), (1, 2))
    return np.asarray(np.rint(windows.mean((3, 4))), np.uint8)


def stripe(x: Images, rng: np.random.Generator) -> Images:
    """Two full columns in the middle at the highest value."""
    middle = x.shape[2] // 2
    return np.concatenate([x[:, :, : middle - 1], np.full_like(x[:, :, :2], 255), x[:, :, middle + 1 :]], 2)


def halve_contrast(x: Images, rng: np.random.Generator) -> Images:
    return x // 2


def shift(x: Images, rng: np.random.Generator) -> Images:
    """To the right, the left filled with black."""
    return np.concatenate([np.zeros_like(x[:, :, :SHIFT]), x[:, :, :-SHIFT]], 2)


CORRUPTIONS: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "rotated by 90 degrees": rotate,
    "inverted": invert,
    "flipped left to right": flip,
    "pixels shuffled, one permutation": shuffle,
    f"Gaussian noise, s.d. {NOISE_SCALE} of 255": add_noise,
    f"box blur {BLUR}x{BLUR}": blur,
    "bright stripe, 2 columns": stripe,
    "contrast halved": halve_contrast,
    f"shifted right by {SHIFT} pixels": shift,
}


@dataclass
class Subject:
    """A data set, the model fitted to it and its typical items."""

    name: str
    file: ModelFile
    network: HierarchicalVAE
    whole: Images
    between: Images
    reference: Estimate | None = None


class Measurement:
    """All scores of a set of images under one subject's model, with the other's as background."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.device = pick_device(options.device)
        self.regret = LikelihoodRegret(steps=options.regret_steps)
        self.estimator = ImportanceSampling(options.samples)
        self.codecs = [Complexity(codec) for codec in options.codecs]

    def subject(self, name: str, data: Path, model: str) -> Subject:
        file = load_model(resolve(model))
        (_, train), (_, test) = load_array(f"{data}:x_train"), load_array(f"{data}:x_test")
        if len(test) < 2 * self.options.items:
            raise SystemExit(f"{data}: found {len(test)} test images, expected twice --items or more")
        chosen = test[evenly(len(test), 2 * self.options.items)]
        subject = Subject(name, file, scoring_model(file, self.device), chosen[::2], chosen[1::2])
        subject.reference = self.estimate(subject, train[evenly(len(train), REFERENCE_ITEMS)], f"{name}, reference")
        return subject

    def settings(self, subject: Subject) -> dict[str, Any]:
        return {
            "model_sha256": subject.file.sha256,
            "seed": self.options.seed,
            "batch_size": self.options.batch_size,
        }

    def estimate(self, subject: Subject, images: Images, what: str) -> Estimate:
        started = time.monotonic()
        levels = model_levels(subject.file, images, what)
        found = score(subject.network, levels, self.estimator, **self.settings(subject))
        print(f"{what}: {len(images)} images, {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
        return found

    def scores(self, own: Subject, other: Subject, images: Images, what: str) -> Scores:
        assert own.reference is not None
        items = require_items(images, what)
        estimate = self.estimate(own, images, f"{what}, model {own.name}")
        background = self.estimate(other, images, f"{what}, model {other.name}")
        started = time.monotonic()
        levels = model_levels(own.file, images, what)
        regret = self.regret.score(own.network, levels, **self.settings(own))
        print(f"{what}, regret: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
        return {
            "likelihood": Likelihood().score(estimate, items),
            **{f"complexity ({c.codec})": c.score(estimate, items) for c in self.codecs},
            "typicality": Typicality(own.reference).score(estimate, items),
            "regret": regret,
            "ratio": LikelihoodRatio(background).score(estimate, items),
        }


def evenly(n: int, count: int) -> NDArray[np.int64]:
    """``count`` indices spread evenly over 0..n-1."""
    return np.linspace(0, n - 1, min(n, count)).round().astype(np.int64)


def compare(normal: Scores, anomalous: Scores) -> dict[str, Any]:
    """Per score: AUROC, its interval and the mean of both samples in bits."""
    return {
        name: auroc(normal[name], anomalous[name])._asdict()
        | {"normal_bits": float(normal[name].mean()), "anomalous_bits": float(anomalous[name].mean())}
        for name in normal
    }


def table(title: str, rows: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [f"\n{title}\n", f"| anomalous | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for what, row in rows.items():
        cells = [f"{r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in row.values()]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, default=Path("data/mnist.npz"))
    parser.add_argument("--fashion", type=Path, required=True)
    parser.add_argument("--mnist-model", default="mnist")
    parser.add_argument("--fashion-model", required=True)
    parser.add_argument("--items", type=int, default=300, help="Images of each sample.")
    parser.add_argument("-k", "--samples", type=int, default=16)
    parser.add_argument("--regret-steps", type=int, default=LikelihoodRegret.steps)
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    started, measurement = time.monotonic(), Measurement(options)
    mnist = measurement.subject("MNIST", options.mnist, options.mnist_model)
    fashion = measurement.subject("Fashion-MNIST", options.fashion, options.fashion_model)
    normal = measurement.scores(mnist, fashion, mnist.whole, "MNIST")
    rows = {"Fashion-MNIST test": compare(normal, measurement.scores(mnist, fashion, fashion.whole, "Fashion-MNIST"))}
    for what, corrupt in CORRUPTIONS.items():
        images = np.ascontiguousarray(corrupt(mnist.between, np.random.default_rng(options.seed)))
        rows[f"MNIST, {what}"] = compare(normal, measurement.scores(mnist, fashion, images, f"MNIST, {what}"))
    normal = measurement.scores(fashion, mnist, fashion.whole, "Fashion-MNIST")
    reverse = {"MNIST test": compare(normal, measurement.scores(fashion, mnist, mnist.whole, "MNIST"))}
    tables = {"Normal: MNIST test, its model": rows, "Normal: Fashion-MNIST test, its model": reverse}

    print(f"AUROC [95 % interval], {options.items} images a sample, {measurement.estimator}, {measurement.regret}")
    for title, rows in tables.items():
        print(table(title, rows))
    if options.json:
        record = {
            "options": {key: str(v) if isinstance(v, Path) else v for key, v in vars(options).items()},
            "estimator": repr(measurement.estimator),
            "regret": repr(measurement.regret),
            "model_sha256": {s.name: s.file.sha256 for s in (mnist, fashion)},
            "reference_items": REFERENCE_ITEMS,
            "tables": tables,
            "seconds": time.monotonic() - started,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
