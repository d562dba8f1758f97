"""The scikit-learn estimator: what its scores, threshold, samples and files promise."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from vaedensity import VAEDensity, load_model, score
from vaedensity.errors import Interrupted, ModelError, UsageError
from vaedensity.model.config import PRESETS
from vaedensity.units import parse_duration

PARAMETERS: dict[str, Any] = {
    "preset": "tiny",
    "steps": 100,
    "rate": 0.02,
    "batch_size": 32,
    "samples": 16,
    "contamination": 0.1,
    "device": "cpu",
}
LEAST = {"latents": ((2, 1),), "widths": (4,), "blocks": 0, "sub_image_blocks": 0, "components": 1}
TRAINING = slice(0, 600)


@pytest.fixture(scope="module")
def density(digits: np.ndarray) -> VAEDensity:
    """Fitted once; tests that change it take a copy."""
    return VAEDensity(**PARAMETERS).fit(digits[TRAINING])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., VAEDensity]:
    """An unfitted estimator of a network that takes a fraction of a second to fit."""
    monkeypatch.setitem(PRESETS, "tiny", LEAST)
    return lambda **changes: VAEDensity(**(PARAMETERS | {"steps": 3, "samples": 2} | changes))


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


# Parameters


def test_parameters_are_stored_as_given_and_cloned(density: VAEDensity) -> None:
    unfitted = VAEDensity(**PARAMETERS)
    assert unfitted.get_params() == VAEDensity().get_params() | PARAMETERS
    assert clone(density).get_params() == density.get_params()
    assert not hasattr(clone(density), "model_bytes_")
    assert unfitted.set_params(samples=5, seed=7).get_params()["samples"] == 5
    with pytest.raises(ValueError, match="nonsense"):
        unfitted.set_params(nonsense=1)
    with pytest.raises(TypeError):
        VAEDensity("tiny")  # type: ignore[misc]


def test_repr_is_short_however_large_the_model(density: VAEDensity) -> None:
    assert len(repr(density)) < 200 and len(density._repr_html_()) < 100_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preset", "huge"),
        ("steps", 0),
        ("steps", 1.5),
        ("epochs", -1),
        ("epochs", "2"),
        ("budget", 0),
        ("budget", "soon"),
        ("seed", -1),
        ("seed", None),
        ("device", 3),
        ("device", "tpu"),
        ("valid_fraction", 1.0),
        ("batch_size", 0),
        ("rate", 0.0),
        ("rate", float("nan")),
        ("samples", 0),
        ("samples", True),
        ("contamination", 0.0),
        ("contamination", 0.6),
        ("contamination", "auto"),
        ("score_batch_size", 0),
    ],
)
def test_wrong_parameters_are_refused_when_fitting(name: str, value: Any, digits: np.ndarray) -> None:
    options = {"preset": "tiny", "device": "cpu"} | ({"steps": 1} if name not in ("epochs", "budget") else {})
    with pytest.raises(UsageError) as error:
        VAEDensity(**(options | {name: value})).fit(digits[:9])
    assert str(value) in one_line(error)


def test_only_one_limit_of_a_run(digits: np.ndarray) -> None:
    with pytest.raises(UsageError, match="one of them") as error:
        VAEDensity(preset="tiny", steps=1, budget="1s").fit(digits[:9])
    one_line(error)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("0.5s", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1d", "1 m", "1e3", ".5", "\u0663"])
def test_texts_that_are_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="such as 90s, 10m"):
        parse_duration(text)


@pytest.mark.parametrize("limit", [{"epochs": 0.5}, {"budget": 0.2}, {"budget": "0.2s"}])
def test_other_limits_of_a_run(limit: dict[str, Any], quick: Callable[..., VAEDensity], digits: np.ndarray) -> None:
    density = quick(steps=None, **limit).fit(digits[:60])
    assert density.fit_record_["steps"] >= 1


def test_tags_say_what_it_takes() -> None:
    tags = get_tags(VAEDensity())
    assert is_outlier_detector(VAEDensity()) and tags.requires_fit and not tags.target_tags.required
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array and not tags.input_tags.allow_nan
    assert tags.non_deterministic and not get_tags(VAEDensity(steps=1)).non_deterministic


# Fitting


def test_what_fitting_leaves(density: VAEDensity) -> None:
    assert density.n_features_in_ == 64 and density.item_shape_ == (1, 8, 8)
    assert density.fit_record_["steps"] == 100 and density.fit_record_["valid_bits_per_dim"] > 0
    assert isinstance(density.model_bytes_, bytes) and isinstance(density.offset_, float)


def test_equal_fits_are_equal_and_leave_random_states_alone(
    quick: Callable[..., VAEDensity], digits: np.ndarray
) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second, other = (quick(seed=seed).fit(digits[:100]) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    assert (first.score_samples(digits[:9]) == second.score_samples(digits[:9])).all()
    assert first.offset_ == second.offset_ != other.offset_
    again = first.score_samples(digits[:9])
    assert (first.fit(digits[:100]).score_samples(digits[:9]) == again).all()


@pytest.mark.parametrize("kind", ["bool", "two-valued", "NHWC", "NCHW", "list"])
def test_layouts_and_values(kind: str, quick: Callable[..., VAEDensity], digits: np.ndarray) -> None:
    rgb = np.stack([digits[:40], digits[40:80], digits[80:120]], -1)
    images = {
        "bool": digits[:40] > 8,
        "two-valued": (digits[:40] > 8).astype(np.uint8) * 200 + 7,
        "NHWC": rgb,
        "NCHW": rgb.transpose(0, 3, 1, 2),
        "list": list(digits[:40]),
    }[kind]
    density = quick().fit(images)
    drawn = density.sample(2)
    assert drawn.dtype == np.uint8
    assert drawn.shape == ((2, 8, 8, 3) if kind.startswith("N") else (2, 8, 8))
    values = {"bool": {0, 1}, "two-valued": {7, 207}}.get(kind, set(range(17)))
    assert set(drawn.ravel().tolist()) <= values
    assert density.score_samples(drawn).shape == (2,)


def test_an_interrupted_fit_keeps_what_was_fitted_before(
    quick: Callable[..., VAEDensity], digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise Interrupted("interrupted at step 1; state saved to m.state, go on with --resume")

    density = quick().fit(digits[:40])
    before = density.score_samples(digits[:5])
    monkeypatch.setattr("vaedensity.sklearn.fit_model", stop)
    with pytest.raises(KeyboardInterrupt, match="nothing was kept"):
        density.fit(digits[40:80])
    assert (density.score_samples(digits[:5]) == before).all()


def test_values_never_seen_are_outliers(density: VAEDensity, digits: np.ndarray) -> None:
    x = digits[:3].copy()
    x[1, 4, 4] = 200  # the training data end at 16
    scores = density.score_samples(x)
    assert scores[1] == -np.inf and np.isfinite(scores[[0, 2]]).all() and density.predict(x)[1] == -1
    assert density.score_samples(x[1:2]).tolist() == [-np.inf]
    assert scores[0] == pytest.approx(density.score_samples(digits[:1])[0], abs=1e-3)
    threshold = copy.deepcopy(density).calibrate(x).offset_
    assert scores[[0, 2]].min() <= threshold + 1e-3 and np.isfinite(threshold)
    with pytest.raises(UsageError, match="no item has a finite score"):
        density.calibrate(x[1:2])


def test_wrong_images(density: VAEDensity, digits: np.ndarray) -> None:
    wrong = {
        "float64": digits[:3] / 16,
        "int64": digits[:3].astype(int),
        "(N,H,W)": digits[0],
        "array is empty": digits[:0],
        "8x8x1": digits[:3, :5],
        "which is no array": [digits[0], digits[0, :3]],
        "found object": {"a": 1},
    }
    for reason, images in wrong.items():
        for call in (density.score_samples, density.predict, density.calibrate):
            with pytest.raises(UsageError) as error:
                call(images)
            assert reason in one_line(error)
    for reason in ("float64", "int64", "(N,H,W)", "array is empty", "which is no array", "found object"):
        with pytest.raises(UsageError) as error:
            VAEDensity(**PARAMETERS).fit(wrong[reason])
        assert reason in one_line(error)
    with pytest.raises(UsageError, match="at least 2"):
        VAEDensity(**PARAMETERS).fit(digits[:1])


def test_nothing_works_before_fitting(tmp_path: Path, digits: np.ndarray) -> None:
    density = VAEDensity()
    calls: list[Callable[[], Any]] = [
        *(
            lambda name=name: getattr(density, name)(digits[:3])
            for name in ("score_samples", "score", "decision_function", "predict", "calibrate")
        ),
        density.sample,
        lambda: density.save(tmp_path / "m.safetensors"),
    ]
    for call in calls:
        with pytest.raises(NotFittedError, match="VAEDensity"):
            call()
    assert not list(tmp_path.iterdir())


# Scores and the threshold


def test_scores_are_the_ones_of_score_up_to_monte_carlo_noise(
    density: VAEDensity, tmp_path: Path, digits: np.ndarray
) -> None:
    mine = density.score_samples(digits[600:640])
    assert mine.shape == (40,) and mine.dtype == np.float64
    assert density.score(digits[600:640]) == mine.mean()
    density.save(tmp_path / "m.safetensors")
    e = score(load_model(tmp_path / "m.safetensors"), digits[600:640], samples=16)
    assert abs(e.log_prob_nats.mean() - mine.mean()) < 6 * e.mean_standard_error_nats


def test_scores_depend_on_neither_batch_nor_order(density: VAEDensity, digits: np.ndarray) -> None:
    whole = density.score_samples(digits[:40])
    shuffled = np.random.default_rng(0).permutation(40)
    np.testing.assert_allclose(density.score_samples(digits[shuffled]), whole[shuffled], atol=1e-3)
    for size in (1, 7, 1000):
        part = copy.deepcopy(density).set_params(score_batch_size=size).score_samples(digits[:10])
        np.testing.assert_allclose(part, whole[:10], atol=1e-3)


def test_share_of_outliers_in_the_training_data(density: VAEDensity, digits: np.ndarray) -> None:
    verdict = density.predict(digits[TRAINING])
    assert verdict.dtype.kind == "i" and set(verdict.tolist()) == {-1, 1}
    assert (verdict == -1).mean() == pytest.approx(0.1, abs=0.005)
    assert density.offset_ == pytest.approx(np.quantile(density.score_samples(digits[TRAINING]), 0.1), abs=1e-3)


def test_threshold_of_more_items_than_are_scored(
    density: VAEDensity, digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaedensity.sklearn.CALIBRATION_ITEMS", 50)
    at = np.linspace(0, 599, 50).round().astype(int)
    other = copy.deepcopy(density).set_params(contamination=0.3).calibrate(digits[TRAINING])
    assert other.offset_ == pytest.approx(np.quantile(density.score_samples(digits[at]), 0.3), abs=1e-3)


def test_noise_is_an_outlier_and_its_decision_negative(density: VAEDensity, digits: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 17, (20, 8, 8), dtype=np.uint8)
    assert (density.predict(noise) == -1).all() and density.score(noise) < density.score(digits[600:620])
    images = np.concatenate([noise, digits[600:620]])
    decision = density.decision_function(images)
    np.testing.assert_allclose(decision, density.score_samples(images) - density.offset_)
    assert (np.where(decision < 0, -1, 1) == density.predict(images)).all()


def test_fit_predict(quick: Callable[..., VAEDensity], digits: np.ndarray) -> None:
    density = quick()
    assert (density.fit_predict(digits[:50]) == density.predict(digits[:50])).all()


# Samples


def test_samples(density: VAEDensity) -> None:
    drawn = density.sample(70)
    assert drawn.shape == (70, 8, 8) and drawn.dtype == np.uint8 and drawn.max() <= 16
    assert len({item.tobytes() for item in drawn}) == 70
    assert (density.sample(3) == drawn[:3]).all() and (density.sample(3, random_state=0) == drawn[:3]).all()
    assert (density.sample(3, random_state=1) != drawn[:3]).any()
    first, second = (density.sample(2, np.random.RandomState(4)) for _ in range(2))
    assert (first == second).all()
    assert density.sample().shape == (1, 8, 8)
    assert density.score(drawn) > density.offset_


@pytest.mark.parametrize(
    "arguments", [{"n_samples": 0}, {"n_samples": 2.0}, {"random_state": -1}, {"random_state": "x"}]
)
def test_samples_that_make_no_sense(arguments: dict[str, Any], density: VAEDensity) -> None:
    with pytest.raises(UsageError) as error:
        density.sample(**arguments)
    assert next(iter(arguments)) in one_line(error)


# Copies and files


def test_copies_score_alike(density: VAEDensity, digits: np.ndarray) -> None:
    expected = density.score_samples(digits[:20])
    pickled = pickle.dumps(density)
    assert len(pickled) < len(density.model_bytes_) + 5000
    for other in (pickle.loads(pickled), copy.deepcopy(density), copy.copy(density)):
        assert other.get_params() == density.get_params() and other.offset_ == density.offset_
        assert (other.score_samples(digits[:20]) == expected).all()


def test_save_and_load(density: VAEDensity, tmp_path: Path, digits: np.ndarray) -> None:
    path = tmp_path / "m.safetensors"
    other = copy.deepcopy(density).set_params(samples=np.int64(5), seed=3).calibrate(digits[:50])
    other.save(path)
    back = VAEDensity.load(path)
    assert back.get_params() == other.get_params() and back.offset_ == other.offset_
    assert back.fit_record_ == other.fit_record_ and back.item_shape_ == other.item_shape_
    assert (back.score_samples(digits[:20]) == other.score_samples(digits[:20])).all()
    assert (back.predict(digits[:20]) == other.predict(digits[:20])).all()
    assert (back.sample(2) == other.sample(2)).all()
    back.save(tmp_path / "again.safetensors")
    assert load_model(tmp_path / "again.safetensors").sha256 == load_model(path).sha256


def test_save_replaces_only_when_told(density: VAEDensity, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists") as error:
        density.save(path)
    one_line(error)
    assert path.read_text() == "mine"
    density.save(str(path), overwrite=True)
    assert VAEDensity.load(str(path)).offset_ == density.offset_
    with pytest.raises(UsageError, match="no such folder"):
        density.save(tmp_path / "gone" / "m.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_plain_model_file_needs_a_threshold(model: Path, digits: np.ndarray) -> None:
    density = VAEDensity.load(model).set_params(samples=4, device="cpu")
    assert density.preset == "tiny" and density.item_shape_ == (1, 8, 8)
    assert density.score_samples(digits[:5]).shape == (5,)
    for method in (density.predict, density.decision_function):
        with pytest.raises(NotFittedError, match="calibrate"):
            method(digits[:5])
    assert (density.calibrate(digits[1500:1600]).predict(digits[1500:1600]) == -1).mean() == 0.05


def test_the_commands_read_a_saved_estimator(
    density: VAEDensity, tmp_path: Path, done: Callable[..., dict[str, Any]], digits: np.ndarray
) -> None:
    path = tmp_path / "m.safetensors"
    density.save(path)
    np.save(tmp_path / "x.npy", digits[:30])
    assert done("info", path)["card"]["estimator"]["offset"] == density.offset_
    assert done("score", path, tmp_path / "x.npy", "-k", 2)["n"] == 30
    assert done("compress", tmp_path / "x.npy", "-o", tmp_path / "x.vdz", "-m", path)["items"] == 30
    done("sample", path, "-n", 3, "-o", tmp_path / "s.npy")
    assert (np.load(tmp_path / "s.npy") == density.sample(3)).all()


@pytest.mark.parametrize(
    "record",
    [
        5,
        {},
        {"parameters": [], "offset": 1.0, "fit": {}},
        {"parameters": {"seed": [1]}, "offset": 1.0, "fit": {}},
        {"parameters": {}, "offset": "high", "fit": {}},
        {"parameters": {}, "offset": 1.0, "fit": 3},
        {"parameters": {"unheard_of": 1}, "offset": 1.0, "fit": {}},
    ],
)
def test_records_that_make_no_sense(record: Any, model: Path, tmp_path: Path) -> None:
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(model, "pt") as f:
        tensors, facts = {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["vaedensity"])
    facts["card"]["estimator"] = record
    save_file(tensors, tmp_path / "m.safetensors", metadata={"vaedensity": json.dumps(facts)})
    with pytest.raises(ModelError, match=r"m\.safetensors") as error:
        VAEDensity.load(tmp_path / "m.safetensors")
    one_line(error)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"hello" * 9)
    for path in (tmp_path / "m.safetensors", tmp_path / "gone", tmp_path):
        with pytest.raises(ModelError) as error:
            VAEDensity.load(path)
        assert str(path) in one_line(error)


# Among scikit-learn's tools


def test_in_a_pipeline_and_in_cross_validation(quick: Callable[..., VAEDensity], digits: np.ndarray) -> None:
    to_levels = FunctionTransformer(lambda x: np.rint(x * 16).astype(np.uint8))
    line = make_pipeline(to_levels, quick())
    x = digits[:60] / 16
    assert set(line.fit(x).predict(x).tolist()) == {-1, 1}
    assert (line.score_samples(x[:5]) == line[-1].score_samples(digits[:5])).all()
    rates = cross_val_score(quick(), digits[:60], cv=2)
    assert rates.shape == (2,) and np.isfinite(rates).all() and (rates < 0).all()
