"""Pixels in four sub-pixel phases, or in seven from coarse to fine, each seeing the phases before it: so many
parallel passes, whatever the size."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaedensity.model.config import VAEConfig
from vaedensity.model.lattice_conv import Grid, LatticeConv
from vaedensity.model.likelihood import likelihood_for
from vaedensity.model.residual import blocks

RING = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))  # nearest first


class Phase(NamedTuple):
    """The pixels at rows ``row``, row + step, ... and columns ``column``, column + step, ..."""

    row: int
    column: int
    step: int

    def of(self, x: Tensor) -> Tensor:
        """This phase of ``x`` (...,H,W): a view (...,r,c)."""
        return x[..., self.row :: self.step, self.column :: self.step]


FOUR = (Phase(0, 0, 2), Phase(1, 1, 2), Phase(0, 1, 2), Phase(1, 0, 2))
SEVEN = (Phase(0, 0, 4), Phase(2, 2, 4), Phase(0, 2, 4), Phase(2, 0, 4), *FOUR[1:])  # the first of FOUR in four
PHASES = {4: FOUR, 7: SEVEN}


def known_neighbours(phases: tuple[Phase, ...], index: int, most: int) -> list[tuple[int, int]]:
    """At most ``most`` offsets (rows, columns) from a pixel of phase ``index`` to those of earlier phases among the
    eight nearest places of its own grid and, between its rows and columns, of the next finer one."""
    me, known = phases[index], []
    for y, x in RING:
        y, x = y * me.step // 2, x * me.step // 2
        if any((me.row + y) % p.step == p.row and (me.column + x) % p.step == p.column for p in phases[:index]):
            known.append((y, x))
    return known[:most]


class PhaseStreams(NamedTuple):
    """Where a pass over the phases stands: the stream at half resolution, and at a quarter where seven phases
    need one."""

    fine: Tensor
    coarse: Tensor | None


class PhasedPixels(nn.Module):
    """The part of a network that predicts pixels, phase by phase, from a stream at half resolution.

    A subclass calls :meth:`build_phases`, and sets ``exact`` once its tensors hold whole numbers.
    """

    config: VAEConfig
    exact: bool

    def build_phases(self, config: VAEConfig, act: Grid, pixel: Grid) -> None:
        """Add this part's layers for a stream of the finest level's width."""
        width, coarse_width = config.widths[-1], config.widths[max(0, len(config.widths) - 2)]
        self.phase_activation = act
        # Models without neighbours are older than the bound and were trained without.
        self.likelihood = likelihood_for(
            config.levels, config.components, config.channels, config.neighbours > 0, config.likelihood
        )
        self.center = config.levels // 2
        self.pixel_scale = 1.0 / pixel.unit
        self.phases = PHASES[config.phases]
        self.coarse_phases = len(self.phases) - 3 if len(self.phases) > 4 else 0
        self.neighbours = [known_neighbours(self.phases, i, config.neighbours) for i in range(len(self.phases))]
        self.phase_blocks, self.pixel_in, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, around in enumerate(self.neighbours):
            here = coarse_width if index < self.coarse_phases else width
            into = coarse_width if index < self.coarse_phases - 1 else width
            self.phase_blocks.append(blocks(config.phase_blocks, here, act))
            if index + 1 < len(self.phases):
                self.pixel_in.append(LatticeConv(config.channels, into, 3, pixel, act.unit))
            heads = nn.ModuleList()
            for unit, biases in self.likelihood.outputs(len(around)):
                head = LatticeConv(here, len(biases) * config.channels, 1, act, unit, gain=0.1)
                with torch.no_grad():
                    head.bias.copy_(torch.tensor(biases, dtype=torch.float32).repeat_interleave(config.channels))
                heads.append(head)
            self.heads.append(heads)
        if self.coarse_phases:
            self.to_coarse = LatticeConv(width, coarse_width, 3, act, act.unit, stride=2)
            self.from_coarse = LatticeConv(coarse_width, 4 * width, 1, act, act.unit, gain=0.5)

    def relu(self, h: Tensor) -> Tensor:
        # hardtanh is clamp with a backward pass in one kernel instead of three.
        act = self.phase_activation
        return F.hardtanh(h, 0, act.high if self.exact else act.high / act.unit)

    def center_pixels(self, x: Tensor) -> Tensor:
        """Integers 0..levels-1 to what the network reads: whole numbers around 0, or their real values."""
        x = x.float() - self.center
        return x if self.exact else x * self.pixel_scale

    def begin_phases(self, h: Tensor) -> PhaseStreams:
        """Where the pass begins, given the stream after the last latent."""
        return PhaseStreams(h, self.to_coarse(self.relu(h)) if self.coarse_phases else None)

    def phase(self, index: int, streams: PhaseStreams, image: Tensor) -> tuple[PhaseStreams, Tensor]:
        """(streams, parameters (B,P,C,r,c)) of the visible pixels of phase ``index``.

        ``image`` (B,C,H,W) holds the integers of earlier phases; what stands elsewhere is not read.
        """
        streams, outputs = self.phase_outputs(index, streams, image)
        with torch.autocast(outputs[0].device.type, enabled=False):
            around = self._values_around(index, image)
            return streams, self.likelihood.complete(torch.cat(outputs, 1), around, self.exact)

    def phase_outputs(self, index: int, streams: PhaseStreams, image: Tensor) -> tuple[PhaseStreams, list[Tensor]]:
        """(streams, what each head says (B,Q,C,r,c)): parameters before :meth:`PixelLikelihood.complete`."""
        fine, coarse = streams
        if index < self.coarse_phases:
            assert coarse is not None
            h = coarse = self.phase_blocks[index](coarse)
        else:
            h = fine = self.phase_blocks[index](fine)
        parts, (rows, columns) = [], self.phases[index].of(image).shape[2:]
        with torch.autocast(h.device.type, enabled=False):  # a mean to half a level needs more than bfloat16
            active = self.relu(h.float())
            for head in self.heads[index]:
                out = head(active)[..., :rows, :columns]
                parts.append(out.unflatten(1, (out.shape[1] // self.config.channels, self.config.channels)))
        return PhaseStreams(fine, coarse), parts

    def _values_around(self, index: int, image: Tensor) -> Tensor | None:
        """Integers (B,N,C,r,c) of the known neighbours of phase ``index``; beyond the edge they are 0."""
        if not self.neighbours[index]:
            return None
        framed = F.pad(image.float(), (2, 2, 2, 2))
        height, width = image.shape[2:]
        views = [framed[:, :, 2 + y : 2 + y + height, 2 + x : 2 + x + width] for y, x in self.neighbours[index]]
        return torch.stack([self.phases[index].of(view) for view in views], 1)

    def absorb_phase(self, index: int, streams: PhaseStreams, image: Tensor) -> PhaseStreams:
        """The streams once the integers of phase ``index`` stand in ``image`` (B,C,H,W) too."""
        fine, coarse = streams
        if index < self.coarse_phases - 1:
            assert coarse is not None
            return PhaseStreams(fine, self._absorbed(index, coarse, self.phases[index].of(image)))
        if coarse is not None:  # all of the coarse grid is known: go on at half resolution
            fine = fine + F.pixel_shuffle(self.from_coarse(self.relu(coarse)), 2)
        seen = FOUR[0] if index < self.coarse_phases else self.phases[index]
        return PhaseStreams(self._absorbed(index, fine, seen.of(image)), None)

    def _absorbed(self, index: int, h: Tensor, values: Tensor) -> Tensor:
        x = self.center_pixels(values)
        below, right = h.shape[2] - x.shape[2], h.shape[3] - x.shape[3]
        if below or right:
            # Padding repeats the phase's own edge: the image's may belong to a phase not known yet.
            mode = "replicate" if x.shape[2] and x.shape[3] else "constant"
            x = F.pad(x, (0, right, 0, below), mode=mode)
        return h + self.pixel_in[index](x)

    def split_phases(self, x: Tensor) -> list[Tensor]:
        """The phases (B,C,r,c) of items (B,C,H,W), as views."""
        return [phase.of(x) for phase in self.phases]

    def join_phases(self, parts: list[Tensor]) -> Tensor:
        """Undoes :meth:`split_phases`."""
        x = parts[0].new_empty(parts[0].shape[0], *self.config.item_shape)
        for part, view in zip(parts, self.split_phases(x)):
            view.copy_(part)
        return x

    def walk_phases(self, x: Tensor, h: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(parameters (B,P,C,r,c), integers (B,C,r,c)) of every phase of items ``x``."""
        streams = self.begin_phases(h)
        for index, phase in enumerate(self.phases):
            streams, parameters = self.phase(index, streams, x)
            yield parameters, phase.of(x)
            if index + 1 < len(self.phases):
                streams = self.absorb_phase(index, streams, x)

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
        streams = self.begin_phases(h)
        for index, phase in enumerate(self.phases):
            streams, parameters = self.phase(index, streams, image)
            phase.of(image).copy_(choose(index, parameters))
            if index + 1 < len(self.phases):
                streams = self.absorb_phase(index, streams, image)
        return image
