"""The one fit loop."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaedensity.errors import Interrupted, ModelError, UsageError, VaedensityError
from vaedensity.items import plain_array
from vaedensity.model.kinds import Config, Network, build_network, to_device
from vaedensity.training.egdd import EGDD
from vaedensity.training.ema import WeightAverage
from vaedensity.training.gradients import ClipGlobalNorm, GradientTransform, global_norm
from vaedensity.training.groups import param_groups, set_rate
from vaedensity.training.interrupt import deferred_interrupt
from vaedensity.training.muon import Muon, split_matrices
from vaedensity.training.objective import negative_elbo
from vaedensity.training.penalties import TwoRateAlternation
from vaedensity.training.resume import asked_of, check_same
from vaedensity.training.schedule import FreeBits, KLWarmup, Length, WarmupCosine
from vaedensity.training.state import load_state, restore, save_state, tensors_of
from vaedensity.training.terms import LossTerm

Observer = Callable[[dict[str, Any]], None]
OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], float, Network], torch.optim.Optimizer]] = {
    "muon": lambda groups, lr, model: Muon(split_matrices(groups, model.OUTPUT_LAYERS), lr),
    "adam": lambda groups, lr, model: torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99)),
    "egdd": lambda groups, lr, model: EGDD(groups, lr),
    "two-rate": lambda groups, lr, model: TwoRateAlternation(groups, lr),
}
MAX_SETBACKS = 8


@dataclass(frozen=True)
class FitSettings:
    """How to train. Two runs of equal step count, settings, data and machine give equal weights.

    ``terms`` act on the loss, one after the other. ``scales`` are factors of the learning rate by patterns of parameter names, 0 for parts to freeze. Where the
    device has fast bfloat16, all but the last ``full_precision_tail`` of the run uses it; in that tail, ``fake_quantise`` lets
    the network round as the integers made of it will.
    """

    length: Length
    optimizer: str = "muon"
    batch_size: int = 64
    schedule: WarmupCosine = field(default_factory=WarmupCosine)
    kl_warmup: KLWarmup = field(default_factory=KLWarmup)
    free_bits: FreeBits = field(default_factory=FreeBits)
    terms: tuple[LossTerm, ...] = ()
    gradient: GradientTransform = field(default_factory=ClipGlobalNorm)
    scales: Mapping[str, float] = field(default_factory=dict)
    average_decay: float = 0.999
    seed: int = 0
    device: str = "cpu"
    full_precision_tail: float = 0.1
    fake_quantise: bool = True
    validate_every: int = 500
    judged_items: int = 2048
    save_every_seconds: float = 120.0


@dataclass(frozen=True)
class FitResult:
    """The averaged weights that did best on validation items, those of ``best_step``, and how they came about. ``decline``: by
    what factor the rate on validation items had grown since when the run ended."""

    model: Network
    steps: int
    epochs: float
    seconds: float
    valid_bits_per_dim: float
    restarts: int
    best_step: int
    decline: float


@contextmanager
def own_randomness() -> Iterator[None]:
    """What is drawn inside leaves torch's common generators as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


