"""The one fit loop."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.errors import Interrupted, UsageError, VaedensityError
from vaedensity.items import plain_array
from vaedensity.model.kinds import Config, Network, build_network, to_device
from vaedensity.training.gradients import global_norm
from vaedensity.training.groups import param_groups, set_rate
from vaedensity.training.objective import Loss, elbo_bits_per_dim, negative_elbo
from vaedensity.training.process import deferred_interrupt, own_randomness, seed_draws
from vaedensity.training.schedule import batch_at
from vaedensity.training.settings import OPTIMIZERS, FitSettings
from vaedensity.training.state import Snapshot, TrainingState, WeightAverage

Observer = Callable[[dict[str, Any]], None]
MOST_RESTARTS = 8


@dataclass(frozen=True)
class FitResult:
    """What a run has found.

    Parameters
    ----------
    model : HierarchicalVAE or SequenceVAE
        With the averaged weights that did best on validation items, in evaluation mode.
    steps : int
        Optimiser steps taken.
    epochs : float
        Passes over the training items.
    seconds : float
        Time trained, over all sittings.
    valid_bits_per_dim : float
        -ELBO of ``model`` on all validation items, in bits per dimension.
    restarts : int
        How often the run diverged and stepped back.
    best_step : int
        The step at which the weights of ``model`` were judged best.
    decline : float
        The last rate on validation items over the best one: above 1 where the run got worse since.
    """

    model: Network
    steps: int
    epochs: float
    seconds: float
    valid_bits_per_dim: float
    restarts: int
    best_step: int
    decline: float


@own_randomness()
def fit(
    train: NDArray[np.uint8],
    valid: NDArray[np.uint8],
    config: Config,
    settings: FitSettings,
    *,
    initial: Mapping[str, Tensor] | None = None,
    state_path: Path | None = None,
    resume: bool = False,
    observers: tuple[Observer, ...] = (),
) -> FitResult:
    """Fit the VAE of ``config`` by stochastic gradient steps on its negative ELBO.

    A loss or gradient that is not finite takes the run back to its last good state, at half the learning rate; unless
    ``settings.gradient`` skips the step.

    Parameters
    ----------
    train, valid : array of uint8, shape (N, C, H, W)
        Integers 0 to ``config.levels`` - 1, to fit to and to judge by.
    config : VAEConfig or SequenceConfig
        The network.
    settings : FitSettings
        How to train.
    initial : mapping of str to Tensor, optional
        Weights by name to begin with, of a network of the same ``config``; random ones without it.
    state_path : Path, optional
        Where the run is saved: every ``settings.save_every_seconds``, on interruption and at its end.
    resume : bool
        Go on from ``state_path``, exactly as if the run had never stopped.
    observers : tuple of callables
        Each is called after every step with a dict: step, seconds, progress, learning_rate, bits_per_dim,
        kl_bits_per_dim, gradient_norm, implicit_penalty; valid_bits_per_dim where it was judged; event in words.

    Returns
    -------
    FitResult
        The averaged weights that did best on ``valid``, and how the run went.

    Raises
    ------
    UsageError
        Where there are no items, a pattern of the settings matches no parameter, or the saved run is another one.
    ModelError
        For a damaged state file.
    Interrupted
        On Ctrl-C, once the run is saved.
    VaedensityError
        Where the run diverges again and again.

    Examples
    --------
    >>> from vaedensity.model.config import preset_config
    >>> from vaedensity.training.schedule import Length
    >>> x = np.random.default_rng(0).integers(0, 4, (40, 1, 8, 8), np.uint8)
    >>> result = fit(x[:32], x[32:], preset_config("fast", (1, 8, 8), 4), FitSettings(Length(steps=3), batch_size=16))
    >>> result.steps, result.epochs
    (3, 1.5)
    """
    if len(train) == 0 or len(valid) == 0:
        raise UsageError(f"fit needs items to train and to validate on, found {len(train)} and {len(valid)}")
    train, valid = plain_array(train, "train"), plain_array(valid, "valid")
    run, record = _begin(train, config, settings, initial), settings.record(config, train, initial)
    if resume:
        if state_path is None:
            raise UsageError("resume needs a state_path")
        run.load(state_path, record)
    model, parameters = run.model, list(run.model.named_parameters())

    def judge() -> float:
        rate = _averaged_rate(run, valid[: settings.judged_items], settings)
        run.keep_if_best(rate)
        return rate

    def save() -> None:
        if state_path is not None:
            run.save(state_path, record)

    good, torn, finished = run.snapshot(), False, False  # torn: a step is half done
    earlier, started = run.seconds, time.monotonic()
    last_save = started
    try:
        with deferred_interrupt() as stop:
            while (progress := settings.length.progress(run.steps, run.seconds)) < 1.0:
                if stop.made:
                    raise KeyboardInterrupt
                rate = settings.schedule.rate(progress, run.steps) * 0.5**run.restarts
                set_rate(run.optimizer, rate)
                torn = True
                loss, value = _loss(run, train, settings, progress)
                run.optimizer.zero_grad(set_to_none=True)
                value.backward()
                norm = float(global_norm(parameters))
                taken = run.gradient(parameters, run.steps) is not False
                run.steps += 1
                run.seconds = earlier + time.monotonic() - started
                said: dict[str, Any] = {
                    "step": run.steps,
                    "seconds": run.seconds,
                    "progress": progress,
                    "learning_rate": rate,
                }
                diverged = not math.isfinite(float(value.detach())) or (taken and not math.isfinite(norm))
                if diverged:
                    _step_back(run, good)
                    said["event"] = f"non-finite loss: back to step {run.steps}, learning rate halved"
                else:
                    said["bits_per_dim"] = float(loss.rate.detach() + loss.distortion.detach())
                    said["kl_bits_per_dim"] = float(loss.rate.detach())
                    if taken:
                        run.optimizer.step()
                        run.average.update(model, run.steps)
                        said |= {"gradient_norm": norm, "implicit_penalty": rate / 4 * norm**2}
                    else:
                        said["event"] = f"step {run.steps} skipped: gradient norm {norm:.3g}"
                torn = False
                if run.steps % settings.validate_every == 0 and not diverged:
                    said["valid_bits_per_dim"] = judge()
                    good = run.snapshot()
                for observe in observers:
                    observe(said)
                if time.monotonic() - last_save > settings.save_every_seconds:
                    save()
                    last_save = time.monotonic()
            if stop.made:
                raise KeyboardInterrupt
        decline = judge() / run.best_rate
        save()
        finished = True
        model.fake_quantise(False)
        with torch.no_grad():
            for name, p in parameters:
                p.copy_(run.best[name])
        valid_rate = _rate(model, valid, settings)
    except KeyboardInterrupt:
        if torn:
            run.restore(good)
        if not finished:
            save()
        where = f"state saved to {state_path}, go on with resume=True" if state_path else "nothing saved"
        raise Interrupted(f"interrupted at step {run.steps}; {where}") from None
    epochs = run.steps * min(settings.batch_size, len(train)) / len(train)
    return FitResult(model, run.steps, epochs, run.seconds, valid_rate, run.restarts, run.best_step, decline)


def _begin(
    train: NDArray[np.uint8], config: Config, settings: FitSettings, initial: Mapping[str, Tensor] | None
) -> TrainingState:
    """The run before its first step."""
    device = torch.device(settings.device)
    seed_draws(device, settings.seed)
    model = to_device(build_network(config), device)
    model.look_at(train)
    if initial is not None:
        model.load_state_dict({name: t.to(device) for name, t in initial.items()})
    average = WeightAverage(model, settings.average_decay)
    groups = param_groups(model, settings.scales, lr=settings.schedule.peak)
    optimizer = OPTIMIZERS[settings.optimizer](groups, settings.schedule.peak, model)
    gradient = copy.deepcopy(settings.gradient)  # settings serve many runs, what a transform learns is one run's
    gradient.check([name for name, _ in model.named_parameters()])
    generator = torch.Generator(device).manual_seed(settings.seed)
    return TrainingState(model, average, optimizer, generator, gradient, best=average.copy())


def _loss(run: TrainingState, train: NDArray[np.uint8], settings: FitSettings, progress: float) -> tuple[Loss, Tensor]:
    """The loss of the batch that is next, and the scalar to descend on once the terms have been applied."""
    model, device = run.model, run.generator.device
    x = torch.from_numpy(batch_at(train, run.steps, settings.batch_size, settings.seed)).to(device)
    noise = torch.randn(len(x), model.noise_dim, generator=run.generator, dtype=torch.float32, device=device)
    seed_draws(device, settings.seed + 1 + run.steps)  # what is dropped out follows the step, as the batch does
    in_tail = progress >= 1.0 - settings.full_precision_tail
    model.fake_quantise(settings.fake_quantise and in_tail)
    kl_weight, free_bits = settings.kl_warmup.weight(progress), settings.free_bits.floor(progress)
    with torch.autocast(device.type, torch.bfloat16, enabled=not in_tail and has_fast_bf16(device)):
        loss = negative_elbo(model, x, noise, kl_weight, free_bits)
    torch.clear_autocast_cache()  # of weights as they are now: within a caller's autocast it would stay
    value = loss.value
    for term in settings.terms:
        value = term(value, [p for p in model.parameters() if p.requires_grad])
    return loss, value


def _step_back(run: TrainingState, good: Snapshot) -> None:
    """Go on from the last good state; the learning rate is halved with every restart."""
    run.restarts += 1
    if run.restarts > MOST_RESTARTS:
        raise VaedensityError(f"training diverged {run.restarts} times, last at step {run.steps}; lower the rate")
    run.restore(good)


def _averaged_rate(run: TrainingState, valid: NDArray[np.uint8], settings: FitSettings) -> float:
    """The rate of the averaged weights, by one measure for all judgements: never fake-quantised."""
    averaged = copy.deepcopy(run.model)
    averaged.fake_quantise(False)
    with torch.no_grad():
        for name, p in averaged.named_parameters():
            p.copy_(run.average.average[name])
    return _rate(averaged, valid, settings)


def _rate(model: Network, valid: NDArray[np.uint8], settings: FitSettings) -> float:
    return elbo_bits_per_dim(model.eval(), valid, batch_size=min(256, settings.batch_size), seed=settings.seed)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is worth while: CUDA, and processors with native bfloat16 products."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
