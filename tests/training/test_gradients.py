"""Gradient transforms: each does what its paper says, all compose, and resume exactly."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_fit import CONFIG, TRAIN, VALID, settings, weights
from torch import Tensor, nn

from vaedensity.errors import Interrupted, ModelError, UsageError
from vaedensity.training import fit as fit_module
from vaedensity.training.fit import fit
from vaedensity.training.gradients import (
    AddNoise,
    Centralise,
    Chain,
    ClipAdaptive,
    ClipGlobalNorm,
    ClipNorm,
    ClipValue,
    ForPattern,
    GradientTransform,
    NamedParameters,
    Sign,
    SkipOnSpike,
    global_norm,
)

ALL: list[GradientTransform] = [
    ClipValue(0.5),
    ClipNorm(0.7),
    ClipGlobalNorm(1.1),
    ClipAdaptive(0.02),
    Centralise(),
    AddNoise(0.3),
    Sign(),
    SkipOnSpike(1.2, window=5, warmup=2),
    ForPattern("body.*", ClipNorm(0.1)),
    Chain([Centralise(), ForPattern("head", SkipOnSpike(1.1, window=5, warmup=2)), AddNoise(0.01), ClipGlobalNorm(1)]),
    Chain(),
]


def parameters(step: int = 0) -> list[tuple[str, nn.Parameter]]:
    """A kernel, a matrix, a vector, a number and a parameter without gradient."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"body.kernel": (4, 3, 2, 2), "head.weight": (5, 4), "head.bias": (5,), "level": (), "idle": (3,)}
    named = [(name, nn.Parameter(torch.randn(shape, generator=generator))) for name, shape in shapes.items()]
    generator.manual_seed(100 + step)
    for name, p in named:
        if name != "idle":
            p.grad = torch.randn(p.shape, generator=generator) * (1 + step % 3)
    return named


