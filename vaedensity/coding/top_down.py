"""The codecs of one batch of items under a hierarchical model: prior, posterior, likelihood."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vaedensity.coding.ans import Ints, Stacks
from vaedensity.coding.bits_back import BitsBack, Direct
from vaedensity.coding.codec import (
    ONE_DIGIT,
    Autoregressive,
    Codec,
    CodecOn,
    IntervalCodec,
    Popped,
    Pushable,
    Pushed,
    TableCodec,
)
from vaedensity.coding.coupled import CoupledBitsBack, Parts, QuantileCodec
from vaedensity.coding.escape import CentreFirst, EndsFirst
from vaedensity.coding.latent_table import HALF, CoarseGaussian, LatticeGaussian
from vaedensity.coding.pixel_table import MixtureTable, pixel_table

PASS_VALUES = 1 << 19  # values of items or particles in the network at once


class Network(Protocol):
    """What the codecs ask of an integer network: whole numbers in, whole numbers out."""

    latent_shapes: list[tuple[int, int, int]]
    config: Any

    def encode(self, x: Tensor) -> list[Tensor]: ...
    def top(self, batch: int) -> Tensor: ...
    def prior(self, level: int, h: Tensor) -> Any: ...
    def posterior(self, level: int, h: Tensor, features: Tensor, prior: Any) -> Any: ...
    def absorb_latent(self, level: int, h: Tensor, z: Tensor) -> Tensor: ...
    def begin_sub_images(self, h: Tensor) -> Any: ...
    def sub_image(self, index: int, streams: Any, image: Tensor) -> tuple[Any, Tensor]: ...
    def absorb_sub_image(self, index: int, streams: Any, image: Tensor) -> Any: ...
    def split_sub_images(self, x: Tensor) -> list[Tensor]: ...


class TopDownPass:
    """One top-down pass over B items, shared by all codecs of these items: streams and priors of each
    level are computed once, when the latents above are known."""

    def __init__(self, network: Network, batch: int):
        self.network, self.batch = network, batch
        self.streams: list[Tensor] = [network.top(batch)]
        self.latents: list[Ints] = []
        self.priors: list[Any] = []

    def prior(self, level: int) -> Any:
        if level == len(self.priors):
            self.priors.append(self.network.prior(level, self.streams[level]))
        return self.priors[level]

    def posterior(self, level: int, features: list[Tensor]) -> Any:
        return self.network.posterior(level, self.streams[level], features[level], self.prior(level))

    def absorb(self, level: int, z: Ints) -> None:
        if level < len(self.latents) and self.latents[level] is z:
            return
        del self.latents[level:], self.streams[level + 1 :], self.priors[level + 1 :]
        lattice = torch.from_numpy(z - HALF).float().view(self.batch, *self.network.latent_shapes[level])
        self.latents.append(z)
        self.streams.append(self.network.absorb_latent(level, self.streams[level], lattice))


def gaussian(statistics: Any) -> LatticeGaussian:
    return LatticeGaussian(statistics.mean.flatten(1), statistics.log2_scale.flatten(1))


class ItemCodec(Codec):
    """Codes items (B,C,H,W), uint8 tensors, one per stack, by bits-back or, with ``direct`` steps
    (per level int64 (1,n)), with latents on a coarse lattice that need no bits to begin with, or with
    several coupled ``particles``. ``ends_first``: as of :class:`PixelCodec`."""

    def __init__(
        self, network: Network, direct: list[Tensor] | None = None, particles: int = 1, ends_first: bool = False
    ):
        self.network, self.direct, self.particles, self.ends_first = network, direct, particles, ends_first
        self.levels = len(network.latent_shapes)
        self.latents = sum(c * h * w for c, h, w in network.latent_shapes)

    def push(self, stacks: Stacks, symbol: Tensor) -> None:
        self._codec(len(stacks)).push(stacks, symbol)

    def pop(self, stacks: Stacks) -> Tensor:
        x = self._codec(len(stacks)).pop(stacks)
        assert isinstance(x, Tensor)
        return x

    def _codec(self, batch: int) -> Codec:
        if self.particles > 1:
            at_once = max(1, PASS_VALUES // self.network.config.dims)
            return CoupledBitsBack(self.particles, self.latents, self._coupled_parts, at_once)
        top_down = TopDownPass(self.network, batch)
        prior, posterior, likelihood = self._parts(top_down, CentreFirst)
        if self.direct is None:
            return BitsBack(prior, posterior, likelihood)
        return Direct(prior, lambda x: self._point(top_down, x), likelihood)

    def _coupled_parts(self, items: int, particles: int) -> Parts:
        return self._parts(TopDownPass(self.network, items * particles), QuantileCodec, particles)

    def _parts(
        self,
        top_down: TopDownPass,
        under_posterior: Callable[[LatticeGaussian], CodecOn[Pushed, Popped]],
        copies: int = 1,
    ) -> tuple[IntervalCodec, Callable[[Any], CodecOn[Pushed, Popped]], Callable[[Any], IntervalCodec]]:
        """Codecs of the triple: prior, posterior given x, whose tables ``under_posterior`` codes, likelihood given z.
        The posterior is of so many consecutive ``copies`` of every item."""
        prior = self._latents(top_down, lambda level: self._prior(top_down, level))

        def posterior(x: Tensor) -> CodecOn[Pushed, Popped]:
            features = self.network.encode(x)
            if copies > 1:
                features = [f.repeat_interleave(copies, 0) for f in features]
            return self._latents(top_down, lambda level: under_posterior(gaussian(top_down.posterior(level, features))))

        def likelihood(z: list[Ints]) -> IntervalCodec:
            for level in range(self.levels):
                top_down.absorb(level, z[level])
            return PixelCodec(self.network, top_down.streams[-1], self.ends_first)

        return prior, posterior, likelihood

    def _latents(
        self, top_down: TopDownPass, codec: Callable[[int], CodecOn[Pushed, Popped]]
    ) -> CodecOn[Pushed, Popped]:
        def advance(level: int, state: None, z: Ints) -> None:
            top_down.absorb(level, z)

        return Autoregressive(self.levels, lambda: None, lambda level, _: codec(level), advance)

    def _prior(self, top_down: TopDownPass, level: int) -> IntervalCodec:
        if self.direct is not None:
            return TableCodec(self._coarse_prior(top_down, level))
        return CentreFirst(gaussian(top_down.prior(level)))

    def _coarse_prior(self, top_down: TopDownPass, level: int) -> CoarseGaussian:
        assert self.direct is not None
        return CoarseGaussian(gaussian(top_down.prior(level)), self.direct[level])

    def _point(self, top_down: TopDownPass, x: Tensor) -> list[Ints]:
        """Latents nearest to the posterior's mean among those the coarse prior can code."""
        features, z = self.network.encode(x), []
        for level in range(self.levels):
            coarse = self._coarse_prior(top_down, level)
            z.append(coarse.nearest(gaussian(top_down.posterior(level, features)).nearest()).numpy())
            top_down.absorb(level, z[level])
        return z


