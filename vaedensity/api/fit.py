"""Fit a model to a collection and write its file."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import __version__, items
from vaedensity.api.fit_request import (
    FitRequest,
    initial_weights,
    kind_of_network,
    network_for,
    settings_for,
    split_validation,
)
from vaedensity.arithmetic import fresh_thread, torch_threads
from vaedensity.coding.quantise import IntegerNetwork, coded_bits, quantise
from vaedensity.coding.stacks_choice import fastest_stacks
from vaedensity.data.atomic import refuse_existing
from vaedensity.errors import Interrupted, UsageError, VaedensityError
from vaedensity.model.checkpoint import load_model, save_model
from vaedensity.model.kinds import Network
from vaedensity.model.sequence_config import SequenceConfig
from vaedensity.training.fit import Observer
from vaedensity.training.fit import fit as fit_network
from vaedensity.training.logs import JSONLines, TensorBoard

WORTH_SAYING = 0.02  # growth of the rate on validation items since its best
CALIBRATION_ITEMS, RATE_ITEMS = 256, 1024
CALIBRATION_VALUES, RATE_VALUES = 1 << 17, 1 << 19  # of series


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a fit has made.

    Parameters
    ----------
    steps, epochs, seconds : int, float, float
        How long the network was trained.
    valid_bits_per_dim : float
        -ELBO of the real network on the validation items.
    integer_bits_per_dim : float
        What the integer network needs for (the first 1024 of) them.
    parameters : int
        Of the network.
    device : str
        What it was trained on.
    model : Path
        The file.
    model_bytes, model_sha256 : int, str
        Its size, and what the model is known by.
    restarts : int
        How often the run diverged and stepped back.
    read_as : str
        What the data were taken for, in words.
    best_step : int
        The step whose averaged weights were best on the validation items, and are kept.
    """

    steps: int
    epochs: float
    seconds: float
    valid_bits_per_dim: float
    integer_bits_per_dim: float
    parameters: int
    device: str
    model: Path
    model_bytes: int
    model_sha256: str
    restarts: int
    read_as: str
    best_step: int


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
    """The saved run of a model that is being fitted."""
    return model.with_name(model.name + ".state")


def metrics_path(model: Path) -> Path:
    """The log of its run, JSON lines."""
    return model.with_name(model.name + ".metrics.jsonl")


def board_path(model: Path) -> Path:
    """The log of its run for TensorBoard."""
    return model.with_name(model.name + ".tensorboard")


def beside(model: Path) -> tuple[Path, ...]:
    """What a run writes beside its model."""
    return state_path(model), metrics_path(model), board_path(model)