@own_randomness()
def fit(
    train: np.ndarray,
    valid: np.ndarray,
    config: Config,
    settings: FitSettings,
    *,
    initial: Mapping[str, Tensor] | None = None,
    state_path: Path | None = None,
    resume: bool = False,
    observers: tuple[Observer, ...] = (),
) -> FitResult:
    """Fit the VAE of ``config`` to integers ``train`` (N,C,H,W) and report its rate on ``valid``.

    ``initial``: weights by name to begin with, of a network of the same ``config``; else random ones.
    With ``state_path`` the run is saved every ``save_every_seconds``, on interruption and at its
    end; ``resume`` continues it exactly where it stopped. A non-finite loss or gradient steps back
    to the last good state at half the learning rate, unless ``settings.gradient`` skips such a gradient.
    """
    if len(train) == 0 or len(valid) == 0:
        raise UsageError(f"fit needs items to train and to validate on, found {len(train)} and {len(valid)}")
    train, valid = plain_array(train, "train"), plain_array(valid, "valid")
    device = torch.device(settings.device)
    seed_draws(device, settings.seed)
    model = to_device(build_network(config), device)
    model.look_at(train)
    if initial is not None:
        model.load_state_dict({name: t.to(device) for name, t in initial.items()})
    average = WeightAverage(model, settings.average_decay)
    groups = param_groups(model, settings.scales, lr=settings.schedule.peak)
    optimizer = OPTIMIZERS[settings.optimizer](groups, settings.schedule.peak, model)
    parameters = list(model.named_parameters())
    trained = [p for _, p in parameters if p.requires_grad]
    gradient = copy.deepcopy(settings.gradient)  # settings serve many runs, what a transform learns is one run's
    gradient.check([name for name, _ in parameters])
    asked = asked_of(settings, config, train, gradient, initial)
    generator = torch.Generator(device).manual_seed(settings.seed)
    steps, seconds, restarts, best_step = 0, 0.0, 0, 0
    best, best_rate = {name: p.to("cpu", copy=True) for name, p in average.average.items()}, math.inf
    if resume:
        if state_path is None:
            raise UsageError("resume needs a state_path")
        tensors, counters = load_state(state_path)
        check_same(state_path, counters, asked)
        try:
            restore(tensors, model, average, optimizer, generator, gradient)
        except (KeyError, RuntimeError, IndexError) as error:
            raise ModelError(f"{state_path}: the saved run is not whole ({error}); fit without resume=True") from error
        steps, seconds, restarts = counters["steps"], counters["seconds"], counters["restarts"]
        best_step = counters["best_step"]
        best_rate = counters["best_rate"] if counters["best_rate"] is not None else math.inf
        best = {key[len("best/") :]: t for key, t in tensors.items() if key.startswith("best/")}

    def snapshot() -> dict[str, Tensor]:
        return tensors_of(model, average, optimizer, generator, gradient)

    def save() -> None:
        if state_path is not None:
            counters = {
                "steps": steps,
                "seconds": seconds,
                "restarts": restarts,
                **asked,
                "best_step": best_step,
                "best_rate": best_rate if math.isfinite(best_rate) else None,
            }
            save_state(state_path, snapshot() | {f"best/{name}": t for name, t in best.items()}, counters)

    def judge() -> float:
        """The rate of the averaged weights on validation items; keeps them if they are the best."""
        nonlocal best, best_rate, best_step
        rate = _valid_rate(model, average, valid[: settings.judged_items], settings)
        if rate < best_rate:
            best, best_rate = {name: p.detach().to("cpu", copy=True) for name, p in average.average.items()}, rate
            best_step = steps
        return rate

    fast_bf16 = has_fast_bf16(device)
    good, good_steps = snapshot(), steps
    torn = False  # whether a step is half done
    last_save = started = time.monotonic()
    earlier = seconds
    try:
        with deferred_interrupt() as stop:
            while (progress := settings.length.progress(steps, seconds)) < 1.0:
                if stop.made:
                    raise KeyboardInterrupt
                rate = settings.schedule.rate(progress, steps) * 0.5**restarts
                set_rate(optimizer, rate)
                torn = True
                x = torch.from_numpy(batch_at(train, steps, settings.batch_size, settings.seed)).to(device)
                noise = torch.randn(len(x), model.noise_dim, generator=generator, dtype=torch.float32, device=device)
                seed_draws(device, settings.seed + 1 + steps)  # what is dropped out follows the step, as the batch does
                in_tail = progress >= 1.0 - settings.full_precision_tail
                half = fast_bf16 and not in_tail
                model.fake_quantise(settings.fake_quantise and in_tail)
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    loss = negative_elbo(
                        model, x, noise, settings.kl_warmup.weight(progress), settings.free_bits.floor(progress)
                    )
                torch.clear_autocast_cache()  # of weights as they are now: within a caller's autocast it would stay
                value = loss.value
                for term in settings.terms:
                    value = term(value, trained)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                norm = float(global_norm(parameters))
                taken = gradient(parameters, steps) is not False
                steps += 1
                seconds = earlier + time.monotonic() - started
                record: dict[str, Any] = {
                    "step": steps,
                    "seconds": seconds,
                    "progress": progress,
                    "learning_rate": rate,
                }
                diverged = not math.isfinite(float(value.detach())) or (taken and not math.isfinite(norm))
                if diverged:
                    restarts += 1
                    if restarts > MAX_SETBACKS:
                        raise VaedensityError(
                            f"training diverged {restarts} times, last at step {steps}; lower the rate"
                        )
                    restore(good, model, average, optimizer, generator, gradient)
                    steps = good_steps
                    record |= {"event": f"non-finite loss: back to step {steps}, learning rate halved"}
                else:
                    record |= {
                        "bits_per_dim": float(loss.rate.detach() + loss.distortion.detach()),
                        "kl_bits_per_dim": float(loss.rate.detach()),
                    }
                    if taken:
                        optimizer.step()
                        average.update(model, steps)
                        record |= {"gradient_norm": norm, "implicit_penalty": rate / 4 * norm**2}
                    else:
                        record |= {"event": f"step {steps} skipped: gradient norm {norm:.3g}"}
                torn = False
                if steps % settings.validate_every == 0 and not diverged:
                    record |= {"valid_bits_per_dim": judge()}
                    good, good_steps = snapshot(), steps
                for observe in observers:
                    observe(record)
                if time.monotonic() - last_save > settings.save_every_seconds:
                    save()
                    last_save = time.monotonic()
            if stop.made:
                raise KeyboardInterrupt
        decline = judge() / best_rate
        save()
        model.fake_quantise(False)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(best[name])
        valid_rate = elbo_bits_per_dim(
            model.eval(), valid, batch_size=min(256, settings.batch_size), seed=settings.seed
        )
    except KeyboardInterrupt:
        if torn:
            restore(good, model, average, optimizer, generator, gradient)
            steps = good_steps
        if model.training:  # else all of it is saved
            save()
        where = f"state saved to {state_path}, go on with resume=True" if state_path else "nothing saved"
        raise Interrupted(f"interrupted at step {steps}; {where}") from None
    epochs = steps * min(settings.batch_size, len(train)) / len(train)
    return FitResult(model, steps, epochs, seconds, valid_rate, restarts, best_step, decline)


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed what draws without a generator of its own, on the processor and on ``device``."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def batch_at(train: np.ndarray, step: int, batch_size: int, seed: int) -> np.ndarray:
    """Items of the batch after ``step`` batches: epochs are permutations, a function of (seed, epoch)."""
    batch_size = min(batch_size, len(train))
    per_epoch = len(train) // batch_size
    epoch, position = divmod(step, per_epoch)
    order = _epoch_order(len(train), seed, epoch)
    return np.ascontiguousarray(train[np.sort(order[position * batch_size : (position + 1) * batch_size])])


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def _epoch_order(items: int, seed: int, epoch: int) -> np.ndarray:
    key = (items, seed, epoch)
    if key not in _orders:
        _orders.clear()
        _orders[key] = np.random.default_rng([seed, epoch]).permutation(items)
    return _orders[key]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is worth while: CUDA, and processors with native bfloat16 products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def elbo_bits_per_dim(model: Network, items: np.ndarray, *, batch_size: int = 256, seed: int = 0) -> float:
    """Mean -ELBO in bits per dimension of integers (N,C,H,W), one noise draw per item."""
    device = model.start.device
    generator = torch.Generator(device).manual_seed(seed)
    total = 0.0
    with torch.no_grad():
        for part in chunks(items, batch_size):
            x = torch.from_numpy(np.ascontiguousarray(part)).to(device)
            noise = torch.randn(len(x), model.noise_dim, generator=generator, dtype=torch.float32, device=device)
            total += float(negative_elbo(model, x, noise, 1.0).value) * len(x)
    return total / len(items)


def chunks(items: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _valid_rate(model: Network, average: WeightAverage, valid: np.ndarray, settings: FitSettings) -> float:
    averaged = copy.deepcopy(model)
    averaged.fake_quantise(False)  # one measure for all judgements, before the tail and in it
    average.load_into(averaged)
    return elbo_bits_per_dim(averaged.eval(), valid, batch_size=min(256, settings.batch_size), seed=settings.seed)
