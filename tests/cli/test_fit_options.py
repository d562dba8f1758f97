"""fit --lr-scale and --grad: what they change, that runs with them resume exactly, and what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

from vaedensity.cli import fit as fit_cli
from vaedensity.cli.main import main
from vaedensity.model.checkpoint import load_model
from vaedensity.model.hierarchical import HierarchicalVAE

pytestmark = pytest.mark.usefixtures("no_released")
Done = Callable[..., dict[str, Any]]
Refused = Callable[..., str]
OPTIONS = ("--preset", "tiny", "--steps", "12", "--batch-size", "16", "--rate", "0.01", "--device", "cpu")
GRAD = ("--grad", "skip_on_spike(1.02, window=4, warmup=2)", "--grad", "decoder.*=add_noise(1e-4)")
SCALES = ("--lr-scale", "*=0.5", "--lr-scale", "prior_heads=0", "--lr-scale", "prior_heads.1=2")


@pytest.fixture
def few(tmp_path: Path, digits: np.ndarray) -> Path:
    np.save(tmp_path / "few.npy", digits[:80])
    return tmp_path / "few.npy"


def float_weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as f:
        return {key.removeprefix("float/"): f.get_tensor(key) for key in f.keys() if key.startswith("float/")}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, bool]:
    assert a.keys() == b.keys()
    return {name: torch.equal(t, b[name]) for name, t in a.items()}


def test_a_frozen_part_does_not_change(few: Path, tmp_path: Path, done: Done) -> None:
    out = tmp_path / "m.safetensors"
    done("fit", few, "-o", out, *OPTIONS, *SCALES)
    torch.manual_seed(0)
    before = {name: p.detach() for name, p in HierarchicalVAE(load_model(out).config).named_parameters()}
    same = equal(float_weights(out), before)
    assert {name for name, unchanged in same.items() if unchanged} == {n for n in same if n.startswith("prior_heads.0")}


def test_an_interrupted_run_with_transforms_goes_on_exactly(
    few: Path, tmp_path: Path, done: Done, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halted = tmp_path / "whole.safetensors", tmp_path / "halted.safetensors"
    done("fit", few, "-o", whole, *OPTIONS, *SCALES, *GRAD)
    log = whole.with_name(whole.name + ".metrics.jsonl").read_text(encoding="utf-8")
    assert "skipped: gradient norm" in log
    line = ["fit", str(few), "-o", str(halted), *OPTIONS]
    with monkeypatch.context() as patch:

        def stop(bar: fit_cli.FitBar, record: dict[str, Any]) -> None:
            if record["step"] == 7:
                raise KeyboardInterrupt

        patch.setattr(fit_cli.FitBar, "__call__", stop)
        assert CliRunner().invoke(main, [*line, *SCALES, *GRAD]).exit_code == 130
    assert "another gradient transform;" in refused(2, *line, *SCALES, "--resume")
    assert "another scaling of rates;" in refused(2, *line, *GRAD, "--resume")
    said = refused(2, *line, *SCALES, *GRAD, "--resume", "--init", whole)
    assert "another warm-up of the KL weight, free bits, init;" in said
    done(*line, *SCALES, *GRAD, "--resume")
    assert all(equal(float_weights(whole), float_weights(halted)).values())


def test_grad_replaces_the_default_which_can_be_asked_for(few: Path, tmp_path: Path, done: Done) -> None:
    default, asked, other = (tmp_path / f"{name}.safetensors" for name in ("default", "asked", "other"))
    done("fit", few, "-o", default, *OPTIONS)
    done("fit", few, "-o", asked, *OPTIONS, "--grad", "clip_global_norm(1.0)", "--lr-scale", "*=1")
    done("fit", few, "-o", other, *OPTIONS, "--grad", "clip_global_norm(0.01)")
    assert all(equal(float_weights(default), float_weights(asked)).values())
    assert not any(equal(float_weights(default), float_weights(other)).values())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--lr-scale", "prior_head=0"), "no parameter matches 'prior_head'; near: prior_heads"),
        (("--lr-scale", "decodr.*=0.1"), "near: decoder"),
        (("--lr-scale", "likelihood=0"), "no parameter matches 'likelihood'"),
        (("--lr-scale", "decoder"), "expected PATTERN=SCALE"),
        (("--lr-scale", "decoder=-1"), "expected PATTERN=SCALE"),
        (("--lr-scale", "decoder=nan"), "expected PATTERN=SCALE"),
        (("--lr-scale", "=0.1"), "expected PATTERN=SCALE"),
        (("--lr-scale", "*=0"), "nothing is left to train"),
        (("--grad", "decodr=sign()"), "no parameter matches 'decodr'; near: decoder"),
        (("--grad", "sign()", "--grad", "decodr=sign()"), "near: decoder"),
        (("--grad", "clip(1)"), "clip is none of clip_value, clip_norm"),
        (("--grad", "clip_norm"), "expected [PATTERN=]NAME(NUMBERS)"),
        (("--grad", "clip_norm(-1)"), "expected a limit above 0"),
        (("--grad", "clip_norm(__import__('os').getpid())"), "plain numbers"),
        (("--grad", ""), "expected [PATTERN=]NAME(NUMBERS)"),
    ],
)
def test_rejected_options(options: tuple[str, ...], says: str, few: Path, tmp_path: Path, refused: Refused) -> None:
    assert says in refused(2, "fit", few, "-o", tmp_path / "m.safetensors", *OPTIONS, *options)


def test_help_says_that_grad_replaces_the_default() -> None:
    words = " ".join(CliRunner().invoke(main, ["fit", "--help"]).stdout.split())
    assert "--lr-scale PATTERN=SCALE" in words and "replaces the default clip_global_norm(1.0)" in words


def test_init_begins_with_a_models_weights(few: Path, tmp_path: Path, done: Done) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    done("fit", few, "-o", first, *OPTIONS)
    done("fit", few, "-o", second, "--preset", "tiny", "--steps", 1, "--rate", "1e-12", "--init", first)
    a, b = (load_model(path).weights for path in (first, second))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert load_model(second).card["init"] == str(first)


def test_init_with_another_network_is_rejected(few: Path, tmp_path: Path, done: Done, refused: Refused) -> None:
    first = tmp_path / "a.safetensors"
    done("fit", few, "-o", first, *OPTIONS)
    out = tmp_path / "b.safetensors"
    said = refused(2, "fit", few, "-o", out, "--preset", "small", "--steps", 1, "--init", first)
    assert "widths (32, 24)" in said and "widths (48, 32)" in said and "height" not in said
    assert "no such file" in refused(4, "fit", few, "-o", out, "--preset", "tiny", "--init", tmp_path / "nowhere")


@pytest.mark.parametrize("optimizer", ["muon", "adam", "egdd", "two-rate"])
def test_the_optimiser_is_in_the_card(optimizer: str, few: Path, tmp_path: Path, done: Done) -> None:
    out = tmp_path / "a.safetensors"
    done("fit", few, "-o", out, *OPTIONS, "--optimizer", optimizer)
    assert load_model(out).card["optimizer"] == optimizer


def test_a_categorical_likelihood_from_fit_to_archive(few: Path, tmp_path: Path, done: Done) -> None:
    model, archive = tmp_path / "m.safetensors", tmp_path / "a.vdz"
    done("fit", few, "-o", model, "--preset", "tiny", "--steps", 30, "--likelihood", "categorical")
    assert load_model(model).config.likelihood == "categorical"
    assert done("compress", few, "-o", archive, "-m", model)["items"] == len(np.load(few))
    done("decompress", archive, "-o", tmp_path / "back", "-m", model)
    assert (np.load(tmp_path / "back" / few.name) == np.load(few)).all()
    assert done("score", model, few, "-k", 2)["n"] == len(np.load(few))
    done("sample", model, "-n", 2, "-o", tmp_path / "s.npy", "--entropy", 0.5)
    done("reconstruct", model, few, "-o", tmp_path / "r.png")


@pytest.mark.parametrize(
    ("term", "optimizer"), [("flood(9)", "muon"), ("penalise_gradient(0.01)", "egdd"), ("flood(9)", "two-rate")]
)
def test_terms_and_optimisers_resume_exactly(
    term: str, optimizer: str, few: Path, tmp_path: Path, done: Done, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--term", term, "--optimizer", optimizer, "--rate", "1e-4"]
    whole, halted, plain = (tmp_path / f"{name}.safetensors" for name in ("whole", "halted", "plain"))
    done("fit", few, "-o", whole, *OPTIONS, *options)
    done("fit", few, "-o", plain, *OPTIONS, *options[2:])
    assert not all(equal(float_weights(whole), float_weights(plain)).values())
    line = ["fit", str(few), "-o", str(halted), *OPTIONS]
    with monkeypatch.context() as patch:

        def stop(bar: fit_cli.FitBar, record: dict[str, Any]) -> None:
            if record["step"] == 7:
                raise KeyboardInterrupt

        patch.setattr(fit_cli.FitBar, "__call__", stop)
        assert CliRunner().invoke(main, [*line, *options]).exit_code == 130
    assert "another loss term;" in refused(2, *line, *options[2:], "--resume")
    done(*line, *options, "--resume")
    assert all(equal(float_weights(whole), float_weights(halted)).values())


@pytest.mark.parametrize("term", ["flood", "flood()", "flood(x)", "flood(1e999)", "sink(1)", "penalise_gradient(1, 2)"])
def test_terms_that_are_none(term: str, few: Path, tmp_path: Path, refused: Refused) -> None:
    assert "term of the loss" in refused(2, "fit", few, "-o", tmp_path / "m.safetensors", *OPTIONS, "--term", term)


def test_the_implicit_penalty_is_logged(few: Path, tmp_path: Path, done: Done) -> None:
    out = tmp_path / "m.safetensors"
    done("fit", few, "-o", out, *OPTIONS)
    lines = out.with_name(out.name + ".metrics.jsonl").read_text(encoding="utf-8").splitlines()
    for record in map(json.loads, lines):
        expected = record["learning_rate"] / 4 * record["gradient_norm"] ** 2
        assert record["implicit_penalty"] == pytest.approx(expected)
