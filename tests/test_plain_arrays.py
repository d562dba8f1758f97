"""Arrays that are more than their values, as masked ones, are refused wherever an array enters, and never stripped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaedensity as vd
from vaedensity.density.anomaly import Likelihood
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.density.regret import LikelihoodRegret
from vaedensity.errors import UsageError
from vaedensity.training.fit import fit
from vaedensity.training.schedule import Length
from vaedensity.training.settings import FitSettings


class Metres(np.ndarray):
    """An array with a unit."""


def bytes_of(*shape: int) -> np.ndarray:
    return (np.arange(int(np.prod(shape))) % 17).astype(np.uint8).reshape(shape)


X = bytes_of(4, 8, 8)
MASKED = np.ma.masked_greater(X, 15)
ODD: dict[str, tuple[Any, str]] = {
    "masked": (MASKED, "masked"),
    "masked, nothing hidden": (np.ma.MaskedArray(X), "masked"),
    "list of masked": (list(MASKED), "masked|list"),
    "record array": (X.view([("v", "u1")]).view(np.recarray), "recarray"),
    "array with a unit": (X.view(Metres), "Metres"),
    "matrix": (np.asmatrix(X[0]), "matrix"),
}
ENTRIES: dict[str, Callable[[Any, Path, Path], Any]] = {
    "compress": lambda x, model, out: vd.compress({"x": x}, out),
    "fit": lambda x, model, out: vd.fit(x, out, preset="fast", steps=1),
    "score": lambda x, model, out: vd.score(model, x, samples=2),
    "VAEDensity.fit": lambda x, model, out: vd.VAEDensity(preset="fast", steps=1).fit(x),
    "VAEDensity.score_samples": lambda x, model, out: vd.VAEDensity.load(model).score_samples(x),
    "VAEDensity.calibrate": lambda x, model, out: vd.VAEDensity.load(model).calibrate(x),
    "density.score": lambda x, model, out: score(vd.load_model(model).float_model(), x, ImportanceSampling(2)),
    "regret": lambda x, model, out: LikelihoodRegret().score(vd.load_model(model).float_model(), x),
    "training.fit": lambda x, model, out: fit(x, X, vd.load_model(model).config, FitSettings(Length(steps=1))),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("odd", ODD)
def test_arrays_that_would_lose_something_are_refused_by_name(
    odd: str, entry: str, model: Path, tmp_path: Path
) -> None:
    x, name = ODD[odd]
    with pytest.raises(UsageError, match=name) as refusal:
        ENTRIES[entry](x, model, tmp_path / "out")
    assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())


def test_anomaly_scores_refuse_them_too(model: Path) -> None:
    estimate = vd.score(model, X, samples=2)
    with pytest.raises(UsageError, match="masked"):
        Likelihood().score(estimate, MASKED[:, None])


def test_how_to_keep_a_masked_array_is_said_and_works(tmp_path: Path) -> None:
    a = np.ma.masked_invalid(np.array([1.0, np.nan, 3.0]))
    with pytest.raises(UsageError, match=r"x\.data and np\.ma\.getmaskarray\(x\)"):
        vd.compress({"a": a}, tmp_path / "a.vdz")
    vd.compress({"a": a.data, "a_mask": np.ma.getmaskarray(a)}, tmp_path / "a.vdz")
    back = vd.decompress(tmp_path / "a.vdz")
    assert back["a"].tobytes() == a.data.tobytes() and back["a_mask"].tolist() == [False, True, False]


class Frame:
    """Like a table with labels: an array can be made of it, without them."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X


@pytest.mark.parametrize("thing", [X.tolist(), torch.from_numpy(X), Frame(), None, "x"])
def test_compress_takes_arrays_only_since_nothing_else_would_come_back(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=type(thing).__name__):
        vd.compress({"x": thing}, tmp_path / "a.vdz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "array",
    [
        np.array([{"a": 1}], object),
        np.zeros(3, [("a", "u1"), ("b", "f4")]),
        np.zeros((1,) * 10),
        np.zeros(2, np.dtype("u1", metadata={"unit": "m"})),
        np.array(["a"], np.dtypes.StringDType()),
    ],
)
def test_arrays_that_no_archive_holds(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot store the array odd: it (has|holds)") as refusal:
        vd.compress({"odd": array}, tmp_path / "a.vdz")
    assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())


def test_maps_lists_and_tensors_of_plain_values_are_scored_as_arrays(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    truth = vd.score(model, X, samples=2).log_prob_nats
    for same in (mapped, torch.from_numpy(X), list(X), np.asfortranarray(X)):
        assert np.array_equal(vd.score(model, same, samples=2).log_prob_nats, truth)
    vd.compress({"x": mapped, "number": np.float64(2.5)}, tmp_path / "a.vdz")
    back = vd.decompress(tmp_path / "a.vdz")
    assert np.array_equal(back["x"], X) and back["number"] == 2.5


def test_masks_and_subclasses_are_found_however_deep_they_are() -> None:
    from collections import deque

    from vaedensity.items import plain_array

    class Holder:
        def __init__(self, array: np.ndarray):
            self.array = array

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return self.array

    masked = np.ma.masked_equal(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 16)
    for x in ([[row for row in r] for r in masked], [[r] for r in masked], deque(masked), [Holder(r) for r in masked]):
        with pytest.raises(UsageError, match="found a masked array"):
            plain_array(x, "x")
    with pytest.raises(UsageError, match="expected a plain numpy array"):
        plain_array([np.asmatrix(r) for r in masked.data], "x")
    for plain in ([[1, 2], [3, 4]], (np.arange(3), np.arange(3)), [Holder(np.arange(2))], [np.uint8(3)], []):
        assert type(plain_array(plain, "x")) is np.ndarray


def test_images_of_pillow_are_refused_for_their_mode() -> None:
    """numpy takes palette indices for grey, and HSV for RGB."""
    from PIL import Image

    for mode in ("L", "P", "HSV"):
        image = Image.new(mode, (8, 8))
        for x in (image, [image, image]):
            with pytest.raises(UsageError, match="images of Pillow"):
                vd.score("digits", x, samples=2)
