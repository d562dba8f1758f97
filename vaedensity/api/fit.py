"""Fit a model to a collection and write its file."""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity import __version__, items
from vaedensity.arithmetic import fresh_thread, torch_threads
from vaedensity.coding.quantise import coded_bits, quantise
from vaedensity.coding.stacks_choice import fastest_stacks
from vaedensity.data.atomic import refuse_existing
from vaedensity.errors import Interrupted, UsageError, VaedensityError
from vaedensity.model.checkpoint import load_model, save_model
from vaedensity.model.config import PRESETS, preset_config
from vaedensity.model.kinds import Config
from vaedensity.model.released import resolve
from vaedensity.model.sequence_config import SEQUENCE_PRESETS, SequenceConfig, sequence_config
from vaedensity.training.fit import FitResult, FitSettings, Observer
from vaedensity.training.fit import fit as fit_network
from vaedensity.training.gradients import ClipGlobalNorm, GradientTransform
from vaedensity.training.logs import JSONLines, TensorBoard
from vaedensity.training.schedule import FreeBits, KLWarmup, Length, WarmupCosine
from vaedensity.training.terms import LossTerm

WORTH_SAYING = 0.02  # growth of the rate on validation items since its best
DEFAULT_SECONDS = {"fast": 180.0, "tiny": 180.0, "small": 1200.0, "medium": 2400.0, "base": 7200.0}
CALIBRATION_ITEMS = 256
RATE_ITEMS = 1024
RATES, SERIES_RATE = {"fast": 4e-3, "tiny": 4e-3, "small": 2e-3, "medium": 2e-3, "base": 2e-3}, 8e-3
SERIES_BATCH = 1 << 13  # values of a step
FREE_SHARE = 0.125  # of the bits that latents can hold
JUDGED_VALUES = 1 << 18  # of series, at every judgement while training
CALIBRATION_VALUES, RATE_VALUES = 1 << 17, 1 << 19  # of series


@dataclass(frozen=True)
class FitRequest:
    """The options of ``vaedensity fit``; of steps, epochs and seconds at most one is set.

    ``terms`` act on the loss, ``gradient`` is applied before each step; ``scales`` are factors of the rate by patterns of parameter names.
    ``init``: a model whose weights to begin with. ``kind``: "image" or "sequence", or None: what the data look like. ``likelihood``: "mixture" (None) or
    "categorical", of images with more than two values; ``noise``: of a sequence model's latents, "gumbel" if None. ``batch_size`` and ``rate`` None:
    64 images or about 2^13 values of series, and 0.002 for images (small presets 0.004), 0.008 for series. ``threads``: as
    :func:`choose_threads` takes them.
    """

    preset: str = "small"
    kind: str | None = None
    likelihood: str | None = None
    noise: str | None = None
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    valid_fraction: float = 0.05
    batch_size: int | None = None
    rate: float | None = None
    optimizer: str = "muon"
    terms: tuple[LossTerm, ...] = ()
    gradient: GradientTransform = field(default_factory=ClipGlobalNorm)
    scales: Mapping[str, float] = field(default_factory=dict)
    init: str | None = None
    resume: bool = False
    overwrite: bool = False


def initial_weights(name: str | None, config: Config, values: list[int] | None) -> dict[str, Tensor] | None:
    """The weights of the model ``name`` (file or released). Raises UsageError where its network is another."""
    if name is None:
        return None
    file = load_model(resolve(name))
    found, wanted = asdict(file.config) | {"values": file.values}, asdict(config) | {"values": values}
    if other := [key for key in wanted if found.get(key) != wanted[key] and key != "unit"]:
        raise UsageError(
            f"init {name}: its network has {', '.join(f'{key} {found.get(key)}' for key in other)}; this fit "
            f"{', '.join(f'{key} {wanted[key]}' for key in other)}; choose its preset and data"
        )
    return dict(file.float_model().state_dict())


def pick_device(name: str) -> str:
    """``auto`` is CUDA where there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"device {name}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and (not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    return name


def state_path(model: Path) -> Path:
    return model.with_name(model.name + ".state")


def board_path(model: Path) -> Path:
    return model.with_name(model.name + ".tensorboard")


def metrics_path(model: Path) -> Path:
    return model.with_name(model.name + ".metrics.jsonl")


def beside(model: Path) -> tuple[Path, ...]:
    """What a run writes beside its model."""
    return state_path(model), metrics_path(model), board_path(model)


def split_validation(count: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted indices of training and validation items, at least one each."""
    if not 0 < fraction < 1:
        raise UsageError(f"valid_fraction {fraction}: expected a number between 0 and 1")
    if count < 2:
        raise UsageError(f"found {count} item; fit needs at least 2, one of them to validate on")
    order = np.random.default_rng(seed).permutation(count)
    held = min(count - 1, max(1, round(count * fraction)))
    return np.sort(order[held:]), np.sort(order[:held])


