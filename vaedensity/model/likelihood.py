"""Pixel likelihoods: exact probability mass functions over the integers 0..levels-1.

A likelihood names its parameters per pixel and channel and their fixed-point units; the coder reads the same parameters
as integers (``coding/pixel_table.py`` holds the integer twin).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vaedensity.model.integer_conv import Grid
from vaedensity.units import LN2

COLOR_UNIT = 64.0
COLOR_LIMIT = 4096.0
MEAN_REACH = 2040  # steps of 2^-11 of the range by which a mean may be off the middle
NUMBERS_A_VALUE = 2  # uniform numbers from which one value is drawn
MOST_VALUES = 1 << 13  # whose reshaped distributions are in memory at once
Reshape = Callable[[Tensor], Tensor]
"""Log-probabilities (...,levels) in nats to others of the same shape."""


class PixelLikelihood(ABC):
    """p(x | parameters) over integers 0..levels-1, independent given the parameters."""

    levels: int

    @abstractmethod
    def outputs(self, neighbours: int = 0) -> list[tuple[float, list[float]]]:
        """Runs of network outputs per pixel and channel, where ``neighbours`` values nearby are known.

        Each is the fixed-point unit (the quantised network's integer k stands for k / unit) and where outputs start.
        """

    def complete(self, outputs: Tensor, neighbours: Tensor | None, exact: bool) -> Tensor:
        """The parameters (B,P,C,h,w) that follow from network outputs (B,Q,C,h,w) and the integers (B,N,C,h,w)
        of known neighbours; ``exact``: outputs are whole numbers, and so are the parameters."""
        return outputs

    @abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log-probability in nats (B,C,h,w) of integers ``x`` (B,C,h,w) under (B,P,C,h,w)."""

    @abstractmethod
    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """Integers (B,C,h,w) uint8 drawn with ``uniform`` (B,2C,h,w) in (0, 1) under (B,P,C,h,w)."""

    @abstractmethod
    def expect(self, parameters: Tensor) -> Tensor:
        """The mean of the components' locations as integers (B,C,h,w) uint8; of values without order the likeliest."""


class LogisticMixture(PixelLikelihood):
    """Mixture of logistics integrated over unit bins, open at both ends (Salimans et al. 2017, eq. 2).

    Parameters of ``components`` logistics: logits in octaves, means, log2 scales; with three channels also the weights
    of red and green in the means of later channels (ibid., eq. 3). ``bounded``: means stay where the coder's tables
    reach, which costs nothing if training knows it.
    """

    def __init__(self, levels: int, components: int, channels: int, bounded: bool = False):
        self.levels, self.components, self.channels = levels, components, channels
        bits = (levels - 1).bit_length()
        self.exponent = pixel_exponent(levels)
        self.center = levels // 2
        self.low_log2_scale, self.start_log2_scale, self.high_log2_scale = bits - 11.0, bits - 4.0, bits - 2.0
        self.steps_per_level = 2 ** (11 - bits)  # means and scales count in 2^-11 of the range
        self.reach = MEAN_REACH / (self.steps_per_level * 2**self.exponent) if bounded else math.inf

    def outputs(self, neighbours: int = 0) -> list[tuple[float, list[float]]]:
        k, all_k = self.components, self.components + neighbours
        mean_unit = float(self.steps_per_level * 2**self.exponent)
        means = [4.0 * (j + 0.5) / k - 2.0 for j in range(k)]
        color = [(COLOR_UNIT, [0.0] * (2 * all_k))] if self.channels == 3 else []
        return [(16.0, [0.0] * k + [-2.0] * neighbours), (mean_unit, means), (8.0, [0.0] * all_k), *color]

    def complete(self, outputs: Tensor, neighbours: Tensor | None, exact: bool) -> Tensor:
        """Append one component per known neighbour, whose mean is the neighbour's value, and count the means of the
        last half of the other components from the mean of the nearest four.

        With three channels the mean of green is g' + a (r - r'), primes denoting the neighbour's values; so with blue.
        """
        if neighbours is None:
            return outputs
        k, n = self.components, neighbours.shape[1]
        sizes = [k + n, k, k + n] + ([k + n, k + n] if self.channels == 3 else [])
        logits, means, scales, *color = outputs.split(sizes, 1)
        values = (neighbours - self.center) * (self.steps_per_level if exact else 2.0**-self.exponent)
        nearest = 1 << min(2, n.bit_length() - 1)  # a power of two: the quotient is a whole number of steps
        average = values[:, :nearest].sum(1, keepdim=True) / nearest
        near = torch.cat([average.expand(-1, k // 2, -1, -1, -1), values], 1)
        shifts = near.clone()
        for c in range(1, len(color) + 1):  # take away what the colour terms will add for the values nearby
            for earlier, weight in enumerate(color[:c]):
                w, seen = weight[:, k - k // 2 :, c], near[:, :, earlier]
                shifts[:, :, c] -= exact_colour_term(w, seen) if exact else w * seen
        means = torch.cat([means, torch.zeros_like(values)], 1)
        means = torch.cat([means[:, : k - k // 2], means[:, k - k // 2 :] + shifts], 1)
        return torch.cat([logits, means, scales, *color], 1)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Log-weights, means (in network units), log2 scales (in levels), and color weights."""
        kinds = 5 if self.channels == 3 else 3
        logits, means, log2_scales, *color = parameters.float().chunk(kinds, dim=1)
        log2_scales = (log2_scales + self.start_log2_scale).clamp(self.low_log2_scale, self.high_log2_scale)
        return torch.log_softmax(logits * LN2, dim=1), means, log2_scales, color

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        log_weights, means, log2_scales, color = self._split(parameters)
        inverse = torch.exp2(-log2_scales)
        x = x.unsqueeze(1).float()
        if color:
            red, green = ((x[:, :, c] - self.center) * 2.0**-self.exponent for c in (0, 1))
            means = means.clone()
            means[:, :, 1] += color[0][:, :, 1] * red
            means[:, :, 2] += color[0][:, :, 2] * red + color[1][:, :, 2] * green
        means = means.clamp(-self.reach, self.reach)
        middle = (x - self.center - means * 2.0**self.exponent) * inverse
        # F(x + 1/2) - F(x - 1/2) = s(u) s(-l) (1 - e^{l-u}), with u, l the scaled bin edges.
        below = F.logsigmoid(middle + 0.5 * inverse)
        above = F.logsigmoid(0.5 * inverse - middle)
        log_mass = below.masked_fill(x == self.levels - 1, 0.0) + above.masked_fill(x == 0, 0.0)
        inside = (x > 0) & (x < self.levels - 1)
        log_mass = log_mass + torch.where(inside, torch.log(-torch.expm1(-inverse)), 0.0)
        return torch.logsumexp(log_weights + log_mass, dim=1)

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        pick, position = uniform.split(self.channels, dim=1)
        log_weights, means, log2_scales, color = self._split(parameters)
        below = log_weights.exp().cumsum(1)[:, :-1]
        component = (pick.unsqueeze(1) >= below).sum(1, keepdim=True)
        means, log2_scales, *color = (p.gather(1, component) for p in (means, log2_scales, *color))
        noise = torch.logit(position) * torch.exp2(log2_scales[:, 0])
        return self._by_channel(means, color, torch.ones_like(means), noise)

    def expect(self, parameters: Tensor) -> Tensor:
        log_weights, means, _, color = self._split(parameters)
        return self._by_channel(means, color, log_weights.exp(), torch.zeros_like(means[:, 0]))

    def _by_channel(self, means: Tensor, color: list[Tensor], weights: Tensor, noise: Tensor) -> Tensor:
        """Weighted means plus ``noise`` (levels) to integers, channel by channel: later means see earlier values."""
        values: list[Tensor] = []
        for c in range(self.channels):
            mean = means[:, :, c]
            for seen, weight in zip(values, color[:1] if c == 1 else color):
                mean = mean + weight[:, :, c] * ((seen - self.center) * 2.0**-self.exponent).unsqueeze(1)
            mean = mean.clamp(-self.reach, self.reach)
            level = self.center + (weights[:, :, c] * mean).sum(1) * 2.0**self.exponent + noise[:, c]
            values.append(level.round().clamp(0, self.levels - 1))
        return torch.stack(values, 1).to(torch.uint8)


class Bernoulli(PixelLikelihood):
    """Two-valued data: one parameter, the log2 odds of the value 1."""

    levels = 2

    def outputs(self, neighbours: int = 0) -> list[tuple[float, list[float]]]:
        return [(16.0, [0.0])]

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        odds = parameters[:, 0].float() * LN2
        return F.logsigmoid(torch.where(x > 0, odds, -odds))

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        return (uniform[:, : uniform.shape[1] // 2] < torch.sigmoid(parameters[:, 0].float() * LN2)).to(torch.uint8)

    def expect(self, parameters: Tensor) -> Tensor:
        return (parameters[:, 0] > 0).to(torch.uint8)


class Categorical(PixelLikelihood):
    """A probability for each of ``levels`` on its own: palettes, labels, digits, whatever has no order.

    Parameters: log2 weights of the levels (softmax). Channels are independent.
    """

    def __init__(self, levels: int):
        self.levels = levels

    def outputs(self, neighbours: int = 0) -> list[tuple[float, list[float]]]:
        return [(16.0, [0.0] * self.levels)]

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        log_p = torch.log_softmax(parameters.float() * LN2, dim=1)
        return log_p.gather(1, x.unsqueeze(1).long())[:, 0]

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        below = torch.softmax(parameters.double() * LN2, dim=1).cumsum(1)[:, :-1]
        return (uniform[:, : uniform.shape[1] // 2].unsqueeze(1) >= below).sum(1).to(torch.uint8)

    def expect(self, parameters: Tensor) -> Tensor:
        return parameters.argmax(1).to(torch.uint8)


class Reshaped(PixelLikelihood):
    """A likelihood that draws every value from ``reshape`` of its distribution: sharpened, flattened, cut. Else it is
    ``likelihood``.

    >>> coin = Reshaped(Bernoulli(), lambda log_p: torch.log_softmax(2 * log_p, -1))
    >>> coin.log_pmf(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0).exp()
    tensor([[[[0.5000, 0.5000]]]])
    """

    def __init__(self, likelihood: PixelLikelihood, reshape: Reshape):
        self.likelihood, self.reshape, self.levels = likelihood, reshape, likelihood.levels

    def log_pmf(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        """log-probability in nats (B,h,w,levels) of every value of ``channel``, given the channels before it in
        ``x`` (B,C,h,w), under parameters (B,P,C,h,w)."""
        x, masses = x.clone(), []
        for value in range(self.levels):
            x[:, channel] = value
            masses.append(self.likelihood.log_prob(parameters, x)[:, channel])
        return torch.stack(masses, -1)

    def sample(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """As the likelihood's; a few rows at a time, since every value has ``levels`` probabilities."""
        rows = max(1, MOST_VALUES // max(1, uniform.shape[0] * uniform.shape[3] * (uniform.shape[1] // 2)))
        parts = [
            self._sample_rows(parameters[..., r : r + rows, :], uniform[..., r : r + rows, :])
            for r in range(0, uniform.shape[2], rows)
        ]
        return torch.cat(parts, 2) if parts else torch.zeros_like(uniform[:, ::2]).to(torch.uint8)

    def _sample_rows(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        x = torch.zeros(*uniform.shape[:1], uniform.shape[1] // 2, *uniform.shape[2:], device=uniform.device)
        for channel in range(x.shape[1]):
            log_q = self.reshape(self.log_pmf(parameters, x, channel).double())
            below = log_q.exp().cumsum(-1)[..., :-1]
            x[:, channel] = (uniform[:, channel, ..., None] >= below).sum(-1).float()
        return x.to(torch.uint8)

    def outputs(self, neighbours: int = 0) -> list[tuple[float, list[float]]]:
        return self.likelihood.outputs(neighbours)

    def complete(self, outputs: Tensor, neighbours: Tensor | None, exact: bool) -> Tensor:
        return self.likelihood.complete(outputs, neighbours, exact)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self.likelihood.log_prob(parameters, x)

    def expect(self, parameters: Tensor) -> Tensor:
        return self.likelihood.expect(parameters)


def likelihood_for(
    levels: int, components: int, channels: int, bounded: bool = False, kind: str = "mixture"
) -> PixelLikelihood:
    """Bernoulli for two-valued data; otherwise a logistic mixture, or, where ``kind`` says so, a categorical one."""
    if levels == 2:
        return Bernoulli()
    return Categorical(levels) if kind == "categorical" else LogisticMixture(levels, components, channels, bounded)


def exact_colour_term(weight: Tensor, seen: Tensor) -> Tensor:
    """weight * seen / 64 rounded half up, for whole ``weight`` (sixty-fourths, clamped) and ``seen`` (steps):
    products stay below 2^23, where float32 is exact."""
    return torch.floor((weight.clamp(-COLOR_LIMIT, COLOR_LIMIT) * seen + COLOR_UNIT / 2) / COLOR_UNIT)


def pixel_exponent(levels: int) -> int:
    """log2 of the levels that make one unit of real network input, chosen so that the data span about +-2."""
    return max(0, (levels - 1).bit_length() - 2) if levels > 2 else 0


def pixel_grid(levels: int) -> Grid:
    """The whole numbers by which a quantised network reads pixels, centred."""
    return Grid(2.0 ** pixel_exponent(levels), -(levels // 2), levels - 1 - levels // 2)
