"""Series, files and folders of files from end to end: text of this repository, and digits as series."""

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from rejections import INTERRUPTED, USAGE, Done, Refused, saved

from vaedensity.model.sequence_config import SEQUENCE_PRESETS

pytestmark = pytest.mark.usefixtures("no_released")
ROOT = Path(__file__).parent.parent.parent
FIT = ("--kind", "sequence", "--preset", "tiny", "--device", "cpu")
LEAST = {
    "variables": 3,
    "categories": 4,
    "width": 16,
    "encoder_width": 8,
    "dilations": (1, 2),
    "contexts": (2,),
    "context_bits": 6,
    "context_width": 8,
}


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the README in pieces of 128 bytes."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "corpus.md").write_bytes((ROOT / "README.md").read_bytes()[:20_000])
    out = folder / "text.safetensors"
    result = invoke("fit", folder / "corpus.md", "-o", out, *FIT, "--steps", 12, "--batch-size", 16, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["steps"] == 12 and 3 < record["valid_bits_per_dim"] < 7
    assert record["integer_bits_per_dim"] == pytest.approx(record["valid_bits_per_dim"], rel=0.05)
    return out


@pytest.fixture(scope="session")
def series_model(digits: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller model of digits as series of 64 values 0..16."""
    folder = tmp_path_factory.mktemp("series")
    data = saved(folder / "digits.npy", digits[:1500].reshape(-1, 64))
    out = folder / "series.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SEQUENCE_PRESETS, "tiny", LEAST)
        line = (*FIT, "--noise", "exponential", "--steps", 60, "--batch-size", 32)
        result = invoke("fit", data, "-o", out, *line, "--json")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    """Four pieces of 128 bytes and 33 bytes that are left over."""
    (tmp_path / "meta.md").write_bytes((ROOT / "docs" / "coding.md").read_bytes()[: 4 * 128 + 33])
    return tmp_path / "meta.md"


@pytest.fixture
def by_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fallback codecs are never tried, which are better than so little training."""
    monkeypatch.setattr("vaedensity.archive.model_blocks.WORTH_ASKING", 1e9)
    monkeypatch.setattr("vaedensity.api.compress.SMALL_BYTES", 0)


def test_a_file_of_text(text_model: Path, meta: Path, tmp_path: Path, done: Done, by_model: None) -> None:
    archive, back = tmp_path / "a.vdz", tmp_path / "back"
    record = done("compress", meta, "-o", archive, "-m", text_model)
    assert (record["model"], record["model_items"], record["bytes_in"]) == ("text", 4, 4 * 128 + 33)
    assert 3 < record["expected_bits_per_dim"] < 7 and record["overhead_bytes"]["initial_bits"] < 20
    assert [r["ok"] for r in done("test", archive, "-m", text_model)["archives"]] == [True]
    restored = done("decompress", archive, "-o", back, "-m", text_model)
    assert restored["restored"] == [str(back / "meta.md")] and (back / "meta.md").read_bytes() == meta.read_bytes()
    listed = done("list", archive)
    assert {a["name"]: a["shape"] for a in listed["arrays"]} == {"pieces": [4, 128], "rest": [33]}
    assert (listed["model_blocks"], listed["restores"]) == (1, [{"kind": "file", "name": "meta.md", "files": None}])


def test_a_folder_of_files(text_model: Path, meta: Path, tmp_path: Path, done: Done, by_model: None) -> None:
    folder, archive, back = tmp_path / "folder", tmp_path / "a.vdz", tmp_path / "back"
    (folder / "deep").mkdir(parents=True)
    files = {"a.txt": b"", "deep/b": meta.read_bytes()[:300], "c.bin": bytes(range(256)), "d": b"x"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    record = done("compress", folder, meta, "-o", archive, "-m", text_model)
    assert record["model_items"] == 557 // 128 + 4
    assert sorted(done("list", archive)["restores"][0]["files"]) == sorted([*files, "deep/"])
    done("decompress", archive, "-o", back, "-m", text_model)
    assert {str(p.relative_to(back)): p.read_bytes() for p in back.rglob("*") if p.is_file()} == {
        **{f"folder/{name}": data for name, data in files.items()},
        "meta.md": meta.read_bytes(),
    }
    scored = done("score", text_model, folder, "-k", 2, "-o", tmp_path / "rows.csv")
    assert (scored["n"], scored["dims"]) == (4, 128)
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    found = [(row["name"], int(row["offset"])) for row in rows]
    assert found == [("c.bin", 0), ("c.bin", 128), ("d", 0), ("deep/b", 127)]  # empty a.txt begins none


def test_scores_of_text(text_model: Path, meta: Path, tmp_path: Path, done: Done) -> None:
    importance = done("score", text_model, meta, "-k", 8, "-o", tmp_path / "rows.csv")
    assert (importance["n"], importance["dims"], importance["kind"]) == (4, 128, "lower bound")
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [(row["name"], row["offset"]) for row in rows] == [("meta.md", str(128 * i)) for i in range(4)]
    rates = [float(row["bits_per_dim"]) for row in rows]
    assert len(rows) == 4 and np.mean(rates) == pytest.approx(importance["bits_per_dim"])
    assert 3 < importance["bits_per_dim"] <= importance["elbo_bits_per_dim"] < 7
    jackknife = done("score", text_model, meta, "--estimator", "jackknife", "-k", 8)
    assert jackknife["bits_per_dim"] == pytest.approx(importance["bits_per_dim"], abs=0.02)
    assert done("score", text_model, meta, "-k", 8, "--batch-size", 3)["bits_per_dim"] == pytest.approx(
        importance["bits_per_dim"], abs=1e-4
    )
    archive = done("compress", meta, "-o", tmp_path / "a.vdz", "-m", text_model)
    assert archive["expected_bits_per_dim"] is None or archive["expected_bits_per_dim"] == pytest.approx(
        importance["elbo_bits_per_dim"], rel=0.05
    )
    noise = tmp_path / "noise.bin"
    noise.write_bytes(np.random.default_rng(0).bytes(512))
    assert done("score", text_model, noise, "-k", 2)["bits_per_dim"] > importance["bits_per_dim"] + 1


def test_what_is_left_over_is_said(text_model: Path, meta: Path) -> None:
    result = invoke("score", text_model, meta, "-k", 1)
    assert result.exit_code == 0 and "in pieces of 128 bytes; the last 33 bytes are not" in result.stderr


def test_samples_of_text(text_model: Path, tmp_path: Path, done: Done) -> None:
    for n in (3, 5):
        record = done("sample", text_model, "-n", n, "-o", tmp_path / f"{n}.npy", "--seed", 4)
        assert record["n"] == n
    few, more = np.load(tmp_path / "3.npy"), np.load(tmp_path / "5.npy")
    assert more.shape == (5, 128) and more.dtype == np.uint8 and np.array_equal(more[:3], few)
    assert len({row.tobytes() for row in more}) == 5
    assert ((more >= 32) & (more < 127)).mean() > 0.9  # as in the text
    done("sample", text_model, "-n", 2, "-o", tmp_path / "sharp.npy", "--entropy", 0)
    assert len(np.unique(np.load(tmp_path / "sharp.npy"))) < len(np.unique(few))
    done("sample", text_model, "-n", 2, "-o", tmp_path / "s.png")


def test_digits_as_series(series_model: Path, digits: np.ndarray, tmp_path: Path, done: Done, by_model: None) -> None:
    x = digits[1500:1512].reshape(-1, 64)
    data, archive = saved(tmp_path / "d.npy", x), tmp_path / "a.vdz"
    record = done("compress", data, "-o", archive, "-m", series_model)
    assert (record["items"], record["dims"], record["model_items"]) == (12, 64, 12)
    done("decompress", archive, "-o", tmp_path / "back", "-m", series_model)
    assert np.array_equal(np.load(tmp_path / "back" / "d.npy"), x)
    assert done("score", series_model, data, "-k", 4)["elbo_bits_per_dim"] == pytest.approx(
        record["expected_bits_per_dim"], rel=0.05
    )
    done("sample", series_model, "-n", 2, "-o", tmp_path / "s.npy")
    samples = np.load(tmp_path / "s.npy")
    assert samples.shape == (2, 64) and samples.max() <= 16
    scored = done("score", series_model, data, "-k", 2, "--anomaly", "typicality", "--reference", data)
    assert scored["anomaly"].startswith("typicality") and scored["mean_anomaly"] >= 0
    ratio = done("score", series_model, data, "-k", 2, "--anomaly", "ratio", "--background", series_model)
    assert ratio["mean_anomaly"] == pytest.approx(0, abs=1e-3)


def test_two_valued_series(digits: np.ndarray, tmp_path: Path, done: Done, monkeypatch: Any, by_model: None) -> None:
    monkeypatch.setitem(SEQUENCE_PRESETS, "tiny", LEAST)
    x = (digits[:60].reshape(-1, 64) > 7) * np.uint8(250) + np.uint8(3)
    data, model = saved(tmp_path / "d.npy", x), tmp_path / "m.safetensors"
    done("fit", data, "-o", model, *FIT, "--steps", 3, "--noise", "uniform")
    few = saved(tmp_path / "few.npy", x[:8])
    assert done("compress", few, "-o", tmp_path / "a.vdz", "-m", model)["model_items"] == 8
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "back", "-m", model)
    assert np.array_equal(np.load(tmp_path / "back" / "few.npy"), x[:8])
    done("sample", model, "-n", 2, "-o", tmp_path / "s.npy")
    assert set(np.unique(np.load(tmp_path / "s.npy"))) == {3, 253}


def test_info_and_bench(text_model: Path, series_model: Path, meta: Path, tmp_path: Path, done: Done) -> None:
    record = done("info", text_model, "--cost")
    assert record["config"]["kind"] == "sequence" and record["config"]["length"] == 128
    least = 128 * 48 * (256 + 12 * 3 * 2 * 48)  # head and blocks at every position
    assert least < record["multiplications"] < 1.6 * least
    benched = done("bench", meta, "-m", text_model, "--rivals", "xz")
    assert (benched["items"], benched["dims"], len(benched["codecs"])) == (1, meta.stat().st_size, 2)
    for row in benched["codecs"]:
        assert row["bits_per_dim"] == pytest.approx(8 * row["bytes"] / meta.stat().st_size)
    data = saved(tmp_path / "d.npy", np.zeros((8, 64), np.uint8))
    assert len(done("bench", data, "-m", series_model, "--rivals", "xz")["codecs"]) == 2


def test_a_released_model_of_series(
    series_model: Path, digits: np.ndarray, tmp_path: Path, done: Done, monkeypatch: Any
) -> None:
    """Is listed, and found for the data that it codes smallest."""
    (tmp_path / "released").mkdir()
    shutil.copy(series_model, tmp_path / "released" / "rows.safetensors")
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: tmp_path / "released")
    (listed,) = done("models")["models"]
    assert (listed["name"], listed["shape"], listed["levels"]) == ("rows", [1, 64, 1], 17)
    for name, x in (("d.npy", digits[1500:1524].reshape(-1, 64)), ("e.npy", digits[:9])):
        data = saved(tmp_path / name, x)
        record = done("compress", data, "-o", tmp_path / f"{name}.vdz")
        assert record["model"] in (None, "rows") and (x.ndim == 2 or record["model"] is None)
        done("decompress", tmp_path / f"{name}.vdz", "-o", tmp_path / "back")
        assert np.array_equal(np.load(tmp_path / "back" / name), x)


def test_particles_are_not_for_categories(text_model: Path, meta: Path, tmp_path: Path) -> None:
    result = invoke("compress", meta, "-o", tmp_path / "a.vdz", "-m", text_model, "--particles", 4, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["particles"] == 1
    assert "categories: one is used" in result.stderr


def test_ctrl_c_while_fitting_and_resume(tmp_path: Path, digits: np.ndarray, done: Done, monkeypatch: Any) -> None:
    monkeypatch.setitem(SEQUENCE_PRESETS, "tiny", LEAST)
    data, out = saved(tmp_path / "d.npy", digits[:60].reshape(-1, 64)), tmp_path / "m.safetensors"
    straight = done("fit", data, "-o", tmp_path / "straight.safetensors", *FIT, "--steps", 6)
    with monkeypatch.context() as patch:
        patch.setattr("vaedensity.cli.progress.FitBar.__call__", lambda bar, event: signal.raise_signal(signal.SIGINT))
        stopped = invoke("-q", "fit", data, "-o", out, *FIT, "--steps", 6)
    assert stopped.exit_code == INTERRUPTED and "go on with --resume" in stopped.stderr
    assert (tmp_path / "m.safetensors.state").exists() and not out.exists()
    resumed = done("fit", data, "-o", out, *FIT, "--steps", 6, "--resume")
    assert resumed["steps"] == 6 and resumed["valid_bits_per_dim"] == straight["valid_bits_per_dim"]
    assert not (tmp_path / "m.safetensors.state").exists()
    more = tmp_path / "more.safetensors"
    begun = done("fit", data, "-o", more, *FIT, "--steps", 1, "--rate", 1e-6, "--init", out)
    assert begun["valid_bits_per_dim"] == pytest.approx(resumed["valid_bits_per_dim"], rel=0.02)


@pytest.fixture
def shelf(tmp_path: Path, digits: np.ndarray, model: Path, text_model: Path, series_model: Path) -> dict[str, Path]:
    """What commands are given and must refuse."""
    (tmp_path / "short.md").write_bytes(b"x" * 63)
    (tmp_path / "few.md").write_bytes(b"x" * 100)
    (tmp_path / "empty").mkdir()
    return {
        "images": saved(tmp_path / "images.npy", digits[:12]),
        "series": saved(tmp_path / "series.npy", digits[:12].reshape(-1, 64)),
        "long": saved(tmp_path / "long.npy", digits[:12].reshape(-1, 128)),
        "wide": saved(tmp_path / "wide.npy", digits[:12].reshape(-1, 64).astype(np.int64)),
        "loud": saved(tmp_path / "loud.npy", digits[:12].reshape(-1, 64) + np.uint8(17)),
        "short": tmp_path / "short.md",
        "few": tmp_path / "few.md",
        "empty": tmp_path / "empty",
        "out": tmp_path / "out.safetensors",
        "rows": tmp_path / "rows.csv",
        "vdz": tmp_path / "a.vdz",
        "png": tmp_path / "a.png",
        "image model": model,
        "text model": text_model,
        "model": series_model,
    }


REFUSALS: list[tuple[str, str]] = [
    ("fit wide -o out", "found int64, expected uint8 or bool"),
    ("fit short -o out", "found 63 bytes, expected at least 64"),
    ("fit few -o out", "found 1 item; fit needs at least 2"),
    ("fit empty -o out", "the folder is empty"),
    ("fit images -o out", "(N,T) of uint8 or bool, or bytes (n,)"),
    ("fit series -o out --preset base", "expected tiny, small, medium for sequences"),
    ("score model images -o rows", "expected series (N,T)"),
    ("score model wide -o rows", "found int64"),
    ("score model long -o rows", "series of 128 values, the model knows 64"),
    ("score model short -o rows", "found 63 bytes, expected at least 64"),
    ("score image model series -o rows", "expected (N,H,W)"),
    ("score model series -o rows --estimator annealed", "categories"),
    ("score model --self-test --items 2", "categories"),
    ("score model series -o rows --anomaly regret", "anomaly regret: needs"),
    ("score model series -o rows --anomaly complexity", "anomaly complexity: needs"),
    ("score image model images -o rows --anomaly ratio --background model", "expected series"),
    ("compress images -o vdz -m model", "codes series of 64 values"),
    ("compress wide -o vdz -m model", "codes series of 64 values"),
    ("compress long -o vdz -m model", "codes series of 64 values"),
    ("compress short -o vdz -m model", "codes series of 64 values"),
    ("compress series -o vdz -m image model", "codes items [1, 8, 8]"),
    ("reconstruct model series -o png", "no pictures to reconstruct"),
    ("bench wide -m model --rivals xz", "found int64"),
    ("bench images -m model --rivals xz", "codes series of 64 values"),
]


@pytest.mark.parametrize(("line", "says"), REFUSALS, ids=[line for line, _ in REFUSALS])
def test_rejections(line: str, says: str, shelf: dict[str, Path], refused: Refused) -> None:
    words = line.replace("image model", "image_model").replace("text model", "text_model").split()
    arguments = [shelf.get(word.replace("_", " "), word) for word in words]
    assert says in refused(USAGE, *arguments, *(FIT[:2] if words[0] == "fit" else ()))


def test_series_with_values_that_the_model_cannot_make(shelf: dict[str, Path], done: Done) -> None:
    mixed = np.load(shelf["series"])
    mixed[3, 60] = 17
    record = done("score", shelf["model"], saved(shelf["series"], mixed), "-k", 2, "-o", shelf["rows"])
    rows = list(csv.DictReader(shelf["rows"].read_text().splitlines()))
    assert record["unseen_values"] == 1 and [row["flag"] for row in rows].index("unseen values") == 3
    assert "offset" not in rows[0]
    assert done("score", shelf["model"], shelf["loud"], "-k", 2)["n_finite"] == 0


def test_images_are_scored_by_a_model_of_images_alone(model: Path, shelf: dict[str, Path], done: Done) -> None:
    assert done("score", model, shelf["images"], "-k", 1)["n"] == 12


def test_the_estimator_is_for_images(series_model: Path, tmp_path: Path) -> None:
    from vaedensity.errors import ModelError
    from vaedensity.sklearn import VAEDensity

    shutil.copy(series_model, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="is for images"):
        VAEDensity.load(tmp_path / "m.safetensors")
