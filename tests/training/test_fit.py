"""The fit loop: it learns, resumes exactly, survives divergence, saves on Ctrl-C."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vaedensity.data.named import load_digits
from vaedensity.errors import Interrupted, ModelError, UsageError, VaedensityError
from vaedensity.model.config import VAEConfig
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.training import fit as fit_module
from vaedensity.training.fit import fit
from vaedensity.training.objective import elbo_bits_per_dim, negative_elbo
from vaedensity.training.schedule import FreeBits, KLWarmup, Length, WarmupCosine, batch_at
from vaedensity.training.settings import FitSettings

CONFIG = VAEConfig(8, 8, 1, 17, latents=((4, 2), (2, 1)), widths=(12, 8), blocks=1, sub_image_blocks=1, components=2)
TRAIN, VALID = load_digits()[:600, None], load_digits()[600:700, None]


def settings(steps: int, **changes: Any) -> FitSettings:
    options = {"batch_size": 32, "validate_every": 20, "save_every_seconds": 1e9} | changes
    return FitSettings(Length(steps=steps), **options)  # type: ignore[arg-type]


def weights(model: HierarchicalVAE) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_it_learns() -> None:
    torch.manual_seed(0)
    before = elbo_bits_per_dim(HierarchicalVAE(CONFIG), VALID)
    result = fit(TRAIN, VALID, CONFIG, settings(160, schedule=WarmupCosine(warmup_steps=10)))
    assert result.steps == 160 and result.restarts == 0
    assert result.valid_bits_per_dim < 0.75 * before
    assert result.epochs == pytest.approx(160 * 32 / 600)


def test_resume_continues_exactly(tmp_path: Path) -> None:
    whole = fit(TRAIN, VALID, CONFIG, settings(40))
    state = tmp_path / "state"

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 17:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="step 17"):
        fit(TRAIN, VALID, CONFIG, settings(40), state_path=state, observers=(stop,))
    resumed = fit(TRAIN, VALID, CONFIG, settings(40), state_path=state, resume=True)
    assert resumed.steps == 40
    for name, p in weights(whole.model).items():
        assert torch.equal(p, weights(resumed.model)[name]), name
    assert resumed.valid_bits_per_dim == whole.valid_bits_per_dim


def test_the_best_weights_are_kept_and_their_step_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that gets worse on validation items, also when it is interrupted in between."""
    kept, rates = {}, {20: 3.0, 40: 2.0, 60: 2.5, 80: 2.6}

    def rate(run: Any, *rest: Any) -> float:
        seen.append(20 * (1 + len(seen)))
        kept[seen[-1]] = {name: p.clone() for name, p in run.average.average.items()}
        return rates.get(seen[-1], 2.6)

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 50:
            raise KeyboardInterrupt

    seen: list[int] = []
    monkeypatch.setattr(fit_module, "_averaged_rate", rate)
    with pytest.raises(Interrupted):
        fit(TRAIN, VALID, CONFIG, settings(80), state_path=tmp_path / "state", observers=(stop,))
    result = fit(TRAIN, VALID, CONFIG, settings(80), state_path=tmp_path / "state", resume=True)
    assert result.best_step == 40 and result.decline == pytest.approx(1.3)
    assert all(torch.equal(p, kept[40][name]) for name, p in result.model.named_parameters())


def test_resume_rejects_other_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(UsageError, match="no training state"):
        fit(TRAIN, VALID, CONFIG, settings(2), state_path=state, resume=True)
    fit(TRAIN, VALID, CONFIG, settings(2), state_path=state)
    with pytest.raises(UsageError, match="other data"):
        fit(TRAIN[:300], VALID, CONFIG, settings(2), state_path=state, resume=True)
    with pytest.raises(UsageError, match="seed"):
        fit(TRAIN, VALID, CONFIG, settings(2, seed=5), state_path=state, resume=True)
    with safe_open(state, "pt") as f:
        tensors, metadata = {key: f.get_tensor(key) for key in f.keys()}, f.metadata()
    counters = json.loads(metadata["counters"])
    for version in (2, None):
        save_file(tensors, state, metadata=metadata | {"counters": json.dumps(counters | {"version": version})})
        with pytest.raises(ModelError, match=f"training state of version {version}, expected 1"):
            fit(TRAIN, VALID, CONFIG, settings(2), state_path=state, resume=True)
    state.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not a training state"):
        fit(TRAIN, VALID, CONFIG, settings(2), state_path=state, resume=True)


