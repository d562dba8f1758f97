"""Items with values that the model cannot make: -inf for these, the others as if they were alone, everywhere alike."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke

from vaedensity import Annealed, Estimate, ImportanceSampling, Jackknife, UntilStandardError, VAEDensity, score
from vaedensity.api.model_items import ScoreRequest
from vaedensity.api.score import score_array
from vaedensity.density.estimate import Kind
from vaedensity.errors import UNRELIABLE

Done = Callable[..., dict[str, Any]]
UNSEEN = [0, 3, 4, 9]  # the first, neighbours, the last


@pytest.fixture
def images(digits: np.ndarray) -> np.ndarray:
    """Ten digits, four of them with a value above 16."""
    x = digits[1500:1510].copy()
    x[UNSEEN, 2, 5] = [17, 200, 255, 17]
    return x


@pytest.fixture
def data(tmp_path: Path, images: np.ndarray) -> Path:
    np.save(tmp_path / "x.npy", images)
    return tmp_path / "x.npy"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


ESTIMATORS = [
    ImportanceSampling(1),
    ImportanceSampling(30),
    Jackknife(7),
    Annealed(2, entropy_share=0.5, leapfrog_steps=2),
    UntilStandardError(ImportanceSampling(32), 0.3, 64),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_the_others_are_scored_as_if_alone(model: Path, digits: np.ndarray, images: np.ndarray, estimator: Any) -> None:
    found = score(model, images, estimator=estimator)
    alone = score(model, digits[1500:1510], estimator=estimator)
    known = np.setdiff1d(np.arange(10), UNSEEN)
    assert np.flatnonzero(found.unseen).tolist() == UNSEEN and (found.log_prob_nats[UNSEEN] == -np.inf).all()
    assert [flag for i, flag in enumerate(found.flags()) if i in UNSEEN] == ["unseen values"] * 4
    assert not found.standard_error_nats[UNSEEN].any() and found.met[UNSEEN].all()
    np.testing.assert_allclose(found.log_prob_nats[known], alone.log_prob_nats[known], atol=1e-3)
    assert "mean of the 6 of 10 items" in str(found) and "nan" not in str(found)


@pytest.mark.parametrize("batch_size", [1, 3, 4096])
def test_any_batch(model: Path, images: np.ndarray, batch_size: int) -> None:
    some = score(model, images, samples=3, batch_size=batch_size)
    np.testing.assert_allclose(some.log_prob_nats, score(model, images, samples=3).log_prob_nats, atol=1e-3)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_command_says_so_and_scores_the_rest(model: Path, data: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    result = invoke("score", model, data, "-k", 4, "-o", tmp_path / f"rows{suffix}")
    assert result.exit_code == 0, result.output
    assert (
        "mean of the 6 of 10 items" in result.stdout
        and "4 items have values that the model, fitted to values up to 16, cannot make" in result.stdout
    )
    text = (tmp_path / f"rows{suffix}").read_bytes()
    if suffix == ".jsonl":
        rows = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in text.splitlines()]
        assert [row["index"] for row in rows if row["flag"] == "unseen values"] == UNSEEN
        assert all(rows[i]["log_prob_nats"] is None and rows[i]["k"] == 0 for i in UNSEEN)
    elif suffix == ".csv":
        rows = rows_of(tmp_path / "rows.csv")
        assert [(rows[i]["log_prob_nats"], rows[i]["bits"], rows[i]["k_hat"]) for i in UNSEEN] == [
            ("-inf", "inf", "")
        ] * 4


def test_the_record_counts_them(model: Path, data: Path, images: np.ndarray, done: Done) -> None:
    record = done("score", model, data, "-k", 4)
    assert (record["n"], record["n_finite"], record["unseen_values"], record["samples_used"]) == (10, 6, 4, 24)
    found = score(model, images, samples=4)
    assert record["log_prob_nats"] == pytest.approx(found.log_prob_nats[~found.unseen].mean())
    assert record["standard_error_nats"] == pytest.approx(found.mean_standard_error_nats)


def test_every_way_gives_the_same(model: Path, data: Path, images: np.ndarray, tmp_path: Path) -> None:
    assert invoke("score", model, data, "-k", 4, "-o", tmp_path / "rows.csv").exit_code == 0
    mine = np.array([float(row["log_prob_nats"]) for row in rows_of(tmp_path / "rows.csv")])
    assert (mine == score(model, images, samples=4).log_prob_nats).all()
    density = VAEDensity.load(model).set_params(samples=4)
    np.testing.assert_allclose(mine, density.score_samples(images), atol=1e-3)
    assert density.score(images) == -np.inf


ANOMALIES = ["likelihood", "complexity", "typicality", "regret", "ratio"]


@pytest.mark.parametrize("kind", ANOMALIES)
def test_anomaly_scores(kind: str, model: Path, data: Path, tmp_path: Path) -> None:
    with_it = {"typicality": ("--reference", data), "ratio": ("--background", model)}.get(kind, ())
    line = ("score", model, data, "-k", 2, "--anomaly", kind, *with_it, "-o", tmp_path / "rows.csv", "--json")
    result = invoke(*line)
    assert result.exit_code == 0, result.output
    scores = np.array([float(row["anomaly"]) for row in rows_of(tmp_path / "rows.csv")])
    assert np.flatnonzero(scores == np.inf).tolist() == UNSEEN and np.isfinite(np.delete(scores, UNSEEN)).all()
    assert json.loads(result.stdout)["mean_anomaly"] == pytest.approx(np.delete(scores, UNSEEN).mean())
    assert ("4 items left out" in result.stderr) == (kind == "typicality")


def test_strict_counts_them(model: Path, tmp_path: Path, digits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaedensity.api.score.K_HAT_LIMIT", 50.0)
    x = digits[:50].copy()
    x[7, 0, 0] = 99
    np.save(tmp_path / "x.npy", x)
    result = invoke("-q", "score", model, tmp_path / "x.npy", "-k", 30, "--strict", "-o", tmp_path / "rows.csv")
    assert result.exit_code == UNRELIABLE and "1 of them for values" in result.stderr
    assert len(rows_of(tmp_path / "rows.csv")) == 50


@pytest.mark.parametrize("stop", [1, 2])
def test_rows_go_on_after_a_stop(model: Path, data: Path, tmp_path: Path, stop: int, done: Done) -> None:
    done("score", model, data, "-k", 2, "--batch-size", 2, "-o", tmp_path / "whole.csv")
    batches = 0

    def interrupt(n: int) -> None:
        nonlocal batches
        batches += n > 0
        if batches > stop:
            raise KeyboardInterrupt

    from vaedensity import load_model
    from vaedensity.errors import Interrupted
    from vaedensity.report.rows import Output

    request = ScoreRequest(ImportanceSampling(2), batch_size=2)
    with pytest.raises(Interrupted):
        score_array(
            load_model(model), np.load(data), "x", request, output=Output(tmp_path / "rows.csv"), progress=interrupt
        )
    done("score", model, data, "-k", 2, "--batch-size", 2, "-o", tmp_path / "rows.csv", "--resume")
    assert (tmp_path / "rows.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_none_is_known(model: Path, tmp_path: Path, done: Done) -> None:
    np.save(tmp_path / "x.npy", np.full((3, 8, 8), 200, np.uint8))
    result = invoke("score", model, tmp_path / "x.npy", "-k", 2)
    assert result.exit_code == 0 and "no finite estimate" in result.stdout and "nan" not in result.stdout
    record = done("score", model, tmp_path / "x.npy", "-k", 2, "--anomaly", "likelihood")
    assert (record["n_finite"], record["log_prob_nats"], record["mean_anomaly"]) == (0, None, None)


def test_one_undefined_estimate_does_not_spoil_the_mean() -> None:
    n = np.arange(3.0)
    one = Estimate(
        n, n + 1, n, n, n, np.ones(3, np.int64) * 9, np.ones(3, bool), np.arange(3, dtype=np.uint64), Kind.LOWER_BOUND
    )
    one.log_prob_nats[1] = np.nan
    one.standard_error_nats[1] = np.nan
    assert "1.0000 nats per item, mean of the 2 of 3 items" in str(one)
    assert one.mean_standard_error_nats == pytest.approx(np.hypot(1, 3) / 2)


def test_one_sample_has_no_error_bar(model: Path, data: Path) -> None:
    line = invoke("score", model, data, "-k", 1).stdout
    assert "standard error unknown with one sample" in line and "nan" not in line
