"""data/: data sets that go by a name."""

from pathlib import Path

import numpy as np
import pytest
from trees import GREY, encoded, grow

from vaedensity.data.collection import LoadOptions
from vaedensity.data.load import load, load_array
from vaedensity.data.named import load_named
from vaedensity.errors import UsageError, VaedensityError


def test_load_named_digits_splits(digits: np.ndarray) -> None:
    parts = [load_named(f"digits{split}", LoadOptions()) for split in ("", ":train", ":test")]
    assert [list(p.arrays) for p in parts] == [["digits"], ["digits-train"], ["digits-test"]]
    assert np.array_equal(parts[0].arrays["digits"], digits) and digits.shape == (1797, 8, 8) and digits.max() == 16
    both = np.concatenate([parts[1].arrays["digits-train"], parts[2].arrays["digits-test"]])
    assert np.array_equal(both, digits)


def test_what_lies_on_disk_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grow(tmp_path / "digits", {"0.png": encoded(GREY, "PNG")})
    assert np.array_equal(load_array("digits")[1][0], GREY)


@pytest.mark.parametrize("spec", ["", "nothing", "digits:valid", "mnist:extra", "missing.npy", "missing.npz:x"])
def test_unknown_names_are_refused(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, {"0.png": encoded(GREY, "PNG")})  # an empty name must not mean the current folder
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        load(spec)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "usps", "svhn", "stl10:unlabeled"])
def test_a_data_set_that_is_not_there_is_named_with_what_to_pass(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="pass data_root=FOLDER, or download=True"):
        load(name, LoadOptions(data_root=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_damaged_data_set_files_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\x05 cut off")
    with pytest.raises(VaedensityError, match="mnist"):
        load("mnist", LoadOptions(data_root=str(tmp_path)))


def test_a_library_that_torchvision_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*args: object, **kwargs: object) -> None:
        raise ModuleNotFoundError("No module named 'scipy'")

    monkeypatch.setattr("torchvision.datasets.SVHN", lacking)
    with pytest.raises(VaedensityError, match="scipy"):
        load("svhn")
