"""Chains of items of a model, decoded in lockstep without torch (docs/format.md, "Chains").

The container finds a model's blocks in an archive, checks them and splits off their plans; what it hands over here is
the words of each chain. What comes back are the model's levels, item after item.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import ModelError
from vaedensity.numpy_decoder import probe, tables
from vaedensity.numpy_decoder.images import ImageCoder
from vaedensity.numpy_decoder.model_file import Model, parse_model, read_model
from vaedensity.numpy_decoder.network import Network
from vaedensity.numpy_decoder.series import SeriesCoder, SeriesNetwork
from vaedensity.numpy_decoder.stacks import Stacks

Items = NDArray[np.uint8]
Pop = Callable[[Stacks, int], Items]
CHAINS, VALUES = 64, 1 << 18  # most chains in lockstep, and most values of one item of each of them


class Way(Protocol):
    """How a model's blocks are coded: ``particles`` above 1 are coupled; ``ends_first`` of the codes of pixels."""

    @property
    def particles(self) -> int: ...
    @property
    def ends_first(self) -> bool: ...


class NumpyDecoder:
    """A model ready to decode chains of its items.

    Parameters
    ----------
    model
        What :func:`~vaedensity.numpy_decoder.model_file.read_model` has found in a model file.
    name
        What messages call the model.

    Raises
    ------
    ModelError
        The model's integers do not fit its configuration, or sums of them could leave those that float32 holds exactly.
    """

    def __init__(self, model: Model, name: str):
        self.name, self.sha256, self.values = name, model.sha256, model.values
        self.item_shape, self.is_series = model.item_shape, model.is_series
        try:
            self.network = SeriesNetwork(model) if model.is_series else Network(model)
        except ValueError as error:
            raise ModelError(f"{model.path}: its integer network is not usable ({error}); fit again") from error
        self.latents = self.network.latents

    @cached_property
    def probe(self) -> str:
        """What this machine makes of the fixed question of docs/format.md, "Probe": 16 hexadecimal digits."""
        return probe.answer(self.network)

    def prepare(self) -> None:
        """Build the integer tables, so that forked processes share them."""
        tables.weights_and_log_odds()
        tables.log2_and_power()
        if not self.is_series:
            tables.gaussian()
            tables.logistic()
        elif (noise := self.network.config["noise"]) != "gumbel":
            tables.noise(noise)

    def chains_at_once(self, way: Way) -> int:
        """How many chains to decode in lockstep, so that the network's maps stay small."""
        return max(1, min(CHAINS, VALUES // int(np.prod(self.item_shape))) // way.particles)

    def decode(
        self,
        words: Sequence[bytes],
        lengths: Sequence[int],
        plan: Sequence[Sequence[int]],
        way: Way,
        tick: Callable[[int], None],
    ) -> list[Items]:
        """The items of chains that share one plan, decoded in lockstep.

        Parameters
        ----------
        words
            Of each chain, its stack as 32-bit words, little-endian.
        lengths
            Of each chain, its number of items; longest first.
        plan
            Numbers of the items coded directly and, of coupled chains, of those coded by bits-back.
        way
            How all other items are coded, and pixels.
        tick
            Is told of every step how many items it gave.

        Returns
        -------
        list of arrays (n,C,H,W) of uint8
            The model's levels of each chain's items.

        Raises
        ------
        ValueError
            The words cannot be those of such items, or bits are left over after an item 0.
        """
        stacks = Stacks(words)
        *fallback, best = self._pops(way)
        if len(plan) != len(fallback):
            raise ValueError(f"a plan of {len(plan)} lists, expected {len(fallback)}")
        pops = {t: pop for items, pop in zip(plan, fallback) for t in items}
        out = [np.empty((n, *self.item_shape), np.uint8) for n in lengths]
        for t in reversed(range(max(lengths, default=0))):
            active = sum(n > t for n in lengths)
            for chain, item in zip(out, pops.get(t, best)(stacks, active)):
                chain[t] = item
            tick(active)
        if not stacks.are_empty():
            raise ValueError("bits are left over after the first item")
        return out

    def _pops(self, way: Way) -> list[Pop]:
        """What pops an item of each chain, the best way last. Raises ValueError."""
        if isinstance(self.network, SeriesNetwork):
            if way.particles > 1:
                raise ValueError(f"{way.particles} particles of series")
            series = SeriesCoder(self.network)
            return [series.pop_direct, series.pop_bits_back]
        images = ImageCoder(self.network, way.particles, way.ends_first)
        coupled: list[Pop] = [images.pop_coupled] if way.particles > 1 else []
        return [images.pop_direct, images.pop_bits_back, *coupled]


def load_decoder(path: Path) -> NumpyDecoder:
    """The decoder of a model file.

    Parameters
    ----------
    path
        A model file, as ``vaedensity.fit`` writes it.

    Returns
    -------
    NumpyDecoder
        Its ``name`` is that of the file, without the suffix.

    Raises
    ------
    ModelError
        The file cannot be read, is no model's, or does not compute exactly.
    """
    return NumpyDecoder(read_model(path), path.stem)


def parse_decoder(data: bytes, name: str, path: Path) -> NumpyDecoder:
    """The decoder of a model file's bytes that an archive holds.

    Parameters
    ----------
    data
        The bytes.
    name
        What messages call the model.
    path
        The archive's, for messages.

    Returns
    -------
    NumpyDecoder

    Raises
    ------
    ModelError
        The bytes are no model file, or it does not compute exactly.
    """
    return NumpyDecoder(parse_model(data, path), name)
