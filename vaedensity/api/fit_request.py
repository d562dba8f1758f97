"""From what a user asks of a fit to the network and the settings of the run."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vaedensity import items
from vaedensity.errors import UsageError
from vaedensity.model.checkpoint import load_model
from vaedensity.model.config import PRESETS, preset_config
from vaedensity.model.kinds import Config
from vaedensity.model.released import resolve
from vaedensity.model.sequence_config import SEQUENCE_PRESETS, SequenceConfig, sequence_config
from vaedensity.training.gradients import ClipGlobalNorm, GradientTransform
from vaedensity.training.penalties import LossTerm
from vaedensity.training.schedule import FreeBits, KLWarmup, Length, WarmupCosine
from vaedensity.training.settings import FitSettings

DEFAULT_SECONDS = {"fast": 180.0, "tiny": 180.0, "small": 1200.0, "medium": 2400.0, "base": 7200.0}
RATES = {"fast": 4e-3, "tiny": 4e-3, "small": 2e-3, "medium": 2e-3, "base": 2e-3}
BATCH = 64  # images of a step
JUDGED_ITEMS = 2048  # at every judgement while training
# Of series:
SERIES_RATE = 8e-3
SERIES_BATCH = 1 << 13  # values of a step
JUDGED_VALUES = 1 << 18
FREE_SHARE = 0.125  # of the bits that latents can hold


@dataclass(frozen=True)
class FitRequest:
    """What to fit and how: the options of :func:`vaedensity.fit` and of ``vaedensity fit``.

    Parameters
    ----------
    preset : str
        Size of the network: "fast", "tiny", "small", "medium" or "base"; of series "tiny", "small" or "medium".
    kind : str, optional
        "image" or "sequence". None: what the data look like.
    likelihood : str, optional
        Of images with more than two values: "mixture" (None) or "categorical".
    noise : str, optional
        Of a sequence model's latents: "gumbel" (None), "exponential", "normal" or "uniform".
    steps, epochs, seconds : int, float, float, optional
        When the run ends, at most one of them. None: a time by preset (``DEFAULT_SECONDS``).
    device : str
        "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
    threads : int, optional
        Processor threads. None: as many as are worth while here now.
    seed : int
        Of initial weights, order of items, noise, and which items validate.
    valid_fraction : float
        Share of the items to validate on, between 0 and 1.
    batch_size : int, optional
        Items a step. None: 64 images, or about 2^13 values of series.
    rate : float, optional
        Peak learning rate. None: 0.002 for images (presets fast and tiny 0.004), 0.008 for series.
    optimizer : str
        "muon", "adam", "egdd" or "two-rate".
    terms, gradient, scales
        As in :class:`~vaedensity.training.settings.FitSettings`.
    init : str, optional
        A model file or released name whose weights to begin with.
    resume : bool
        Whether to go on with an interrupted run of the same options.
    overwrite : bool
        Whether to replace a model file.
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


def kind_of_network(request: FitRequest, array: NDArray[np.generic]) -> str:
    """ "image" or "sequence". Raises UsageError where the request asks of it what only the other one has."""
    kind = request.kind or items.kind_of(array)
    presets = SEQUENCE_PRESETS if kind == "sequence" else PRESETS
    if request.preset not in presets:
        raise UsageError(f"preset {request.preset!r}: expected {', '.join(presets)} for {kind}s")
    if kind == "sequence" and request.likelihood == "mixture":
        raise UsageError("likelihood mixture: the values of series have categories; leave it out")
    if kind != "sequence" and request.noise is not None:
        raise UsageError(
            f"noise {request.noise}: is of the latents of sequence models, this is one of images; leave it out"
        )
    return kind


def network_for(request: FitRequest, kind: str, item_shape: tuple[int, ...], levels: int) -> Config:
    """The network for items (C,H,W) of values 0..levels-1. Raises ValueError for items that none takes."""
    channels, height, width = item_shape
    if kind == "sequence":
        return sequence_config(request.preset, width, levels, request.noise or "gumbel")
    likelihood = "mixture" if levels == 2 else request.likelihood or "mixture"
    return preset_config(request.preset, (channels, height, width), levels, likelihood)


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


def settings_for(request: FitRequest, config: Config, items: int, device: str) -> FitSettings:
    """How to train the network on so many items."""
    series = isinstance(config, SequenceConfig)
    usual = max(1, min(BATCH, SERIES_BATCH // config.dims)) if series else BATCH
    batch_size = min(request.batch_size or usual, items)
    steps_per_epoch = items // batch_size
    kl_warmup, free_bits = KLWarmup(), FreeBits()
    if request.init is not None:  # what brings latents into use would throw a network that uses them back
        kl_warmup, free_bits = KLWarmup(fraction=0.0), FreeBits(0.0)
    elif isinstance(config, SequenceConfig):  # whose latents hold few bits
        share = FREE_SHARE * config.variables * math.log2(config.categories) / config.dims
        free_bits = FreeBits(min(free_bits.bits_per_dim, share))
    return FitSettings(
        run_length(request, steps_per_epoch),
        optimizer=request.optimizer,
        batch_size=batch_size,
        schedule=replace(WarmupCosine(), peak=request.rate or (SERIES_RATE if series else RATES[request.preset])),
        kl_warmup=kl_warmup,
        free_bits=free_bits,
        terms=request.terms,
        gradient=request.gradient,
        scales=request.scales,
        seed=request.seed,
        device=device,
        judged_items=max(1, min(JUDGED_ITEMS, JUDGED_VALUES // config.dims)) if series else JUDGED_ITEMS,
        validate_every=max(50, min(500, 2 * steps_per_epoch)),
    )


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


def split_validation(count: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted indices of training and validation items, at least one each."""
    if not 0 < fraction < 1:
        raise UsageError(f"valid_fraction {fraction}: expected a number between 0 and 1")
    if count < 2:
        raise UsageError(f"found {count} item; fit needs at least 2, one of them to validate on")
    order = np.random.default_rng(seed).permutation(count)
    held = min(count - 1, max(1, round(count * fraction)))
    return np.sort(order[held:]), np.sort(order[:held])