def gradients(named: NamedParameters) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def applied(transform: GradientTransform, step: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(gradients before, after)."""
    named = parameters(step)
    before = gradients(named)
    transform(named, step)
    return before, gradients(named)


# What holds for all


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_resumed_from_its_state_it_goes_on_the_same(transform: GradientTransform) -> None:
    whole, first, second = (copy.deepcopy(transform) for _ in range(3))
    outcomes = []
    for step in range(12):
        if step == 7:
            state = {key: t.clone() for key, t in first.state_dict().items()}
            first(parameters(2), step)  # what happens after the state was taken does not count
            second.load_state_dict(state)
        a, b = parameters(step), parameters(step)
        outcomes.append(whole(a, step))
        assert (first if step < 7 else second)(b, step) is outcomes[-1]
        assert gradients(a).keys() == gradients(b).keys()
        assert all(torch.equal(g, gradients(b)[name]) for name, g in gradients(a).items())
    assert set(outcomes) <= {None, False}


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_its_settings_are_its_repr_and_equality(transform: GradientTransform) -> None:
    used = copy.deepcopy(transform)
    for step in range(4):
        used(parameters(step), step)
    assert used == transform and repr(used) == repr(transform) and hash(used) == hash(transform)
    assert "0x" not in repr(transform)


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_weights_and_missing_gradients_stay(transform: GradientTransform) -> None:
    named, untouched = parameters(), dict(parameters())
    transform(named, 0)
    assert all(torch.equal(p, untouched[name]) for name, p in named)
    assert dict(named)["idle"].grad is None


# What each does


def test_clip_value() -> None:
    before, after = applied(ClipValue(0.5))
    assert all(torch.equal(after[name], g.clamp(-0.5, 0.5)) for name, g in before.items())


def test_clip_norm() -> None:
    before, after = applied(ClipNorm(0.7))
    for name, g in before.items():
        torch.testing.assert_close(after[name], g * min(1.0, 0.7 / float(g.norm())))
    _, after = applied(ClipNorm(1e3))
    assert all(torch.equal(after[name], g) for name, g in before.items())


def test_clip_global_norm_is_torchs() -> None:
    _, after = applied(ClipGlobalNorm(1.1))
    named = parameters()
    norm = torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.1)
    assert all(torch.equal(after[name], g) for name, g in gradients(named).items())
    assert torch.equal(global_norm(parameters()), norm)
    assert float(global_norm([("idle", nn.Parameter(torch.ones(2)))])) == 0


def test_clip_adaptive_bounds_every_unit_by_its_weights() -> None:
    named = parameters()
    with torch.no_grad():
        dict(named)["head.weight"][2] = 0.0
        dict(named)["head.weight"][3] *= 1e4
    before = gradients(named)
    ClipAdaptive(0.02, floor=1e-3)(named, 0)
    for name, p in named:
        if p.grad is not None:
            units = range(len(p)) if p.dim() > 1 else [...]
            for unit in units:
                largest = 0.02 * max(float(p.detach()[unit].norm()), 1e-3)
                factor = min(1.0, largest / float(before[name][unit].norm()))
                torch.testing.assert_close(p.grad[unit], before[name][unit] * factor)


def test_clip_adaptive_leaves_a_gradient_of_zero() -> None:
    p = nn.Parameter(torch.zeros(3, 2))
    p.grad = torch.zeros(3, 2)
    ClipAdaptive(0.01)([("p", p)], 0)
    assert torch.equal(p.grad, torch.zeros(3, 2))


def test_centralise() -> None:
    before, after = applied(Centralise())
    for name in ("body.kernel", "head.weight"):
        means = after[name].flatten(1).mean(1)
        torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-6, rtol=0)
        shift = (before[name] - after[name]).flatten(1)
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-6, rtol=0)
    assert torch.equal(after["head.bias"], before["head.bias"]) and torch.equal(after["level"], before["level"])


def test_sign() -> None:
    before, after = applied(Sign())
    assert all(torch.equal(after[name], g.sign()) for name, g in before.items())


def noise(transform: AddNoise, step: int, name: str = "p", size: int = 20000) -> Tensor:
    p = nn.Parameter(torch.zeros(size))
    p.grad = torch.zeros(size)
    transform([(name, p)], step)
    return p.grad


def test_noise_decays_and_is_a_function_of_seed_step_and_name() -> None:
    for step in (0, 1, 50):
        variance = 0.3 / (1 + step) ** 0.55
        assert float(noise(AddNoise(0.3), step).var()) == pytest.approx(variance, rel=0.05)
        assert abs(float(noise(AddNoise(0.3), step).mean())) < 5 * math.sqrt(variance / 20000)
    base = noise(AddNoise(0.3), 4)
    assert torch.equal(base, noise(AddNoise(0.3), 4))
    for other in (noise(AddNoise(0.3, seed=1), 4), noise(AddNoise(0.3), 5), noise(AddNoise(0.3), 4, "q")):
        assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 0.05
    assert float(noise(AddNoise(0.3, decay=0), 50).var()) == pytest.approx(0.3, rel=0.05)


def spike(transform: GradientTransform, norm: float, step: int = 0) -> bool:
    """Whether a step with this gradient norm is taken."""
    p = nn.Parameter(torch.zeros(4))
    p.grad = torch.full((4,), norm / 2)
    taken = transform([("p", p)], step) is not False
    assert taken == (p.grad is not None)
    return taken


def test_spikes_are_skipped() -> None:
    skip = SkipOnSpike(3.0, window=10, warmup=5)
    assert all(spike(skip, norm) for norm in (1.0, 100.0, 1.0, 1.0, 1.0))  # warm-up; mean 20.8
    skip = SkipOnSpike(3.0, window=10, warmup=5)
    assert all(spike(skip, 1.0) for _ in range(5))
    assert spike(skip, 2.9) and not spike(skip, 5.0) and spike(skip, 1.0)
    before = skip.state_dict()
    for norm in (math.nan, math.inf):
        assert not spike(skip, norm) and not spike(SkipOnSpike(3.0), norm)
    assert skip.state_dict() == before


def test_a_lasting_change_of_scale_gets_through() -> None:
    skip = SkipOnSpike(3.0, window=10, warmup=5)
    taken = [spike(skip, 1.0) for _ in range(20)] + [spike(skip, 1000.0) for _ in range(60)]
    assert all(taken[:20]) and not any(taken[20:40]) and all(taken[-20:])


# How they compose


def test_a_pattern_takes_its_part_only() -> None:
    before, after = applied(ForPattern("head", Sign()))
    for name, g in before.items():
        assert torch.equal(after[name], g.sign() if name.startswith("head.") else g)
    with pytest.raises(UsageError, match="near: head"):
        applied(ForPattern("heads", Sign()))


def test_a_chain_goes_in_order_and_stops_at_a_skipped_step() -> None:
    before, after = applied(Chain([ClipValue(0.5), Sign(), ClipValue(0.25)]))
    assert all(torch.equal(after[name], 0.25 * g.sign()) for name, g in before.items())
    last = SkipOnSpike(2.0)
    chain = Chain([ForPattern("head", SkipOnSpike(1.5, warmup=1)), last])
    named = parameters()
    assert chain(named, 0) is None and last.running.count == 1
    dict(named)["head.bias"].grad = torch.full((5,), 1e6)
    assert chain(named, 1) is False and last.running.count == 1
    assert dict(named)["head.weight"].grad is None and dict(named)["body.kernel"].grad is not None


def test_check_finds_a_wrong_pattern_wherever_it_is() -> None:
    names = [name for name, _ in parameters()]
    Chain([ForPattern("head", ForPattern("*.bias", Sign()))]).check(names)
    for wrong in (ForPattern("hed", Sign()), ForPattern("body", ForPattern("head", Sign()))):
        with pytest.raises(UsageError, match="no parameter matches"):
            Chain([Sign(), wrong]).check(names)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (ClipValue, (0.0,)),
        (ClipNorm, (-1.0,)),
        (ClipGlobalNorm, (math.inf,)),
        (ClipNorm, (math.nan,)),
        (ClipAdaptive, (0.1, 0.0)),
        (AddNoise, (0.0,)),
        (AddNoise, (0.1, -1.0)),
        (AddNoise, (0.1, 0.5, 1.5)),
        (SkipOnSpike, (1.0,)),
        (SkipOnSpike, (2.0, 0)),
        (SkipOnSpike, (2.0, 10, 0.5)),
    ],
)
def test_settings_without_sense_are_rejected(kind: Any, arguments: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=f"{kind.__name__}.*expected"):
        kind(*arguments)


# In the fit loop

LIVELY = Chain([SkipOnSpike(1.05, window=5, warmup=3), ForPattern("decoder.*", AddNoise(1e-4)), ClipAdaptive(0.1)])


def stop_at(step: int) -> Any:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == step:
            raise KeyboardInterrupt

    return stop


def test_resume_with_transforms_is_exact(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    whole = fit(TRAIN, VALID, CONFIG, settings(40, gradient=LIVELY), observers=(records.append,))
    skipped = [r["step"] for r in records if "skipped" in r.get("event", "")]
    assert any(step < 17 for step in skipped) and any(step > 17 for step in skipped) and len(skipped) < 30
    assert all(("gradient_norm" in r) != (r["step"] in skipped) for r in records)
    assert {r["step"] for r in records if "valid_bits_per_dim" in r} == {20, 40}
    state = tmp_path / "state"
    with pytest.raises(Interrupted, match="step 17"):
        fit(TRAIN, VALID, CONFIG, settings(40, gradient=LIVELY), state_path=state, observers=(stop_at(17),))
    resumed = fit(TRAIN, VALID, CONFIG, settings(40, gradient=LIVELY), state_path=state, resume=True)
    for name, p in weights(whole.model).items():
        assert torch.equal(p, weights(resumed.model)[name]), name
    assert LIVELY.transforms[0].state_dict()["count"] == 0  # settings serve many runs


def test_resume_rejects_other_transforms(tmp_path: Path) -> None:
    state = tmp_path / "state"
    fit(TRAIN, VALID, CONFIG, settings(4, gradient=LIVELY), state_path=state)
    for other in (ClipGlobalNorm(1.0), Chain([*LIVELY.transforms, Sign()])):
        with pytest.raises(UsageError, match="another gradient transform"):
            fit(TRAIN, VALID, CONFIG, settings(4, gradient=other), state_path=state, resume=True)
    with safe_open(state, "pt") as f:
        tensors, metadata = {key: f.get_tensor(key) for key in f.keys()}, f.metadata()
    del tensors["gradient/0.count"]
    save_file(tensors, state, metadata=metadata)
    with pytest.raises(ModelError, match="not whole"):
        fit(TRAIN, VALID, CONFIG, settings(4, gradient=LIVELY), state_path=state, resume=True)


def test_a_non_finite_gradient_is_skipped_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fit_module.negative_elbo, []

    def sometimes(model: Any, *rest: Any) -> Any:
        loss = real(model, *rest)
        calls.append(torch.is_grad_enabled())
        if sum(calls) == 10 and calls[-1]:
            bad = model.start.sum() * 0  # d sqrt(u) / du is infinite at u = 0
            return loss._replace(value=loss.value + bad.sqrt())
        return loss

    monkeypatch.setattr(fit_module, "negative_elbo", sometimes)
    records: list[dict[str, Any]] = []
    chain = Chain([SkipOnSpike(100.0), ClipGlobalNorm(1.0)])
    result = fit(TRAIN, VALID, CONFIG, settings(14, gradient=chain), observers=(records.append,))
    assert result.restarts == 0 and result.steps == 14
    assert [r["step"] for r in records if "event" in r] == [10] and "step 10 skipped" in records[9]["event"]
    calls.clear()
    assert fit(TRAIN, VALID, CONFIG, settings(14)).restarts == 1