def test_a_non_finite_loss_steps_back_and_halves_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fit_module.negative_elbo, []

    def sometimes(model: Any, *rest: Any) -> Any:
        loss = real(model, *rest)
        calls.append(torch.is_grad_enabled())
        return loss._replace(value=loss.value * float("nan")) if sum(calls) == 25 and calls[-1] else loss

    monkeypatch.setattr(fit_module, "negative_elbo", sometimes)
    records: list[dict[str, Any]] = []
    result = fit(TRAIN, VALID, CONFIG, settings(50), observers=(records.append,))
    events = [r for r in records if "event" in r]
    assert result.restarts == 1 and len(events) == 1 and "back to step 20" in events[0]["event"]
    after = records[records.index(events[0]) + 1]
    assert after["step"] == 21 and after["learning_rate"] < 0.51 * WarmupCosine().rate(0.4, 20) * 1.01
    assert all(bool(p.isfinite().all()) for p in weights(result.model).values())


def test_free_bits_lift_levels_below_their_floor() -> None:
    torch.manual_seed(0)
    model = HierarchicalVAE(CONFIG)
    x, noise = torch.from_numpy(TRAIN[:16]), torch.randn(16, model.noise_dim)
    plain, lifted = (negative_elbo(model, x, noise, 0.5, floor) for floor in (0.0, 0.3))
    assert torch.equal(plain.rate, lifted.rate) and float(plain.rate.detach()) < 0.6
    assert float((lifted.value - plain.value).detach()) == pytest.approx(0.6 - float(plain.rate.detach()), abs=1e-4)
    schedule = FreeBits(0.3, 0.5)
    assert [schedule.floor(p) for p in (0.0, 0.25, 0.5, 0.9)] == [0.3, 0.15, 0.0, 0.0]
    assert FreeBits(0.3, 0.0).floor(0.0) == 0.0


def test_initial_weights_are_where_it_begins() -> None:
    first = fit(TRAIN, VALID, CONFIG, settings(30)).model
    start = {name: p.detach().clone() for name, p in first.named_parameters()}
    unchanged = fit(TRAIN, VALID, CONFIG, settings(1, schedule=WarmupCosine(peak=1e-12)), initial=start).model
    assert all(torch.allclose(p, start[name], atol=1e-6) for name, p in unchanged.named_parameters())


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_optimisers_resume_only_as_themselves(optimizer: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    fit(TRAIN, VALID, CONFIG, settings(5, optimizer=optimizer), state_path=state)
    other = {"muon": "adam", "adam": "muon"}[optimizer]
    with pytest.raises(UsageError, match="another optimizer"):
        fit(TRAIN, VALID, CONFIG, settings(9, optimizer=other), state_path=state, resume=True)
    assert fit(TRAIN, VALID, CONFIG, settings(9, optimizer=optimizer), state_path=state, resume=True).steps == 9


def test_an_optimiser_that_is_none_is_rejected() -> None:
    with pytest.raises(UsageError, match="'sgd': expected one of muon, adam, egdd, two-rate"):
        settings(5, optimizer="sgd")


def test_endless_divergence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fit_module.negative_elbo
    monkeypatch.setattr(
        fit_module,
        "negative_elbo",
        lambda *a: (loss := real(*a))._replace(value=loss.value * float("inf")),
    )
    with pytest.raises(VaedensityError, match="diverged"):
        fit(TRAIN, VALID, CONFIG, settings(50))


def test_the_best_average_is_kept() -> None:
    records: list[dict[str, Any]] = []
    result = fit(
        TRAIN[:64],
        VALID,
        CONFIG,
        settings(100, schedule=WarmupCosine(peak=2e-2, warmup_steps=5)),
        observers=(records.append,),
    )
    seen = [r["valid_bits_per_dim"] for r in records if "valid_bits_per_dim" in r]
    assert len(seen) == 5
    assert result.valid_bits_per_dim <= min(seen) + 1e-6


def test_batches_are_permutations() -> None:
    data = np.arange(70, dtype=np.uint8)
    epoch = np.concatenate([batch_at(data, step, 10, seed=1) for step in range(7)])
    assert sorted(epoch) == list(range(70))
    assert (batch_at(data, 3, 10, seed=1) == batch_at(data, 3, 10, seed=1)).all()
    assert (batch_at(data, 3, 10, seed=1) != batch_at(data, 10, 10, seed=1)).any()
    assert len(batch_at(data[:4], 9, 10, seed=1)) == 4


def test_schedules() -> None:
    schedule = WarmupCosine(peak=1.0, warmup_steps=10, floor=0.1)
    assert schedule.rate(0.0, 0) == pytest.approx(0.1)
    assert schedule.rate(0.0, 100) == pytest.approx(1.0)
    assert schedule.rate(1.0, 100) == pytest.approx(0.1)
    assert (
        KLWarmup(0.5, 0.2).weight(0.0) == 0.2
        and KLWarmup(0.5, 0.2).weight(0.5) == 1.0
        and KLWarmup(0.0).weight(0.0) == 1.0
    )
    assert Length(steps=10).progress(5, 1e9) == 0.5 and Length(seconds=10).progress(1, 20) == 1.0


def test_nothing_to_fit_is_rejected() -> None:
    with pytest.raises(UsageError, match="found 0 and 100"):
        fit(TRAIN[:0], VALID, CONFIG, settings(1))
