"""Images on a stack (docs/format.md, "Items on the stack"): latents and pixels popped, latents pushed back."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.distributions import (
    Coarse,
    Distribution,
    Gaussian,
    Listed,
    Mixture,
    categories,
    proportional,
    quotient,
    steps_per_level,
    two_levels,
)
from vaedensity.numpy_decoder.network import Network, Pixels, Statistics, SubImage, TopDownPass
from vaedensity.numpy_decoder.stacks import Stacks
from vaedensity.numpy_decoder.symbols import Coder, Digits, EscapeCodec, Stage, flat_interval, push, read
from vaedensity.numpy_decoder.tables import TOTAL, Ints, lg, power

Items = NDArray[np.uint8]


class ImageCoder:
    """How a model's items (C,H,W) come off stacks. ``particles``: of coupled items; ``ends_first``: whether the lowest
    and the highest level of pixels are coded before the others, where there are many levels."""

    def __init__(self, network: Network, particles: int, ends_first: bool):
        self.network, self.particles = network, particles
        c = network.config
        self.levels, self.channels = c["levels"], c["channels"]
        self.ends_first = ends_first and self.levels > 32 and c["likelihood"] == "mixture"
        self.turns = _turns(particles, network.latents) if particles > 1 else None
        direct = zip(network.model.direct_steps, network.shapes)
        self.steps = [np.repeat(np.array(steps), r * s) for steps, (_, r, s) in direct]

    def pop_direct(self, stacks: Stacks, chains: int) -> Items:
        """An item of each of the first ``chains`` (B,C,H,W), coded without bits to get back."""
        top_down = TopDownPass(self.network, chains)
        for level, steps in enumerate(self.steps):
            distribution = Coarse(_gaussian(top_down.prior(level)), np.tile(steps, chains))
            top_down.absorb(Digits(distribution).pop(stacks, [len(steps)] * chains))
        return self._pop_pixels(stacks, top_down)

    def pop_bits_back(self, stacks: Stacks, chains: int) -> Items:
        """An item of each chain, whose latents give bits back."""
        x, posteriors = self._pop_item(stacks, chains)
        for distribution, z in reversed(posteriors):
            push(stacks, EscapeCodec.centre(distribution).stages(z), [len(z) // chains] * chains)
        return x

    def pop_coupled(self, stacks: Stacks, chains: int) -> Items:
        """An item of each chain, whose latents are one of several particles'."""
        x, posteriors = self._pop_item(stacks, chains)
        assert self.turns is not None
        counts = [self.network.latents] * chains
        found = [flat_interval(distribution, symbols) for distribution, symbols in posteriors]
        low, width = (np.concatenate([part.reshape(chains, -1) for part in parts], 1) for parts in zip(*found))
        place = _pop_below(stacks, width.ravel(), counts).reshape(chains, -1)
        k = self.particles
        uniform = np.arange(k + 1)[None] * TOTAL // k
        own = Digits(Listed(np.repeat(uniform, chains, 0))).pop(stacks, [1] * chains)
        u = (low + place - self.turns[own]) % TOTAL
        gain = self._weigh(x, u)
        share = power(gain.max(1, keepdims=True) - gain)
        push(stacks, Digits(proportional(share)).stages(own), [1] * chains)
        push(stacks, _below_stages(u.ravel(), np.full(u.size, TOTAL)), counts)
        return x

    def _pop_item(self, stacks: Stacks, chains: int) -> tuple[Items, list[tuple[Gaussian, Ints]]]:
        """(items, each level's posterior with its latents)."""
        top_down, latents = TopDownPass(self.network, chains), []
        for level, (channels, rows, columns) in enumerate(self.network.shapes):
            distribution = _gaussian(top_down.prior(level))
            latents.append(EscapeCodec.centre(distribution).pop(stacks, [channels * rows * columns] * chains))
            top_down.absorb(latents[-1])
        x = self._pop_pixels(stacks, top_down)
        features = self.network.features(x)
        return x, [(_gaussian(top_down.posterior(level, features)), z) for level, z in enumerate(latents)]

    def _pop_pixels(self, stacks: Stacks, top_down: TopDownPass) -> Items:
        c = self.network.config
        batch = top_down.streams[-1].shape[1]
        x = np.zeros((batch, self.channels, c["height"], c["width"]), np.uint8)
        for sub_image, channel, distribution in self._distributions(top_down, x):
            counts = [sub_image.rows * sub_image.columns] * batch
            symbols = self._pixel_coder(distribution, sum(counts)).pop(stacks, counts)
            x[:, channel, *sub_image.pixels] = symbols.reshape(batch, sub_image.rows, sub_image.columns)
        return x

    def _distributions(self, top_down: TopDownPass, x: Items) -> Iterator[tuple[SubImage, int, Distribution]]:
        """(sub-image, channel, distribution of its pixels) in order; ``x`` must hold what was decoded before."""
        pixels = Pixels(self.network, top_down.streams[-1], x)
        for p, sub_image in enumerate(self.network.sub_images):
            if sub_image.rows and sub_image.columns:
                groups = pixels.parameters(p)
                near = pixels.neighbours(p) if sub_image.neighbours else None
                for channel in range(self.channels):
                    yield sub_image, channel, self._distribution(groups, near, sub_image, channel, x)
            else:
                pixels.parameters(p)
            pixels.absorb(p)

    def _distribution(
        self, groups: list[Ints], near: Ints | None, sub_image: SubImage, channel: int, x: Items
    ) -> Distribution:
        """That of a channel's pixels, B * r_p * s_p of them."""
        if self.levels == 2:
            return two_levels(groups[0][0, channel].ravel())
        rows = [group[:, channel].reshape(len(group), -1) for group in groups]  # (n_g,N)
        if self.network.config["likelihood"] == "categorical":
            return categories(rows[0].T)
        size, half = steps_per_level(self.levels), self.levels // 2
        k = len(rows[0])
        mean = np.zeros((k, rows[0].shape[1]), np.int64)
        mean[: len(rows[1])] = rows[1]
        tilts = [np.clip(rows[3][i * k : (i + 1) * k], -4096, 4096) for i in range(channel)]
        if near is not None:
            m = len(near)
            few = 4 if m >= 4 else 2 if m >= 2 else 1
            free = len(rows[1]) - len(rows[1]) // 2
            middle = near[:few].sum(0)[None] // few
            points = np.concatenate([np.repeat(middle, k - m - free, 0), near]).reshape(k - free, self.channels, -1)
            mean[free:] += points[:, channel]
            for i, tilt in enumerate(tilts):
                mean[free:] -= (tilt[free:] * points[:, i] + 32) // 64
        for i, tilt in enumerate(tilts):
            seen = (x[:, i, *sub_image.pixels].astype(np.int64).ravel() - half) * size
            mean += (tilt * seen + 32) // 64
        return Mixture.of(self.levels, rows[0].T, mean.T, rows[2].T)

    def _pixel_coder(self, distribution: Distribution, count: int) -> Coder:
        return EscapeCodec.ends(distribution, count) if self.ends_first else Digits(distribution)

    def _weigh(self, x: Items, u: Ints) -> Ints:
        """(B,K) g of every particle (docs/format.md, "Coupled particles") of items (B,C,H,W); ``u`` (B,latents)."""
        assert self.turns is not None
        batch, k = len(x), self.particles
        turned = (u[:, None] + self.turns).reshape(batch * k, -1) % TOTAL
        x = np.repeat(x, k, 0)
        features, top_down = self.network.features(x), TopDownPass(self.network, batch * k)
        gain, at = np.zeros(batch * k, np.int64), 0
        for level, (channels, rows, columns) in enumerate(self.network.shapes):
            count = channels * rows * columns
            distribution = _gaussian(top_down.posterior(level, features))
            z = read(distribution, turned[:, at : at + count].ravel())
            prior = EscapeCodec.centre(_gaussian(top_down.prior(level)))
            gain += _information(prior.stages(z), batch * k, count)
            gain -= lg(flat_interval(distribution, z)[1]).reshape(batch * k, -1).sum(1)
            top_down.absorb(z)
            at += count
        for sub_image, channel, pixel_distribution in self._distributions(top_down, x):
            symbols = x[:, channel, *sub_image.pixels].astype(np.int64).ravel()
            stages = self._pixel_coder(pixel_distribution, len(symbols)).stages(symbols)
            gain += _information(stages, batch * k, sub_image.rows * sub_image.columns)
        return gain.reshape(batch, k)


