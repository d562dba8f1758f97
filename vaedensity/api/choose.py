"""Which model codes a collection, and whether particles are worth while."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import items
from vaedensity.archive import fallback
from vaedensity.archive.model_blocks import fits, layout_of
from vaedensity.coding.engine import CodingModel, coding_model
from vaedensity.coding.quantise import coded_bits
from vaedensity.data.collection import Collection
from vaedensity.data.tree import Tree
from vaedensity.model.checkpoint import load_model
from vaedensity.model.released import record_of, released, resolve

SAMPLE_ITEMS, LEAST_SAMPLE, SAMPLE_VALUES = 48, 16, 1 << 18
SAMPLE_BYTES = 1 << 20
SERIES_VALUES = 1 << 14  # that a sequence model codes to be judged: it goes through them one by one
HOPELESS = 1.2  # times another coder's rate on a first look, from which on there is no second one
TEXT, TEXT_SHARE = np.array([9, 10, 13, *range(32, 127)], np.uint8), 0.8
LEAST_GAIN = 0.0005  # share of the rate that particles must save to be used


def open_model(name: str) -> CodingModel:
    """The coding side of a model file or released model."""
    path = resolve(name)
    return coding_model(load_model(path), path.stem)


def groups_of(sources: Sequence[Collection | Tree]) -> dict[str, NDArray[Any]]:
    """All arrays that a model might code."""
    groups = [source.groups if isinstance(source, Tree) else source.arrays for source in sources]
    return {f"{i}/{name}": array for i, own in enumerate(groups) for name, array in own.items()}


def choose_model(arrays: dict[str, NDArray[Any]]) -> CodingModel | None:
    """The released model that codes a sample of the largest array smallest, if smaller than a fallback codec does.

    Models are ruled out by their shape, then by a first look at a few items; all looks together code few values."""
    known = [a for a in arrays.values() if items.layout_of(a) or items.series_layout(a) or _is_bytes(a)]
    if not known:
        return None
    array = max(known, key=lambda a: a.size)
    head = np.ascontiguousarray(array[: max(1, SAMPLE_BYTES // array[:1].nbytes)])
    best, best_rate = None, 8 * len(fallback.encode(head.tobytes())[1]) / head.size
    for path in released().values():
        config = record_of(path)["config"]
        series = config["kind"] == "sequence"
        if _is_bytes(array) and not (series and _is_text(head)):
            continue
        seen = items.pieces(array, config["length"])[0] if _is_bytes(array) else array
        shape = (1, 1, config["length"]) if series else (config["channels"], config["height"], config["width"])
        layout = items.series_layout(seen) if series else items.layout_of(seen)
        if layout is None or not len(seen) or items.to_items(seen[:1], layout).shape[1:] != shape:
            continue
        model = coding_model(load_model(path), path.stem)
        rate = _sampled_rate(model, seen, best_rate)
        if rate is not None and rate < best_rate:
            best, best_rate = model, rate
    return best


def _sampled_rate(model: CodingModel, array: NDArray[Any], rival_rate: float) -> float | None:
    """Bits per dimension of a few items; of fewer where they tell that it is not below ``rival_rate``. None where the
    model does not know their values."""
    levels = _sample_levels(model, array)
    if levels is None:
        return None
    most = max(1, (SERIES_VALUES if model.is_series else SAMPLE_VALUES) // model.integers.config.dims)
    for part in (levels[: max(1, most // 4)], levels[:most]):
        rate = coded_bits(model.integers, part) / model.integers.config.dims
        if rate > HOPELESS * rival_rate:
            break
    return rate


def _is_text(head: NDArray[Any]) -> bool:
    """Whether bytes are mostly those of text, which the released models of series know."""
    return bool(np.isin(head, TEXT).mean() > TEXT_SHARE)


def _is_bytes(array: NDArray[Any]) -> bool:
    return array.ndim == 1 and array.dtype == np.uint8 and array.size > 0


def is_released(model: CodingModel) -> bool:
    """Whether ``model`` is one of those that come with the package."""
    paths = sorted(released().values(), key=lambda path: path.stem != model.name)
    return any(load_model(path).sha256 == model.sha256 for path in paths)


def worthwhile(
    particles: int, model: CodingModel | None, arrays: dict[str, NDArray[Any]], say: Callable[[str], None]
) -> int:
    """``particles``, or 1 where they gain nothing."""
    if model is None:
        say(f"{particles} particles gain nothing without a model: one is used")
        return 1
    if model.is_series:
        say(f"{particles} particles need latents that are numbers, those of {model.name} are categories: one is used")
        return 1
    array = max((a for a in arrays.values() if fits(model, a)), key=len)
    one, many = particle_gain(model, array, particles)
    if not one:
        say(f"{particles} particles gain nothing: {model.name} does not know all values of a sample; one is used")
        return 1
    if many > one * (1 - LEAST_GAIN):
        rates = f"{one:.4f} bits/dim, {many:.4f} with them"
        say(f"{particles} particles gain nothing with {model.name} ({rates}): one is used")
        return 1
    return particles


def particle_gain(model: CodingModel, array: NDArray[Any], particles: int) -> tuple[float, float]:
    """Bits per dimension that a sample of ``array`` takes with one particle and with so many; both 0 where the
    model does not know the sample's values."""
    levels = _sample_levels(model, array)
    if levels is None:
        return 0.0, 0.0
    one, many = (coded_bits(model.integers, levels, particles=k) / levels[0].numel() for k in (1, particles))
    return one, many


def _sample_levels(model: CodingModel, array: NDArray[Any]) -> torch.Tensor | None:
    """A few items of ``array`` as the model's levels; None where it does not know their values."""
    layout = layout_of(model, array)
    assert layout is not None
    most = max(LEAST_SAMPLE, min(SAMPLE_ITEMS, SAMPLE_VALUES // model.integers.config.dims))
    sample = array[:: max(1, len(array) // most)][:most]
    levels, known = items.apply_map(items.to_items(sample, layout), model.integers.config.levels, model.values)
    return torch.from_numpy(np.array(levels)) if known.all() else None
