"""Items of images on a stack (sections 11, 11.3 and 14): latents and pixels popped, latents pushed back."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vaedensity.plain.laws import (
    Coarse,
    Gaussian,
    Law,
    Listed,
    Mixture,
    categories,
    proportional,
    quotient,
    steps_per_level,
    two_levels,
)
from vaedensity.plain.network import Descent, Network, Phase, Pixels, Statistics
from vaedensity.plain.stacks import Stacks
from vaedensity.plain.symbols import Coder, Digits, RunFirst, Stage, flat_interval, push, read
from vaedensity.plain.tables import TOTAL, Ints, lg, power

Items = NDArray[np.uint8]


class ImageCoder:
    """How a model's items (C,H,W) come off stacks. ``coder``: its number; ``particles``: of coupled items."""

    def __init__(self, network: Network, coder: int, particles: int):
        self.network, self.particles = network, particles
        c = network.config
        self.levels, self.channels = c["levels"], c["channels"]
        self.centre_first = coder >= 18
        self.ends_first = coder >= 20 and self.levels > 32 and c["likelihood"] == "mixture"
        self.turns = _turns(particles, network.latents) if particles > 1 else None
        direct = zip(network.model.direct_steps, network.shapes)
        self.steps = [np.repeat(np.array(steps), r * s) for steps, (_, r, s) in direct]

    def pop_direct(self, stacks: Stacks, chains: int) -> Items:
        """An item of each of the first ``chains`` (B,C,H,W), coded without bits to get back."""
        descent = Descent(self.network, chains)
        for steps in self.steps:
            law = Coarse(_gaussian(descent.prior()), np.tile(steps, chains))
            descent.absorb(Digits(law).pop(stacks, [len(steps)] * chains))
        return self._pop_pixels(stacks, descent)

    def pop_bits_back(self, stacks: Stacks, chains: int) -> Items:
        """An item of each chain, whose latents give bits back."""
        x, posteriors = self._pop_item(stacks, chains)
        for law, z in reversed(posteriors):
            push(stacks, self._latent_coder(law).stages(z), [len(z) // chains] * chains)
        return x

    def pop_coupled(self, stacks: Stacks, chains: int) -> Items:
        """An item of each chain, whose latents are one of several particles'."""
        x, posteriors = self._pop_item(stacks, chains)
        assert self.turns is not None
        counts = [self.network.latents] * chains
        found = [flat_interval(law, symbols) for law, symbols in posteriors]
        low, width = (self._all_levels([pair[part] for pair in found], chains) for part in (0, 1))
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
        descents, priors, latents = [], [], []
        descent = Descent(self.network, chains)
        for channels, rows, columns in self.network.shapes:
            priors.append(descent.prior())
            descents.append(descent.h)
            law = _gaussian(priors[-1])
            latents.append(self._latent_coder(law).pop(stacks, [channels * rows * columns] * chains))
            descent.absorb(latents[-1])
        x = self._pop_pixels(stacks, descent)
        features, again, posteriors = self.network.features(x), Descent(self.network, chains), []
        for level, (prior, h, z) in enumerate(zip(priors, descents, latents)):
            again.level, again.h = level, h
            posteriors.append((_gaussian(again.posterior(prior, features)), z))
        return x, posteriors

    def _pop_pixels(self, stacks: Stacks, descent: Descent) -> Items:
        c = self.network.config
        batch = descent.h.shape[1]
        x = np.zeros((batch, self.channels, c["height"], c["width"]), np.uint8)
        for phase, channel, law in self._laws(descent, x):
            symbols = self._pixel_coder(law, phase, batch).pop(stacks, [phase.rows * phase.columns] * batch)
            x[:, channel, *phase.pixels] = symbols.reshape(batch, phase.rows, phase.columns)
        return x

    def _laws(self, descent: Descent, x: Items) -> Iterator[tuple[Phase, int, Law]]:
        """(phase, channel, law of its pixels) in order; ``x`` must hold each before the next is asked for."""
        pixels = Pixels(self.network, descent.h, x)
        for p, phase in enumerate(self.network.phases):
            if phase.rows and phase.columns:
                groups = pixels.parameters(p)
                near = pixels.neighbours(p) if phase.neighbours else None
                for channel in range(self.channels):
                    yield phase, channel, self._law(groups, near, phase, channel, x)
            else:
                pixels.parameters(p)
            pixels.absorb(p)

    def _law(self, groups: list[Ints], near: Ints | None, phase: Phase, channel: int, x: Items) -> Law:
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
            seen = (x[:, i, *phase.pixels].astype(np.int64).ravel() - half) * size
            mean += (tilt * seen + 32) // 64
        return Mixture.of(self.levels, rows[0].T, mean.T, rows[2].T)

    def _latent_coder(self, law: Gaussian) -> Coder:
        return RunFirst.centre(law) if self.centre_first else Digits(law)

    def _pixel_coder(self, law: Law, phase: Phase, batch: int) -> Coder:
        return RunFirst.ends(law, batch * phase.rows * phase.columns) if self.ends_first else Digits(law)

    def _all_levels(self, levels: list[Ints], batch: int) -> Ints:
        """(B, latents) of each level's (B * latents of the level,)."""
        return np.concatenate([level.reshape(batch, -1) for level in levels], 1)

    def _weigh(self, x: Items, u: Ints) -> Ints:
        """(B,K) g of every particle (step 6 of section 11.3), for items (B,C,H,W) and ``u`` (B,latents)."""
        assert self.turns is not None
        batch, k = len(x), self.particles
        turned = (u[:, None] + self.turns).reshape(batch * k, -1) % TOTAL
        x = np.repeat(x, k, 0)
        features, descent = self.network.features(x), Descent(self.network, batch * k)
        gain, at = np.zeros(batch * k, np.int64), 0
        for channels, rows, columns in self.network.shapes:
            count = channels * rows * columns
            prior = descent.prior()
            law = _gaussian(descent.posterior(prior, features))
            z = read(law, turned[:, at : at + count].ravel())
            gain += _information(self._latent_coder(_gaussian(prior)).stages(z), batch * k, count)
            gain -= lg(flat_interval(law, z)[1]).reshape(batch * k, -1).sum(1)
            descent.absorb(z)
            at += count
        for phase, channel, pixel_law in self._laws(descent, x):
            symbols = x[:, channel, *phase.pixels].astype(np.int64).ravel()
            stages = self._pixel_coder(pixel_law, phase, batch * k).stages(symbols)
            gain += _information(stages, batch * k, phase.rows * phase.columns)
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
    """R (K,latents) of section 11.3."""
    k, i = np.arange(particles, dtype=np.uint64)[:, None], np.arange(latents, dtype=np.uint64)
    h = ((k << np.uint64(32)) + i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as all that follows
    h = (h ^ h >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ h >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.where(k > 0, (h ^ h >> np.uint64(31)) >> np.uint64(40), 0).astype(np.int64)


def _digit_law(m: Ints, a: int) -> Listed:
    """The table of a number's next digit, ``m`` (N,) being how many numbers are left."""
    return Listed(quotient(np.minimum(m[:, None], a * np.arange(17)) * TOTAL, m[:, None]))


def _pop_below(stacks: Stacks, m: Ints, counts: list[int]) -> Ints:
    """(N,) a number below each of ``m``. Raises ValueError where a digit is one that no such number has."""
    value = np.zeros_like(m)
    for k in range(6):
        a = 1 << 4 * (5 - k)
        digit = Digits(_digit_law(m, a)).pop(stacks, counts)
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
        stages += Digits(_digit_law(m, a)).stages(digit)
        m = np.minimum(a, m - a * digit)
    return stages