@fresh_thread()
def fit_model(
    array: NDArray[np.generic],
    source: str,
    out: Path,
    request: FitRequest = FitRequest(),
    *,
    observers: tuple[Observer, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """Fit to ``array`` of images, series or bytes, which messages call ``source``, and write the model file ``out``.

    ``observers`` are called after every step (see :func:`vaedensity.training.fit.fit`), ``say`` with remarks.
    """
    kind = kind_of_network(request, array)
    _check_places(out, request)
    device = pick_device(request.device)
    fastest_stacks()  # refuses a wrong wish before the work
    data = items.require_series(array, source) if kind == "sequence" else items.require_items(array, source)
    read_as = items.reading(array, data)
    levels, values = (256, None) if array.ndim == 1 else items.value_map(data)  # bytes may be any
    if values is not None:
        data, _ = items.apply_map(data, levels, values)
    train_at, valid_at = split_validation(len(data), request.valid_fraction, request.seed)
    train, valid = np.ascontiguousarray(data[train_at]), np.ascontiguousarray(data[valid_at])
    try:
        config = network_for(request, kind, data.shape[1:], levels)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error
    initial = initial_weights(request.init, config, values)
    settings = settings_for(request, config, len(train), device)
    say(f"{source}: read as {read_as}; {len(train)} to fit, {len(valid)} to validate, {levels} levels")
    state = state_path(out)
    with torch_threads(request.threads):
        with ExitStack() as stack:
            listening = [*_logs(out, request, stack), *observers]
            result = fit_network(
                train,
                valid,
                config,
                settings,
                initial=initial,
                state_path=state,
                resume=request.resume,
                observers=tuple(listening),
            )
        if result.decline > 1 + WORTH_SAYING:
            say(
                f"validation was best at step {result.best_step} of {result.steps}, and {result.decline - 1:.0%} worse "
                "at the end: those weights are kept; fewer steps or a smaller preset will do, more items would help"
            )
        try:
            say("quantising to integers")
            model = result.model.cpu()
            integers, integer_rate = _quantised(model, train, valid, source)
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
            sha256 = load_model(out).sha256
            state.unlink(missing_ok=True)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted after training; state saved to {state}, finish with resume=True") from None
    return Fitted(
        steps=result.steps,
        epochs=result.epochs,
        seconds=result.seconds,
        valid_bits_per_dim=result.valid_bits_per_dim,
        integer_bits_per_dim=integer_rate,
        parameters=sum(p.numel() for p in model.parameters()),
        device=str(card["device"]),
        model=out,
        model_bytes=out.stat().st_size,
        model_sha256=sha256,
        restarts=result.restarts,
        read_as=read_as + (items.doubt(array) if request.kind is None or kind == "image" else ""),
        best_step=result.best_step,
    )


def _check_places(out: Path, request: FitRequest) -> None:
    """Raise before the work where the model, its state or its log could not be written."""
    refuse_existing(out, request.overwrite)
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder; make it first")
    if state_path(out).exists() and not request.resume and not request.overwrite:
        raise UsageError(
            f"{state_path(out)} holds an interrupted run; go on with resume=True, or pass overwrite=True to start anew"
        )
    refuse_existing(state_path(out), True)
    refuse_existing(metrics_path(out), request.overwrite or request.resume)


def _logs(out: Path, request: FitRequest, stack: ExitStack) -> list[Observer]:
    """The logs of a run, which ``stack`` closes."""
    lines = JSONLines(metrics_path(out), append=request.resume)
    stack.callback(lines.close)
    logs: list[Observer] = [lines]
    with suppress(ImportError):  # an extra: vaedensity[tensorboard]
        board = TensorBoard(board_path(out))
        stack.callback(board.close)
        logs.append(board)
    return logs


def _quantised(
    model: Network, train: NDArray[np.uint8], valid: NDArray[np.uint8], source: str
) -> tuple[IntegerNetwork, float]:
    """The integer network made of ``model``, and its bits per dimension on validation items."""
    dims, few, more = model.config.dims, CALIBRATION_ITEMS, RATE_ITEMS
    if isinstance(model.config, SequenceConfig):
        few, more = max(1, CALIBRATION_VALUES // dims), max(1, RATE_VALUES // dims)
    try:
        integers = quantise(model, torch.from_numpy(train[:: max(1, len(train) // few)][:few]))
        return integers, coded_bits(integers, torch.from_numpy(valid[:more])) / dims
    except ValueError as error:
        raise VaedensityError(f"{source}: the trained network cannot be quantised: {error}") from error


@fresh_thread()
def fit(x: NDArray[np.generic], out: str | Path, **options: Any) -> Fitted:
    """Fit a VAE to an array and write its model file.

    Parameters
    ----------
    x : array of uint8 or bool
        Images (N,H,W), (N,H,W,C) or (N,C,H,W) with C 1 or 3; series (N,T); or bytes (n,) uint8, which are cut into
        pieces.
    out : str or Path
        The model file to write. A log ``*.metrics.jsonl`` lies beside it, and while it runs ``*.state``.
    **options
        Fields of :class:`~vaedensity.api.fit_request.FitRequest`: preset, steps, epochs or seconds, device, seed,
        threads, overwrite and others.

    Returns
    -------
    Fitted
        Its ``read_as`` says what the data were taken for.

    Raises
    ------
    UsageError
        For data or options that cannot be used, and a file that exists.
    VaedensityError
        Where the run diverges again and again, or the file cannot be written.
    Interrupted
        On Ctrl-C; the run is saved, and ``resume=True`` goes on with it.

    Examples
    --------
    >>> import tempfile, vaedensity as vd
    >>> path = tempfile.mkdtemp() + "/digits.safetensors"
    >>> fitted = vd.fit(vd.load_digits()[:80], path, preset="fast", steps=2, device="cpu")
    >>> fitted.steps, fitted.parameters, fitted.read_as
    (2, 23320, '80 grey images of 8x8')
    """
    return fit_model(items.plain_array(x, "array"), "array", Path(out), FitRequest(**options))