@fresh_thread()
def fit_model(
    array: NDArray[np.generic],
    source: str,
    out: Path,
    request: FitRequest = FitRequest(),
    *,
    observers: tuple[Observer, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fit to ``array`` of images, series or bytes and write the model file ``out``; returns the record of `fit --json`."""
    kind = request.kind or items.kind_of(array)
    series = kind == "sequence"
    if request.preset not in (presets := SEQUENCE_PRESETS if series else PRESETS):
        raise UsageError(f"preset {request.preset!r}: expected {', '.join(presets)} for {kind}s")
    if series and request.likelihood == "mixture":
        raise UsageError("likelihood mixture: the values of series have categories; leave it out")
    if not series and request.noise is not None:
        raise UsageError(
            f"noise {request.noise}: is of the latents of sequence models, this is one of images; leave it out"
        )
    refuse_existing(out, request.overwrite)
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder; make it first")
    if state_path(out).exists() and not request.resume and not request.overwrite:
        raise UsageError(
            f"{state_path(out)} holds an interrupted run; go on with resume=True, or pass overwrite=True to start anew"
        )
    refuse_existing(state_path(out), True)
    refuse_existing(metrics_path(out), request.overwrite or request.resume)
    device = pick_device(request.device)
    fastest_stacks()  # refuses a wrong wish before the work
    data = items.require_series(array, source) if series else items.require_items(array, source)
    levels, values = (256, None) if array.ndim == 1 else items.value_map(data)  # bytes may be any
    if values is not None:
        data, _ = items.apply_map(data, levels, values)
    train_at, valid_at = split_validation(len(data), request.valid_fraction, request.seed)
    train, valid = np.ascontiguousarray(data[train_at]), np.ascontiguousarray(data[valid_at])
    try:
        config: Config
        if series:
            config = sequence_config(request.preset, data.shape[3], levels, request.noise or "gumbel")
        else:
            likelihood = "mixture" if levels == 2 else request.likelihood or "mixture"
            config = preset_config(request.preset, data.shape[1:], levels, likelihood)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error
    initial = initial_weights(request.init, config, values)
    usual = max(1, min(64, SERIES_BATCH // config.dims)) if series else 64
    batch_size = min(request.batch_size or usual, len(train))
    length = run_length(request, len(train) // batch_size)
    settings = FitSettings(
        length,
        optimizer=request.optimizer,
        batch_size=batch_size,
        schedule=replace(WarmupCosine(), peak=request.rate or (SERIES_RATE if series else RATES[request.preset])),
        terms=request.terms,
        gradient=request.gradient,
        scales=request.scales,
        seed=request.seed,
        device=device,
        # What brings latents into use would throw a network that uses them back.
        **({} if initial is None else {"kl_warmup": KLWarmup(fraction=0.0), "free_bits": FreeBits(0.0)}),
        **(series_settings(config) if isinstance(config, SequenceConfig) and initial is None else {}),
        judged_items=max(1, min(2048, JUDGED_VALUES // config.dims)) if series else 2048,
        validate_every=max(50, min(500, 2 * (len(train) // batch_size))),
    )
    read_as = items.reading(array, data)
    say(f"{source}: read as {read_as}; {len(train)} to fit, {len(valid)} to validate, {levels} levels")
    read_as += items.doubt(array) if request.kind is None or not series else ""
    state = state_path(out)
    with ExitStack() as stack:
        stack.enter_context(torch_threads(request.threads))
        log = JSONLines(metrics_path(out), append=request.resume)
        stack.callback(log.close)
        listening: tuple[Observer, ...] = (log, *observers)
        try:
            board = TensorBoard(board_path(out))
            stack.callback(board.close)
            listening += (board,)
        except ImportError:
            pass  # an extra: vaedensity[tensorboard]
        result = fit_network(
            train,
            valid,
            config,
            settings,
            initial=initial,
            state_path=state,
            resume=request.resume,
            observers=listening,
        )
    if result.decline > 1 + WORTH_SAYING:
        say(
            f"validation was best at step {result.best_step} of {result.steps}, and {result.decline - 1:.0%} worse at the end: "
            "those weights are kept; fewer steps or a smaller preset will do, more items would help"
        )
    try:
        with torch_threads(request.threads):
            record = _finish(result, train, valid, values, source, out, device, request, say)
        return record | {"read_as": read_as, "best_step": result.best_step}
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted after training; state saved to {state}, finish with resume=True") from None


def _finish(
    result: FitResult,
    train: NDArray[np.uint8],
    valid: NDArray[np.uint8],
    values: list[int] | None,
    source: str,
    out: Path,
    device: str,
    request: FitRequest,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Lower the fitted model to integers and write its file."""
    say("quantising to integers")
    model = result.model.cpu()
    config = model.config
    try:
        few, more = CALIBRATION_ITEMS, RATE_ITEMS
        if isinstance(config, SequenceConfig):
            few, more = max(1, CALIBRATION_VALUES // config.dims), max(1, RATE_VALUES // config.dims)
        integers = quantise(model, torch.from_numpy(train[:: max(1, len(train) // few)][:few]))
        integer_rate = coded_bits(integers, torch.from_numpy(valid[:more])) / config.dims
    except ValueError as error:
        raise VaedensityError(f"{source}: the trained network cannot be quantised: {error}") from error
    card = {
        "name": out.stem,
        "preset": request.preset,
        "optimizer": request.optimizer,
        **({"init": request.init} if request.init else {}),
        "data": source,
        "train_items": len(train),
        "steps": result.steps,
        "epochs": round(result.epochs, 3),
        "seconds": round(result.seconds, 1),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "seed": request.seed,
        "valid_bits_per_dim": result.valid_bits_per_dim,
        "integer_bits_per_dim": integer_rate,
        "vaedensity": __version__,
        "torch": torch.__version__,
    }
    save_model(
        out,
        model,
        values,
        card,
        integers.kernels,
        integers.start,
        integers.config.unit,
        integers.direct_steps,
        overwrite=request.overwrite,
    )
    state_path(out).unlink(missing_ok=True)
    return {
        "steps": result.steps,
        "epochs": result.epochs,
        "seconds": result.seconds,
        "valid_bits_per_dim": result.valid_bits_per_dim,
        "integer_bits_per_dim": integer_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": card["device"],
        "model": str(out),
        "model_bytes": out.stat().st_size,
        "model_sha256": load_model(out).sha256,
        "restarts": result.restarts,
    }


def series_settings(config: SequenceConfig) -> dict[str, Any]:
    """What training a sequence model needs that images do not: a few bits at least for latents, which hold few."""
    bits = config.variables * math.log2(config.categories)
    return {"free_bits": FreeBits(min(FreeBits().bits_per_dim, FREE_SHARE * bits / config.dims))}


def run_length(request: FitRequest, steps_per_epoch: int) -> Length:
    """When the run ends. Raises UsageError where more than one limit is given or one makes no sense."""
    given = {"steps": request.steps, "epochs": request.epochs, "budget": request.seconds}
    set_ones = {name: value for name, value in given.items() if value is not None}
    if len(set_ones) > 1:
        raise UsageError(f"{' and '.join(set_ones)}: give one of them")
    if any(not value > 0 for value in set_ones.values()):
        raise UsageError(f"{next(iter(set_ones))}: expected more than 0")
    if request.epochs is not None:
        return Length(steps=max(1, round(request.epochs * steps_per_epoch)))
    if request.steps is not None:
        return Length(steps=request.steps)
    return Length(seconds=request.seconds if request.seconds is not None else DEFAULT_SECONDS[request.preset])


@fresh_thread()
def fit(x: NDArray[np.generic], out: str | Path, **options: Any) -> dict[str, Any]:
    """Fit a model to images ``x``, uint8 or bool, (N,H,W), (N,H,W,C) or (N,C,H,W) with C 1 or 3, or to
    series (N,T), uint8 or bool, or bytes (n,) uint8, which are cut into pieces. The record's ``read_as`` says which.

    ``options`` are the fields of :class:`FitRequest`: preset, steps, epochs or seconds, device, seed, threads,
    overwrite ... Writes the model file ``out`` and returns the record of ``vaedensity fit --json``.

    >>> fit(x, "digits.safetensors", preset="tiny", steps=300)                 # doctest: +SKIP
    """
    return fit_model(items.plain_array(x, "array"), "array", Path(out), FitRequest(**options))
