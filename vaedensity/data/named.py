"""Data sets that go by a name: the embedded digits and torchvision's image sets."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.collection import Collection, LoadOptions
from vaedensity.errors import UsageError, VaedensityError, first_line

DIGITS_TRAIN = 1500
DIGITS = {"": slice(None), "train": slice(0, DIGITS_TRAIN), "test": slice(DIGITS_TRAIN, None)}
# name -> (torchvision's class, how it spells its splits)
CLASSES = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS", "CIFAR10", "CIFAR100")
TORCHVISION: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    **{
        kind.lower().replace("fashion", "fashion-"): (kind, {"train": {"train": True}, "test": {"train": False}})
        for kind in CLASSES
    },
    "svhn": ("SVHN", {s: {"split": s} for s in ("train", "test", "extra")}),
    "stl10": ("STL10", {s: {"split": s} for s in ("train", "test", "unlabeled")}),
}


def is_named(spec: str) -> bool:
    """Whether ``spec`` is ``name`` or ``name:split`` of a data set."""
    name = spec.partition(":")[0]
    return name == "digits" or name in TORCHVISION


def names() -> list[str]:
    """All names of data sets."""
    return ["digits", *TORCHVISION]


def load_named(spec: str, options: LoadOptions) -> Collection:
    """The data set ``name`` or ``name:split``; without a split all of the digits, or the training set of the others.

    Raises UsageError where there is no such split, or the files are not under ``options.data_root``; VaedensityError
    where they cannot be downloaded or read.
    """
    name, _, split = spec.partition(":")
    if name == "digits":
        if split not in DIGITS:
            raise UsageError(f"{spec}: digits has the splits train and test")
        array = load_digits()[DIGITS[split]]
    else:
        kind, splits = TORCHVISION[name]
        if (split or "train") not in splits:
            raise UsageError(f"{spec}: {name} has the splits {', '.join(splits)}")
        array = _load_torchvision(spec, kind, splits[split or "train"], options)
    stem = f"{name}-{split}" if split else name
    return Collection(spec, {stem: array}, {"kind": "npy", "name": f"{stem}.npy"})


def load_digits() -> NDArray[np.uint8]:
    """The handwritten digits that scikit-learn has, too: small images to try things with.

    Returns
    -------
    numpy.ndarray
        (1797, 8, 8) uint8, values 0 to 16. The first 1500 are ``digits:train``, the others ``digits:test``.

    Examples
    --------
    >>> load_digits().shape
    (1797, 8, 8)
    """
    with np.load(Path(__file__).parent / "digits.npz", allow_pickle=False) as f:
        images: NDArray[np.uint8] = f["images"]
    return images


def _load_torchvision(spec: str, kind: str, split: dict[str, Any], options: LoadOptions) -> NDArray[np.uint8]:
    import torchvision  # type: ignore[import-untyped] # it has no types

    try:
        data = getattr(torchvision.datasets, kind)(options.data_root, download=options.download, **split)
    except ImportError as error:
        raise VaedensityError(f"{spec}: torchvision cannot read it ({error}); install what is missing") from error
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError, KeyError, IndexError, TypeError) as error:
        reason, root = first_line(error), options.data_root
        if options.download:
            raise VaedensityError(f"{spec}: the download failed ({reason}); put the files under {root}") from error
        raise UsageError(
            f"{spec}: not found under {root} ({reason}); pass data_root=FOLDER, or download=True"
        ) from error
    images = np.ascontiguousarray(np.asarray(data.data))
    if images.dtype != np.uint8:
        raise UsageError(f"{spec}: its files hold {images.dtype}, expected uint8; get them again")
    return images
