"""Pixels in four sub-pixel phases, each seeing the phases before it: four parallel passes, whatever the size."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.model.config import VAEConfig
from vaedensity.model.lattice_conv import Grid, LatticeConv
from vaedensity.model.likelihood import likelihood_for
from vaedensity.model.residual import blocks

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # rows and columns of each 2x2 square, in coding order
RING = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))  # nearest first


def known_neighbours(phase: int, most: int) -> list[tuple[int, int]]:
    """At most ``most`` offsets (rows, columns) from a pixel of ``phase`` to adjacent pixels of earlier phases."""
    row, column = PHASES[phase]
    known = [(y, x) for y, x in RING if ((row + y) % 2, (column + x) % 2) in PHASES[:phase]]
    return known[:most]


class PhasedPixels(nn.Module):
    """The part of a network that predicts pixels from a stream at half resolution.

    A subclass calls :meth:`build_phases`, and sets ``exact`` once its tensors hold whole numbers.
    """

    config: VAEConfig
    exact: bool

    def build_phases(self, config: VAEConfig, act: Grid, pixel: Grid) -> None:
        """Add this part's layers for a stream of the finest level's width."""
        width = config.widths[-1]
        self.phase_activation = act
        self.likelihood = likelihood_for(config.levels, config.components, config.channels)
        self.center = config.levels // 2
        self.pixel_scale = 1.0 / pixel.unit
        self.neighbours = [known_neighbours(index, config.neighbours) for index in range(len(PHASES))]
        self.phase_blocks = nn.ModuleList([blocks(config.phase_blocks, width, act) for _ in PHASES])
        self.pixel_in = nn.ModuleList([LatticeConv(config.channels, width, 3, pixel, act.unit) for _ in PHASES[1:]])
        self.heads = nn.ModuleList()
        for around in self.neighbours:
            heads = nn.ModuleList()
            for unit, biases in self.likelihood.outputs(len(around)):
                head = LatticeConv(width, len(biases) * config.channels, 1, act, unit, gain=0.1)
                with torch.no_grad():
                    head.bias.copy_(torch.tensor(biases).repeat_interleave(config.channels))
                heads.append(head)
            self.heads.append(heads)

    def relu(self, h: Tensor) -> Tensor:
        # hardtanh is clamp with a backward pass in one kernel instead of three.
        act = self.phase_activation
        return F.hardtanh(h, 0, act.high if self.exact else act.high / act.unit)

    def center_pixels(self, x: Tensor) -> Tensor:
        """Integers 0..levels-1 to what the network reads: whole numbers around 0, or their real values."""
        x = x.float() - self.center
        return x if self.exact else x * self.pixel_scale

    def phase(self, index: int, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """(stream, parameters (B,P,C,r,c)) of the visible pixels of phase ``index``.

        ``image`` (B,C,H,W) holds the integers of earlier phases; what stands elsewhere is not read.
        """
        h = self.phase_blocks[index](h)
        (row, column), parts = PHASES[index], []
        rows, columns = len(range(row, image.shape[2], 2)), len(range(column, image.shape[3], 2))
        with torch.autocast(h.device.type, enabled=False):  # a mean to half a level needs more than bfloat16
            active = self.relu(h.float())
            for head in self.heads[index]:
                out = head(active)[..., :rows, :columns]
                parts.append(out.unflatten(1, (out.shape[1] // self.config.channels, self.config.channels)))
            around = self._values_around(index, image)
            parameters = self.likelihood.complete(torch.cat(parts, 1), around, self.exact)
        return h, parameters

    def _values_around(self, index: int, image: Tensor) -> Tensor | None:
        """Integers (B,N,C,r,c) of the known neighbours of phase ``index``; beyond the edge they are 0."""
        if not self.neighbours[index]:
            return None
        row, column = PHASES[index]
        framed = F.pad(image.float(), (1, 1, 1, 1))
        height, width = image.shape[2:]
        views = [framed[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in self.neighbours[index]]
        return torch.stack([view[:, :, row::2, column::2] for view in views], 1)

    def absorb_phase(self, index: int, h: Tensor, x: Tensor) -> Tensor:
        """The stream once the visible integers (B,C,r,c) of phase ``index`` are known."""
        x = self.center_pixels(x)
        below, right = h.shape[2] - x.shape[2], h.shape[3] - x.shape[3]
        if below or right:
            # Padding repeats the phase's own edge: the image's may belong to a phase not known yet.
            mode = "replicate" if x.shape[2] and x.shape[3] else "constant"
            x = F.pad(x, (0, right, 0, below), mode=mode)
        return h + self.pixel_in[index](x)

    def split_phases(self, x: Tensor) -> list[Tensor]:
        """The four phases (B,C,r,c) of items (B,C,H,W)."""
        return [x[:, :, row::2, column::2] for row, column in PHASES]

    def join_phases(self, parts: list[Tensor]) -> Tensor:
        """Undoes :meth:`split_phases`."""
        x = parts[0].new_empty(parts[0].shape[0], *self.config.item_shape)
        for part, view in zip(parts, self.split_phases(x)):
            view.copy_(part)
        return x

    def walk_phases(self, x: Tensor, h: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(parameters (B,P,C,r,c), integers (B,C,r,c)) of every phase of items ``x``."""
        parts = self.split_phases(x)
        for index, part in enumerate(parts):
            h, parameters = self.phase(index, h, x)
            yield parameters, part
            if index + 1 < len(parts):
                h = self.absorb_phase(index, h, part)

    def log_likelihood(self, x: Tensor, h: Tensor) -> Tensor:
        """log p(x|z) in nats (B,), given the stream after the last latent."""
        total: Tensor | float = 0.0
        for parameters, part in self.walk_phases(x, h):
            total = total + self.likelihood.log_prob(parameters, part).flatten(1).sum(1)
        assert isinstance(total, Tensor)
        return total

    def fill_phases(self, h: Tensor, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Items (B,C,H,W) uint8 whose values ``choose(phase, parameters)`` gives, each seeing those before."""
        image = torch.zeros(h.shape[0], *self.config.item_shape, dtype=torch.uint8, device=h.device)
        for index, view in enumerate(self.split_phases(image)):
            h, parameters = self.phase(index, h, image)
            view.copy_(choose(index, parameters))
            if index + 1 < len(PHASES):
                h = self.absorb_phase(index, h, view)
        return image