def _gaussian(statistics: Statistics) -> Gaussian:
    mean, scale = (part.transpose(1, 0, 2, 3).astype(np.int64).ravel() for part in statistics)
    return Gaussian(mean, scale)


def _information(stages: list[Stage], batch: int, count: int) -> Ints:
    """(B,) the sum of lg(f) - 24 * 2^20 over the intervals of each item's ``count`` elements."""
    out = np.zeros(batch, np.int64)
    for stage in stages:
        np.add.at(out, stage.rows // count, lg(stage.width) - (24 << 20))
    return out


def _turns(particles: int, latents: int) -> Ints:
    """R (K,latents) of docs/format.md, "Coupled particles"."""
    k, i = np.arange(particles, dtype=np.uint64)[:, None], np.arange(latents, dtype=np.uint64)
    h = ((k << np.uint64(32)) + i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as all that follows
    h = (h ^ h >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ h >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.where(k > 0, (h ^ h >> np.uint64(31)) >> np.uint64(40), 0).astype(np.int64)


def _digit_distribution(m: Ints, a: int) -> Listed:
    """The table of a number's next digit, ``m`` (N,) being how many numbers are left."""
    return Listed(quotient(np.minimum(m[:, None], a * np.arange(17)) * TOTAL, m[:, None]))


def _pop_below(stacks: Stacks, m: Ints, counts: list[int]) -> Ints:
    """(N,) a number below each of ``m``. Raises ValueError where a digit is one that no such number has."""
    value = np.zeros_like(m)
    for k in range(6):
        a = 1 << 4 * (5 - k)
        digit = Digits(_digit_distribution(m, a)).pop(stacks, counts)
        value += a * digit
        m = np.minimum(a, m - a * digit)
        if (m <= 0).any():
            raise ValueError("a digit that no number below the limit has")
    return value


def _below_stages(value: Ints, m: Ints) -> list[Stage]:
    """What popping the numbers ``value`` below ``m`` takes."""
    stages = []
    for k in range(6):
        a = 1 << 4 * (5 - k)
        digit = value // a % 16
        stages += Digits(_digit_distribution(m, a)).stages(digit)
        m = np.minimum(a, m - a * digit)
    return stages
