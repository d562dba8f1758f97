"""Pixels in four sub-images, or in seven from coarse to fine, each seeing those before it: so many parallel passes,
whatever the size."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.model.config import VAEConfig
from vaedensity.model.integer_conv import Grid, IntegerConv, blocks
from vaedensity.model.likelihood import likelihood_for

RING = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))  # nearest first


class SubImage(NamedTuple):
    """The pixels at rows ``row``, row + step, ... and columns ``column``, column + step, ..."""

    row: int
    column: int
    step: int

    def of(self, x: Tensor) -> Tensor:
        """This sub-image of ``x`` (...,H,W): a view (...,r,c)."""
        return x[..., self.row :: self.step, self.column :: self.step]


FOUR = (SubImage(0, 0, 2), SubImage(1, 1, 2), SubImage(0, 1, 2), SubImage(1, 0, 2))
SEVEN = (
    SubImage(0, 0, 4),
    SubImage(2, 2, 4),
    SubImage(0, 2, 4),
    SubImage(2, 0, 4),
    *FOUR[1:],
)  # the first of FOUR in four
SUB_IMAGES = {4: FOUR, 7: SEVEN}


def known_neighbours(sub_images: tuple[SubImage, ...], index: int, most: int) -> list[tuple[int, int]]:
    """At most ``most`` offsets (rows, columns) from a pixel of sub-image ``index`` to pixels of earlier sub-images.

    They are among the eight nearest places of its own grid and, between its rows and columns, of the next finer one.
    """
    me, known = sub_images[index], []
    for y, x in RING:
        y, x = y * me.step // 2, x * me.step // 2
        if any((me.row + y) % p.step == p.row and (me.column + x) % p.step == p.column for p in sub_images[:index]):
            known.append((y, x))
    return known[:most]


class SubImageStreams(NamedTuple):
    """Where a pass over the sub-images stands: the stream at half resolution, and at a quarter where seven need one."""

    fine: Tensor
    coarse: Tensor | None


class SubImagePixels(nn.Module):
    """The part of a network that predicts pixels, sub-image by sub-image, from a stream at half resolution.

    A subclass calls :meth:`build_sub_images`, and sets ``exact`` once its tensors hold whole numbers.
    """

    config: VAEConfig
    exact: bool

    def build_sub_images(self, config: VAEConfig, act: Grid, pixel: Grid) -> None:
        """Add this part's layers for a stream of the finest level's width."""
        width, coarse_width = config.widths[-1], config.widths[max(0, len(config.widths) - 2)]
        self.sub_image_activation = act
        # Models without neighbours are older than the bound and were trained without.
        self.likelihood = likelihood_for(
            config.levels, config.components, config.channels, config.neighbours > 0, config.likelihood
        )
        self.center = config.levels // 2
        self.pixel_scale = 1.0 / pixel.unit
        self.sub_images = SUB_IMAGES[config.sub_images]
        self.coarse_sub_images = len(self.sub_images) - 3 if len(self.sub_images) > 4 else 0
        self.neighbours = [known_neighbours(self.sub_images, i, config.neighbours) for i in range(len(self.sub_images))]
        self.sub_image_blocks, self.pixel_in, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, around in enumerate(self.neighbours):
            here = coarse_width if index < self.coarse_sub_images else width
            into = coarse_width if index < self.coarse_sub_images - 1 else width
            self.sub_image_blocks.append(blocks(config.sub_image_blocks, here, act))
            if index + 1 < len(self.sub_images):
                self.pixel_in.append(IntegerConv(config.channels, into, 3, pixel, act.unit))
            heads = nn.ModuleList()
            for unit, biases in self.likelihood.outputs(len(around)):
                head = IntegerConv(here, len(biases) * config.channels, 1, act, unit, gain=0.1)
                with torch.no_grad():
                    head.bias.copy_(torch.tensor(biases, dtype=torch.float32).repeat_interleave(config.channels))
                heads.append(head)
            self.heads.append(heads)
        if self.coarse_sub_images:
            self.to_coarse = IntegerConv(width, coarse_width, 3, act, act.unit, stride=2)
            self.from_coarse = IntegerConv(coarse_width, 4 * width, 1, act, act.unit, gain=0.5)

    def relu(self, h: Tensor) -> Tensor:
        # hardtanh is clamp with a backward pass in one kernel instead of three.
        act = self.sub_image_activation
        return F.hardtanh(h, 0, act.high if self.exact else act.high / act.unit)

    def center_pixels(self, x: Tensor) -> Tensor:
        """Integers 0..levels-1 to what the network reads: whole numbers around 0, or their real values."""
        x = x.float() - self.center
        return x if self.exact else x * self.pixel_scale

    def begin_sub_images(self, h: Tensor) -> SubImageStreams:
        """Where the pass begins, given the stream after the last latent."""
        return SubImageStreams(h, self.to_coarse(self.relu(h)) if self.coarse_sub_images else None)

    def sub_image(self, index: int, streams: SubImageStreams, image: Tensor) -> tuple[SubImageStreams, Tensor]:
        """(streams, parameters (B,P,C,r,c)) of the visible pixels of sub-image ``index``.

        ``image`` (B,C,H,W) holds the integers of earlier sub-images; what stands elsewhere is not read.
        """
        streams, outputs = self.sub_image_outputs(index, streams, image)
        with torch.autocast(outputs[0].device.type, enabled=False):
            around = self._values_around(index, image)
            return streams, self.likelihood.complete(torch.cat(outputs, 1), around, self.exact)

    def sub_image_outputs(
        self, index: int, streams: SubImageStreams, image: Tensor
    ) -> tuple[SubImageStreams, list[Tensor]]:
        """(streams, what each head says (B,Q,C,r,c)): parameters before :meth:`PixelLikelihood.complete`."""
        fine, coarse = streams
        if index < self.coarse_sub_images:
            assert coarse is not None
            h = coarse = self.sub_image_blocks[index](coarse)
        else:
            h = fine = self.sub_image_blocks[index](fine)
        parts, (rows, columns) = [], self.sub_images[index].of(image).shape[2:]
        with torch.autocast(h.device.type, enabled=False):  # a mean to half a level needs more than bfloat16
            active = self.relu(h.float())
            for head in cast(nn.ModuleList, self.heads[index]):
                out = head(active)[..., :rows, :columns]
                parts.append(out.unflatten(1, (out.shape[1] // self.config.channels, self.config.channels)))
        return SubImageStreams(fine, coarse), parts

    def _values_around(self, index: int, image: Tensor) -> Tensor | None:
        """Integers (B,N,C,r,c) of the known neighbours of sub-image ``index``; beyond the edge they are 0."""
        if not self.neighbours[index]:
            return None
        framed = F.pad(image.float(), (2, 2, 2, 2))
        height, width = image.shape[2:]
        views = [framed[:, :, 2 + y : 2 + y + height, 2 + x : 2 + x + width] for y, x in self.neighbours[index]]
        return torch.stack([self.sub_images[index].of(view) for view in views], 1)

    def absorb_sub_image(self, index: int, streams: SubImageStreams, image: Tensor) -> SubImageStreams:
        """The streams once the integers of sub-image ``index`` stand in ``image`` (B,C,H,W) too."""
        fine, coarse = streams
        if index < self.coarse_sub_images - 1:
            assert coarse is not None
            return SubImageStreams(fine, self._absorbed(index, coarse, self.sub_images[index].of(image)))
        if coarse is not None:  # all of the coarse grid is known: go on at half resolution
            fine = fine + F.pixel_shuffle(self.from_coarse(self.relu(coarse)), 2)
        seen = FOUR[0] if index < self.coarse_sub_images else self.sub_images[index]
        return SubImageStreams(self._absorbed(index, fine, seen.of(image)), None)

    def _absorbed(self, index: int, h: Tensor, values: Tensor) -> Tensor:
        x = self.center_pixels(values)
        below, right = h.shape[2] - x.shape[2], h.shape[3] - x.shape[3]
        if below or right:
            # Padding repeats the sub-image's own edge: the image's may belong to a sub-image not known yet.
            mode = "replicate" if x.shape[2] and x.shape[3] else "constant"
            x = F.pad(x, (0, right, 0, below), mode=mode)
        seen: Tensor = self.pixel_in[index](x)
        return h + seen

    def split_sub_images(self, x: Tensor) -> list[Tensor]:
        """The sub-images (B,C,r,c) of items (B,C,H,W), as views."""
        return [sub_image.of(x) for sub_image in self.sub_images]

    def walk_sub_images(self, x: Tensor, h: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(parameters (B,P,C,r,c), integers (B,C,r,c)) of every sub-image of items ``x``."""
        streams = self.begin_sub_images(h)
        for index, sub_image in enumerate(self.sub_images):
            streams, parameters = self.sub_image(index, streams, x)
            yield parameters, sub_image.of(x)
            if index + 1 < len(self.sub_images):
                streams = self.absorb_sub_image(index, streams, x)

    def log_likelihood(self, x: Tensor, h: Tensor) -> Tensor:
        """log p(x|z) in nats (B,), given the stream after the last latent."""
        total: Tensor | float = 0.0
        for parameters, part in self.walk_sub_images(x, h):
            total = total + self.likelihood.log_prob(parameters, part).flatten(1).sum(1)
        assert isinstance(total, Tensor)
        return total

    def fill_sub_images(self, h: Tensor, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Items (B,C,H,W) uint8 whose values ``choose(sub_image, parameters)`` gives, each seeing those before."""
        image = torch.zeros(h.shape[0], *self.config.item_shape, dtype=torch.uint8, device=h.device)
        streams = self.begin_sub_images(h)
        for index, sub_image in enumerate(self.sub_images):
            streams, parameters = self.sub_image(index, streams, image)
            sub_image.of(image).copy_(choose(index, parameters))
            if index + 1 < len(self.sub_images):
                streams = self.absorb_sub_image(index, streams, image)
        return image
