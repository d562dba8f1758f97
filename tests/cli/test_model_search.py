"""A model has one identity, the SHA-256 that archives ask for, and is found by it wherever its file lies."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from rejections import MODEL, USAGE, Done, Refused, saved

import vaedensity as vd
from vaedensity.archive.reader import ArchiveFile
from vaedensity.model.checkpoint import load_model, slim_model

pytestmark = pytest.mark.usefixtures("no_released")
ENGINES = ("torch", "numpy")


@pytest.fixture
def moved(model: Path, model_archive: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An archive, and a folder of models elsewhere, in which its own has another name and stands beside others."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(model, folder / "zz.safetensors")
    (folder / "a.safetensors").write_bytes(b"no model")
    (folder / "digits-test-model.safetensors").write_bytes(b"\xff" * 100)
    lies = bytearray(model.read_bytes())  # says that it is the model, and has another last bias
    lies[-1] ^= 64
    (folder / "b.safetensors").write_bytes(lies)
    (tmp_path / "archives").mkdir()
    return Path(shutil.copy(model_archive, tmp_path / "archives" / "x.vdz")), folder


def test_everything_names_the_same_identity(
    fitted: tuple[Path, dict[str, Any]], few: Path, tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fit_record = fitted
    identity = fit_record["model_sha256"]
    (tmp_path / "slim.safetensors").write_bytes(slim_model(load_model(model)))
    found = {
        "info": done("info", model)["sha256"],
        "info of the part that decodes": done("info", tmp_path / "slim.safetensors")["sha256"],
        "compress": done("compress", few, "-o", tmp_path / "a.vdz", "-m", model, "--embed-model")["model_sha256"],
        "list": done("list", tmp_path / "a.vdz")["model"]["sha256"],
        "score": done("score", model, few, "-k", 2)["model_sha256"],
        "sample": done("sample", model, "-n", 1, "-o", tmp_path / "s.npy")["model_sha256"],
        "self-test": done("score", model, "--self-test", "-k", 4, "--items", 2, "--tolerance", 1000)["model_sha256"],
        "python": vd.load_model(model).sha256,
    }
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: model.parent)
    found["models"] = done("models")["models"][0]["sha256"]
    assert found == dict.fromkeys(found, identity)
    for command in (("info", model), ("models",), ("list", tmp_path / "a.vdz")):
        assert identity[:16] in invoke(*command).stdout


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_is_found_by_its_identity(
    engine: str,
    moved: tuple[Path, Path],
    digits: np.ndarray,
    tmp_path: Path,
    done: Done,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive, folder = moved
    line = refused(MODEL, "decompress", archive, "-o", tmp_path / "out", "--engine", engine)
    with ArchiveFile(archive) as a:
        assert a.model is not None and a.model.sha256[:16] in line and "VAEDENSITY_MODELS" in line
    ways: dict[str, list[object]] = {"folder": ["--models", folder], "env": [], "beside": []}
    for way, options in ways.items():
        monkeypatch.setenv("VAEDENSITY_MODELS", os.pathsep.join(["", "nowhere", str(folder)]) if way == "env" else "")
        if way == "beside":
            shutil.copy(folder / "zz.safetensors", archive.parent)
        done("decompress", archive, "-o", tmp_path / way, "--engine", engine, *options)
        assert np.array_equal(np.load(tmp_path / way / "digits.npy"), digits[:120])


def test_commands_and_classes_find_it_in_a_folder(
    moved: tuple[Path, Path], digits: np.ndarray, tmp_path: Path, done: Done, refused: Refused
) -> None:
    archive, folder = moved
    assert done("test", archive, "--models", folder)["archives"][0]["ok"]
    for engine in ENGINES:
        done("decompress", archive, "--item", 3, "--models", folder, "-o", tmp_path / engine, "--engine", engine)
    assert np.array_equal(vd.Archive(archive, models=folder)[7], digits[7])
    assert np.array_equal(vd.decompress(archive, models=folder)["digits"], digits[:120])
    more = saved(tmp_path / "more.npy", digits[120:150])
    assert "give one of them" in refused(
        USAGE, "add", archive, more, "--models", folder, "-m", folder / "zz.safetensors"
    )
    assert done("add", archive, more, "--models", folder, "--to", "digits")["model_items"] == 30
    assert len(vd.Archive(archive, models=folder)) == 150


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_names_an_identity_not_its_own_is_rejected(
    engine: str, moved: tuple[Path, Path], other_model: Path, model: Path, tmp_path: Path, refused: Refused
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    archive, folder = moved
    with safe_open(other_model, "pt") as f:
        tensors, record = {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["vaedensity"])
    record["sha256"] = load_model(model).sha256
    for name in ("b", "zz"):
        (folder / f"{name}.safetensors").unlink()
    save_file(tensors, folder / "liar.safetensors", metadata={"vaedensity": json.dumps(record)})
    for options in (["--models", folder], ["-m", folder / "liar.safetensors"]):
        line = refused(MODEL, "decompress", archive, "-o", tmp_path / "out", "--engine", engine, *options)
        assert "liar.safetensors" in line and "do not have the SHA-256 that it names" in line


def test_who_needs_a_private_model_is_told(
    model: Path, digits: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, archive = saved(tmp_path / "x.npy", digits[:120]), tmp_path / "a.vdz"
    hint = (
        f"decoding needs the model {model.stem} (sha256 {load_model(model).sha256}): keep its file beside the archive"
    )
    command = ("compress", x, "-o", archive, "-m", model, "-f")
    assert any(line.startswith(hint) and "--embed-model" in line for line in invoke(*command).stdout.splitlines())
    assert "decoding needs" not in invoke(*command, "--embed-model").stdout
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: model.parent)
    assert "decoding needs" not in invoke(*command).stdout
    assert (
        "decoding needs" not in invoke("compress", saved(tmp_path / "n.npy", np.arange(9)), "-o", archive, "-f").stdout
    )