class PixelCodec(IntervalCodec):
    """p(x|z): sub-images in order, channels within a sub-image in order, given the stream of the latents.

    ``ends_first``: of mixtures of many levels, the lowest and the highest are coded before the others."""

    def __init__(self, network: Network, stream: Tensor, ends_first: bool = False):
        self.network, self.ends_first = network, ends_first
        config = network.config
        self.channels, self.levels, self.likelihood = config.channels, config.levels, config.likelihood

        def begin() -> _SubImageState:
            return _SubImageState(
                network.begin_sub_images(stream), torch.zeros(len(stream), *config.item_shape, dtype=torch.uint8)
            )

        self.sub_images = len(network.split_sub_images(torch.zeros(1, *config.item_shape)))
        self.codec = Autoregressive(self.sub_images * self.channels, begin, self._table, self._advance)

    def push(self, stacks: Pushable, symbol: Tensor) -> None:
        parts = [part.flatten(2).long() for part in self.network.split_sub_images(symbol)]
        self.codec.push(stacks, [part[:, c].numpy() for part in parts for c in range(self.channels)])

    def pop(self, stacks: Stacks) -> Tensor:
        flat = [torch.from_numpy(s) for s in self.codec.pop(stacks)]
        image = torch.zeros(len(stacks), *self.network.config.item_shape, dtype=torch.uint8)
        for i, view in enumerate(self.network.split_sub_images(image)):
            view.copy_(torch.stack(flat[i * self.channels : (i + 1) * self.channels], 1).view(view.shape))
        return image

    def _table(self, index: int, state: "_SubImageState") -> IntervalCodec:
        sub_image, channel = divmod(index, self.channels)
        if channel == 0:
            state.streams, state.parameters = self.network.sub_image(sub_image, state.streams, state.image)
            state.known = []
        assert state.parameters is not None
        table = pixel_table(state.parameters, channel, state.known, self.levels, self.likelihood)
        if self.ends_first and table.size > ONE_DIGIT and isinstance(table, MixtureTable):
            return EndsFirst(table)
        return TableCodec(table)

    def _advance(self, index: int, state: "_SubImageState", symbol: Ints) -> "_SubImageState":
        sub_image, channel = divmod(index, self.channels)
        state.known.append(torch.from_numpy(np.ascontiguousarray(symbol)))
        if channel == self.channels - 1 and sub_image < self.sub_images - 1:
            view = self.network.split_sub_images(state.image)[sub_image]
            view.copy_(torch.stack(state.known, 1).view(view.shape))
            state.streams = self.network.absorb_sub_image(sub_image, state.streams, state.image)
        return state


class _SubImageState:
    """Where a pass over the sub-images stands."""

    def __init__(self, streams: Any, image: Tensor):
        self.streams, self.image = streams, image
        self.parameters: Tensor | None = None
        self.known: list[Tensor] = []
