"""A default that can be met in several places is the same in all: command line, functions, estimator."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import vaedensity
from vaedensity import Annealed, ImportanceSampling, Jackknife, UntilStandardError, VAEDensity
from vaedensity.api.fit_request import DEFAULT_SECONDS, FitRequest
from vaedensity.api.model_items import ScoreRequest
from vaedensity.cli.main import COMMANDS, main
from vaedensity.training.settings import FitSettings


def options(command: str) -> dict[str, Any]:
    """Defaults of a command's options by their names in the code; None where the code below decides."""
    found = main.get_command(click.Context(main), command)
    assert found is not None
    info = found.to_info_dict(click.Context(found, help_option_names=["-h", "--help"]))  # the command remembers them
    asked = (p for p in info["params"] if p["param_type_name"] == "option")
    defaults = {p["name"]: () if p["multiple"] else p["default"] for p in asked}
    return defaults | ({"threads": None} if defaults.get("threads") == "auto" else {})


def signature(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def defaults(settings: type) -> dict[str, Any]:
    return {f.name: f.default for f in fields(settings) if f.default is not MISSING}


PLACES = {
    "fit": (defaults(FitRequest), signature(VAEDensity), options("fit")),
    "score": (defaults(ScoreRequest), signature(vaedensity.score), options("score")),
    "self-test": (signature(vaedensity.self_test), options("score")),
    "compress": (signature(vaedensity.compress), options("compress")),
}
KNOWN_TO_DIFFER = {
    ("score", "device"): "a request names the device that was picked",
    ("self-test", "items"): "decided below the option",
}


@pytest.mark.parametrize("job", PLACES)
def test_one_default_for_one_parameter(job: str) -> None:
    names = set.union(*(set(place) for place in PLACES[job]))
    for name in names:
        found = [place[name] for place in PLACES[job] if name in place]
        assert (job, name) in KNOWN_TO_DIFFER or all(value == found[0] for value in found), (name, found)


def test_names_that_mean_the_same() -> None:
    density, asked = signature(VAEDensity), options("score")
    assert density["samples"] == ImportanceSampling().samples and density["score_batch_size"] == asked["batch_size"]
    assert density["budget"] is options("fit")["budget"] is FitRequest().seconds is None
    assert signature(vaedensity.compress)["embed_model"] == options("compress")["embed_model"]
    assert signature(vaedensity.compress)["verify"] != options("compress")["no_verify"]


def test_what_the_options_leave_to_the_code() -> None:
    from vaedensity.cli.score import make_estimator

    given = options("score") | {"until_stderr": None}
    assert make_estimator(given) == ImportanceSampling()
    assert make_estimator(given | {"name": "jackknife"}) == Jackknife()
    assert make_estimator(given | {"name": "annealed"}) == Annealed()
    assert make_estimator(given | {"until_stderr": 0.1}) == UntilStandardError(ImportanceSampling(), 0.1)


@pytest.mark.parametrize("preset", DEFAULT_SECONDS)
def test_the_estimator_trains_as_fit_does(
    preset: str, digits: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of the run itself, compared where both ways meet."""
    from conftest import invoke

    seen: list[FitSettings] = []

    class Stopped(Exception):
        pass

    def stop(train: Any, valid: Any, config: Any, settings: FitSettings, **_: Any) -> None:
        seen.append(settings)
        raise Stopped

    monkeypatch.setattr("vaedensity.api.fit.fit_network", stop)
    np.save(tmp_path / "x.npy", digits[:200])
    with pytest.raises(Stopped):
        VAEDensity(preset=preset).fit(digits[:200])
    with pytest.raises(Stopped):
        vaedensity.fit(digits[:200], tmp_path / "a.safetensors", preset=preset)
    invoke("fit", tmp_path / "x.npy", "-o", tmp_path / "b.safetensors", "--preset", preset)
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2]


def test_every_command_can_be_asked() -> None:
    assert all(options(command) for command in COMMANDS)
