"""vaedensity score: rows, estimators, stopping, resuming, self-test, exit statuses."""

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from PIL import Image

from vaedensity.errors import FAILURE, INTERRUPTED, TOO_WIDE, UNRELIABLE, USAGE

Done = Callable[..., dict[str, Any]]
Refused = Callable[..., str]
COLUMNS = ["index", "log_prob_nats", "bits", "bits_per_dim", "elbo_nats", "k", "ess", "k_hat", "standard_error_nats"]
COLUMNS += ["kind", "flag"]


@pytest.fixture
def data(tmp_path: Path, digits: np.ndarray) -> Path:
    np.save(tmp_path / "d.npy", digits[1500:1515])
    return tmp_path / "d.npy"


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    text = path.read_text()
    assert text.endswith("\n") and "\r\r" not in text
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".CSV"])
def test_rows(model: Path, data: Path, tmp_path: Path, suffix: str, done: Done) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"rows{suffix}"
    record = done("score", model, data, "-k", 30, "-o", out)
    rows = read_rows(out)
    assert len(rows) == 15 and all(list(row) == COLUMNS for row in rows)
    assert [int(row["index"]) for row in rows] == list(range(15))
    for row in rows:
        log_prob, elbo, ess = (float(row[key]) for key in ("log_prob_nats", "elbo_nats", "ess"))
        assert float(row["bits"]) == pytest.approx(-log_prob / math.log(2))
        assert float(row["bits_per_dim"]) == pytest.approx(-log_prob / 64 / math.log(2))
        assert elbo <= log_prob < 0 and 1 <= ess <= 30 + 1e-9 and float(row["standard_error_nats"]) > 0
        assert (int(row["k"]), row["kind"]) == (30, "lower bound")
        assert ("k_hat > 0.7" in row["flag"]) == (float(row["k_hat"]) > 0.7)
    assert np.mean([float(row["log_prob_nats"]) for row in rows]) == pytest.approx(record["log_prob_nats"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["d.npy", out.name])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_one_sample_of_one_item(model: Path, tmp_path: Path, digits: np.ndarray, suffix: str, done: Done) -> None:
    np.save(tmp_path / "one.npy", digits[:1])
    record = done("score", model, tmp_path / "one.npy", "-k", 1, "-o", tmp_path / f"rows{suffix}")
    assert record["n"] == 1 and record["standard_error_nats"] is None and record["k_hat_above_0.7"] is None
    (row,) = read_rows(tmp_path / f"rows{suffix}")
    assert row["standard_error_nats"] in (None, "") and row["k_hat"] in (None, "")


def test_a_constant_image(model: Path, tmp_path: Path, done: Done) -> None:
    np.save(tmp_path / "flat.npy", np.full((3, 8, 8), 7, np.uint8))
    record = done("score", model, tmp_path / "flat.npy", "-k", 30, "-o", tmp_path / "rows.jsonl")
    rows = read_rows(tmp_path / "rows.jsonl")
    assert math.isfinite(record["log_prob_nats"]) and len({row["log_prob_nats"] for row in rows}) == 1


def test_file_names_stand_in_the_rows(model: Path, tmp_path: Path, digits: np.ndarray, done: Done) -> None:
    (tmp_path / "scans").mkdir()
    for name, image in zip("bca", digits):
        Image.fromarray(image).save(tmp_path / "scans" / f"{name}.png")
    done("score", model, tmp_path / "scans", "-k", 2, "-o", tmp_path / "rows.csv")
    rows = read_rows(tmp_path / "rows.csv")
    assert list(rows[0]) == [COLUMNS[0], "name", *COLUMNS[1:]]
    assert [row["name"] for row in rows] == ["a.png", "b.png", "c.png"]


def test_results_depend_on_seed_and_items_but_not_on_batch_or_order(
    model: Path, data: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    np.save(tmp_path / "turned.npy", digits[1500:1515][::-1])
    for name, *options in (("a", data), ("b", data, "--batch-size", 3), ("c", tmp_path / "turned.npy")):
        done("score", model, *options, "-k", 26, "-o", tmp_path / f"{name}.jsonl")
    a, b, c = ([row["log_prob_nats"] for row in read_rows(tmp_path / f"{n}.jsonl")] for n in "abc")
    assert b == pytest.approx(a, abs=1e-3) and c[::-1] == pytest.approx(a, abs=1e-3)
    other = done("score", model, data, "-k", 26, "--seed", 1)["log_prob_nats"]
    assert abs(other - np.mean(a)) > 1e-3


@pytest.mark.parametrize(
    "options, kind",
    [
        (("--estimator", "jackknife", "-k", 7), "estimate"),
        (("--estimator", "jackknife", "-k", 7, "--order", 2), "estimate"),
        (("--estimator", "annealed", "-k", 3, "--entropy-share", 0.6, "--leapfrog", 2), "lower bound"),
        (
            ("--estimator", "annealed", "-k", 3, "--entropy-share", 0.4, "--leapfrog", 2, "--start", "prior"),
            "lower bound",
        ),
    ],
)
def test_estimators(model: Path, data: Path, tmp_path: Path, options: tuple[Any, ...], kind: str, done: Done) -> None:
    record = done("score", model, data, *options, "-o", tmp_path / "rows.jsonl")
    assert (record["estimator"], record["kind"], record["samples"]) == (options[1], kind, options[3])
    plain = done("score", model, data, "-k", 200)
    assert record["log_prob_nats"] == pytest.approx(plain["log_prob_nats"], abs=2.0)
    assert {row["k"] for row in read_rows(tmp_path / "rows.jsonl")} == {options[3]}


def test_until_the_error_bar_is_met(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert invoke("score", model, data, "-k", 128, "-o", tmp_path / "fixed.jsonl").exit_code == 0
    target = float(np.median([row["standard_error_nats"] for row in read_rows(tmp_path / "fixed.jsonl")]))
    line = ("score", model, data, "-k", 32, "--until-stderr", target, "--max-samples", 128, "-o", out)
    result = invoke(*line)
    assert result.exit_code == 0, result.output
    rows = read_rows(out)
    unmet = [row["index"] for row in rows if row["standard_error_nats"] > target]
    assert unmet and len(unmet) < 15, "the test wants both"
    assert [row["index"] for row in rows if "error bar not met" in row["flag"]] == unmet
    assert all(row["k"] == 128 for row in rows if row["index"] in unmet)
    assert f"not met by {', '.join(map(str, unmet[:10]))}" in result.stdout


@pytest.mark.parametrize("limit, status", [(-50.0, UNRELIABLE), (50.0, 0)])
def test_strict_writes_its_rows_and_fails(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, status: int
) -> None:
    monkeypatch.setattr("vaedensity.api.score.K_HAT_LIMIT", limit)
    result = invoke("-q", "score", model, data, "-k", 30, "--strict", "-o", tmp_path / "rows.jsonl")
    assert result.exit_code == status and len(read_rows(tmp_path / "rows.jsonl")) == 15
    assert ("15 of 15 items have k-hat" in result.stderr) == bool(status)
    assert result.stderr.count("\n") == bool(status)


def test_self_test(model: Path, done: Done) -> None:
    line = ("score", model, "--self-test", "--items", 6, "-k", 4)
    record = done(*line, "--tolerance", 1000)
    assert record["passed"] and record["width_nats"] == pytest.approx(record["upper_nats"] - record["lower_nats"])
    result = invoke(*line, "--tolerance", 1e-6)
    assert result.exit_code == TOO_WIDE and "nats apart" in result.stderr and "width" in result.stdout
    inconclusive = invoke(*line, "--tolerance", record["width_nats"] + 1e-6)
    assert inconclusive.exit_code == TOO_WIDE and "more items" in inconclusive.stderr
    wider = done("score", model, "--self-test", "--items", 6, "-k", 1, "--tolerance", 1000)
    assert wider["width_nats"] > record["width_nats"] > 0
    annealed = done(*line, "--tolerance", 1000, "--estimator", "annealed", "--entropy-share", 0.6, "--leapfrog", 3)
    assert annealed["n"] == 6 and math.isfinite(annealed["width_nats"])


# Stopping and going on


def test_an_interrupted_run_leaves_what_is_done_and_goes_on(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Done, refused: Refused
) -> None:
    import vaedensity.api.model_items as scoring

    line = ("score", model, data, "-k", 8, "--batch-size", 3)  # three items at a time
    done(*line, "-o", tmp_path / "whole.csv")
    original, out = scoring.score_batches, tmp_path / "rows.csv"

    def stops(*args: Any, **kwargs: Any) -> Any:
        for i, part in enumerate(original(*args, **kwargs)):
            if i == 2:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(scoring, "score_batches", stops)
    result = invoke(*line, "-o", out)
    assert result.exit_code == INTERRUPTED and "6 of 15" in result.stderr and not out.exists()
    partial = tmp_path / "rows.csv.partial"
    assert len(partial.read_bytes().splitlines()) == 3
    monkeypatch.setattr(scoring, "score_batches", original)
    assert "--resume" in refused(USAGE, *line, "-o", out)
    assert "seed" in refused(USAGE, *line, "-o", out, "--resume", "--seed", 5)
    with open(partial, "ab") as f:
        f.write(b'{"log_prob_nats": [-1')  # a kill in the middle of a line
    seen: list[int] = []
    monkeypatch.setattr(scoring, "score_batches", lambda m, x, *a, **k: seen.append(len(x)) or original(m, x, *a, **k))
    done(*line, "-o", out, "--resume")
    assert seen == [9] and not partial.exists()
    a, b = read_rows(tmp_path / "whole.csv"), read_rows(out)
    for x, y in zip(a, b, strict=True):
        assert x["index"] == y["index"] and float(x["log_prob_nats"]) == pytest.approx(
            float(y["log_prob_nats"]), abs=1e-3
        )


def test_a_kill_leaves_what_is_done(model: Path, digits: np.ndarray, tmp_path: Path, done: Done) -> None:
    np.save(tmp_path / "d.npy", digits[:160])
    out = tmp_path / "rows.jsonl"
    line = ["score", str(model), str(tmp_path / "d.npy"), "-k", "200", "-o", str(out), "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "vaedensity.cli.main", *line], stdout=subprocess.PIPE)
    partial, deadline = tmp_path / "rows.jsonl.partial", time.monotonic() + 120
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = partial.read_bytes().count(b"\n") - 1
    assert kept > 1 and not out.exists()
    record = done(*line, "--resume")
    assert record["n"] == 160 and len(read_rows(out)) == 160 and not partial.exists()


def test_rows_that_are_no_rows(model: Path, data: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "rows.csv.partial").write_text("my own file\n")
    for text in ("my own file", "my own file\n", "[1]\n", "1\n"):
        (tmp_path / "rows.csv.partial").write_text(text)
        assert "not the rows" in refused(USAGE, "score", model, data, "-o", tmp_path / "rows.csv", "--resume")
    (tmp_path / "r.csv.partial").mkdir()
    assert "no file" in refused(USAGE, "score", model, data, "-o", tmp_path / "r.csv", "--resume")


def test_two_runs_do_not_write_one_file(model: Path, data: Path, tmp_path: Path, refused: Refused) -> None:
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path / "rows.csv.partial", "a+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another run" in refused(USAGE, "score", model, data, "-o", tmp_path / "rows.csv", "-f")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_names_in_any_encoding(model: Path, tmp_path: Path, digits: np.ndarray, suffix: str, done: Done) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    name = os.fsdecode(b"\xff.png")
    try:
        Image.fromarray(digits[0]).save(folder / name)
    except OSError:
        pytest.skip("a file system that wants UTF-8")
    done("score", model, folder, "-k", 2, "-o", tmp_path / f"rows{suffix}")
    assert (tmp_path / f"rows{suffix}").exists()


# What does not go together


@pytest.mark.parametrize(
    "options, word",
    [
        (("--order", 1), "--estimator jackknife"),
        (("--start", "prior"), "--estimator annealed"),
        (("--estimator", "jackknife", "-k", 1), "order"),
        (("--estimator", "jackknife", "-k", 5000, "--order", 3), "subsets"),
        (("--estimator", "annealed", "--entropy-share", 1.5), "entropy share"),
        (("--max-samples", 99), "--until-stderr"),
        (("--until-stderr", 0), "standard error"),
        (("--until-stderr", 1), "saturates"),
        (("--until-stderr", 0.1, "-k", 1000, "--max-samples", 99), "at least 1000"),
        (("--until-stderr", 0.1, "--estimator", "jackknife", "--order", 2), "subsets"),
        (("--strict", "-k", 24), "at least 25"),
        (("--items", 3), "--self-test"),
        (("--tolerance", 3), "--self-test"),
        (("--codec", "png"), "--anomaly complexity"),
        (("--reference", "x"), "--anomaly typicality"),
        (("--background", "x"), "--anomaly ratio"),
        (("--anomaly", "typicality"), "--reference"),
        (("--anomaly", "ratio"), "--background"),
        (("--resume",), "-o"),
        (("--self-test",), "without DATA"),
    ],
)
def test_options_that_do_not_go_together(
    model: Path, data: Path, options: tuple[Any, ...], word: str, refused: Refused
) -> None:
    assert word in refused(USAGE, "score", model, data, *options)


def test_self_test_has_no_rows_and_needs_two_bounds(model: Path, tmp_path: Path, refused: Refused) -> None:
    assert "expected DATA" in refused(USAGE, "score", model)
    assert "at least 2" in refused(USAGE, "score", model, "--self-test", "--items", 1)
    for tolerance in ("nan", "inf", -1):
        assert "--tolerance" in refused(USAGE, "score", model, "--self-test", "--items", 2, "--tolerance", tolerance)
    for options in (
        ("-o", tmp_path / "r.csv"),
        ("--strict", "-k", 30),
        ("--estimator", "jackknife"),
        ("--until-stderr", 0.1),
    ):
        assert "self-test" in refused(USAGE, "score", model, "--self-test", *options)


def test_parquet_without_pyarrow(
    model: Path, data: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pyarrow" in refused(USAGE, "score", model, data, "-o", tmp_path / "rows.parquet")


def test_rows_that_find_no_room_at_the_end(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Done
) -> None:
    import vaedensity.api.score as scoring
    from vaedensity.errors import VaedensityError

    def full(*args: Any, **kwargs: Any) -> None:
        raise VaedensityError("cannot write: No space left on device")

    original, out = scoring.write_table, tmp_path / "rows.csv"
    monkeypatch.setattr(scoring, "write_table", full)
    assert invoke("score", model, data, "-k", 4, "-o", out).exit_code == FAILURE
    assert (tmp_path / "rows.csv.partial").exists() and not out.exists()  # the work is not lost
    monkeypatch.setattr(scoring, "write_table", original)
    done("score", model, data, "-k", 4, "-o", out, "--resume")
    assert len(read_rows(out)) == 15


# Anomaly scores


@pytest.mark.parametrize(
    "options",
    [
        ("likelihood",),
        ("complexity",),
        ("complexity", "--codec", "webp"),
        ("typicality", "--reference", "digits:test"),
        ("regret",),
        ("ratio", "--background", "SELF"),
    ],
    ids=" ".join,
)
def test_noise_is_more_anomalous_than_digits(
    options: tuple[str, ...], model: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    noise = np.random.default_rng(0).integers(0, 17, (6, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "both.npy", np.concatenate([digits[1500:1506], noise]))
    options = tuple(str(model) if o == "SELF" else o for o in options)
    out = tmp_path / "rows.jsonl"
    record = done("score", model, tmp_path / "both.npy", "-k", 4, "--anomaly", *options, "-o", out)
    rows = read_rows(out)
    scores = np.array([row["anomaly"] for row in rows])
    assert record["anomaly"].startswith(options[0]) and record["mean_anomaly"] == pytest.approx(scores.mean())
    if options[0] == "ratio":
        assert scores == pytest.approx(np.zeros(12), abs=1e-2)  # a model against itself
    else:
        assert scores[6:].mean() > scores[:6].mean()
    if options[0] == "likelihood":
        assert scores == pytest.approx([row["bits"] for row in rows])


def test_anomaly_scores_resume_with_the_same_rule(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    import vaedensity.api.score as scoring

    monkeypatch.setattr(scoring, "write_table", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    out = tmp_path / "rows.csv"
    invoke("score", model, data, "-k", 2, "--anomaly", "complexity", "-o", out)
    assert "anomaly" in refused(USAGE, "score", model, data, "-k", 2, "--anomaly", "likelihood", "-o", out, "--resume")
