"""Items of series on a stack (docs/format.md, "Series"): categories popped, then value after value."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.distributions import Listed, categories, proportional
from vaedensity.numpy_decoder.layers import Layers, Map, Spec, clamp
from vaedensity.numpy_decoder.model_file import Model
from vaedensity.numpy_decoder.stacks import Stacks
from vaedensity.numpy_decoder.symbols import Digits, push
from vaedensity.numpy_decoder.tables import Ints, noise, power

PATCH, PATCH_WIDTH = 16, 16
ENCODER_DILATIONS = (1, 2, 5)


class SeriesNetwork:
    """The exact network of a model of series. Raises ValueError where its integers are not as they should be.

    Maps are (channels,N) float32 of whole numbers; N counts items, or their positions.
    """

    def __init__(self, model: Model):
        c = self.config = model.config
        self.model, self.latents, self.unit = model, c["variables"], c["unit"]
        n, k, w, v, levels = c["variables"], c["categories"], c["width"], c["encoder_width"], c["levels"]
        acts, one, three = (-8 * self.unit, 8 * self.unit - 1), (1, 1), (1, 3)
        cells = 1 << c["context_bits"]
        specs = {
            "patch_table": Spec(PATCH_WIDTH, levels + 1, one, acts, use="table"),
            "patch_in": Spec(v, PATCH * PATCH_WIDTH, one, acts),
            **{f"encoder.{j}.convolution": Spec(2 * v, v, three, acts) for j in range(len(ENCODER_DILATIONS))},
            "posterior_head": Spec(n * k, v, one, acts),
            "latent_in": Spec(w, n * k, one, (0, 1), use="groups", groups=n),
            "value_table": Spec(w, levels + 1, one, acts, use="table"),
            **{
                f"context_tables.{j}": Spec(c["context_width"], cells, one, acts, use="table")
                for j in range(len(c["contexts"]))
            },
            **{f"blocks.{b}.convolution": Spec(2 * w, w, three, acts) for b in range(len(c["dilations"]))},
            "head": Spec(levels, w, one, acts),
        }
        added = [name for name, spec in specs.items() if spec.use != "sum" and name != "patch_table"]
        self.layers = Layers(model, specs, (1, n * k, 1, 1), tuple(added))
        self.start = self.layers.start.astype(np.int64).reshape(n, k)

    def clamp(self, h: Map) -> Map:
        return clamp(h, -8 * self.unit, 8 * self.unit - 1)

    def gate(self, x: Map, out: Map) -> Map:
        """A block's result (w,N) of its input and of the outputs (2 w,N) of its convolution."""
        u = self.unit
        g, h = out[: len(x)], self.clamp(out[len(x) :])
        a = clamp(g, -4 * u, 4 * u)
        s = 128 + np.floor(8 * a * (8 * u - np.abs(a)) / (u * u))
        y: Map = np.floor((s * (x - h) + 256 * h + 128) / 256)
        return y

    def posterior(self, x: NDArray[np.uint8]) -> Ints:
        """(B,n,k) weights of the categories, from items (B,T)."""
        c, batch = self.config, len(x)
        patches = -(-x.shape[1] // PATCH)
        values = np.full((batch, patches * PATCH), c["levels"], np.int64)
        values[:, : x.shape[1]] = x
        rows = self.clamp(self.layers["patch_table"].row(values.ravel()))  # (16,B * P * 16)
        rows = rows.reshape(PATCH_WIDTH, batch * patches, PATCH).transpose(2, 0, 1).reshape(PATCH * PATCH_WIDTH, -1)
        h = self.clamp(self.layers["patch_in"].product(rows))
        for j, r in enumerate(ENCODER_DILATIONS):
            padded = np.zeros((len(h), batch, patches + 2 * r), np.float32)
            padded[:, :, r : r + patches] = h.reshape(len(h), batch, patches)
            taps = np.stack([padded[:, :, u * r : u * r + patches] for u in range(3)], 1)
            h = self.gate(h, self.layers[f"encoder.{j}.convolution"].product(taps.reshape(3 * len(h), -1)))
        total = h.reshape(len(h), batch, patches).astype(np.int64).sum(2)
        mean = ((2 * total + patches) // (2 * patches)).astype(np.float32)
        out = clamp(self.layers["posterior_head"].product(mean), -128, 128).astype(np.int64)
        y: Ints = out.T.reshape(batch, *self.start.shape) + self.start
        return y

    def weights(self, z: Ints, x: NDArray[np.uint8]) -> Iterator[Ints]:
        """(B,levels) weights of the value at each position, given latents (B,n); ``x`` (B,T) must hold each before
        the next is asked for."""
        c, batch = self.config, len(z)
        dilations, contexts = c["dilations"], c["contexts"]
        inputs = (z + c["categories"] * np.arange(self.latents)).T
        constant = self.layers["latent_in"].chosen(inputs)
        convolutions = [self.layers[f"blocks.{b}.convolution"] for b in range(len(dilations))]
        past = [
            np.zeros((2 * r + 1, c["width"], batch), np.float32) for r in dilations
        ]  # the last positions, around a circle
        before = np.full((batch, max([1, *contexts])), c["levels"], np.int64)  # the nearest first
        for t in range(c["length"]):
            h: Map = self.layers["value_table"].row(before[:, 0]) + constant
            for j, cell in enumerate(self._cells(before)):
                h[: c["context_width"]] += self.layers[f"context_tables.{j}"].row(cell)
            h = self.clamp(h)
            for r, ring, convolution in zip(dilations, past, convolutions):
                ring[t % len(ring)] = h
                taps = np.stack([ring[(t - 2 * r) % len(ring)], ring[(t - r) % len(ring)], h], 1)
                h = self.gate(h, convolution.product(taps.reshape(3 * len(h), batch)))
            yield self.layers["head"].product(h).T.astype(np.int64)
            before[:, 1:] = before[:, :-1].copy()
            before[:, 0] = x[:, t]

    def _cells(self, before: Ints) -> list[Ints]:
        """The row of each table of contexts for the values (B,m) before a position, the nearest first."""
        h, rows = np.zeros(len(before), np.int64), []
        for m in range(1, max([0, *self.config["contexts"]]) + 1):
            h = (h * 1103515245 + before[:, m - 1] + 1) % ((1 << 31) - 1)
            if m in self.config["contexts"]:
                rows.append(h % (1 << self.config["context_bits"]))
        return rows


class SeriesCoder:
    """How items (1,1,T) come off stacks."""

    def __init__(self, network: SeriesNetwork):
        self.network = network

    def pop_direct(self, stacks: Stacks, chains: int) -> NDArray[np.uint8]:
        """An item of each of the first ``chains`` (B,1,1,T), coded without bits to get back."""
        return self._pop_item(stacks, chains)[1]

    def pop_bits_back(self, stacks: Stacks, chains: int) -> NDArray[np.uint8]:
        """An item of each chain, whose latents give bits back."""
        z, x = self._pop_item(stacks, chains)
        y = self.network.posterior(x[:, 0, 0])
        distribution = _noisy(self.network.config["noise"], y.reshape(-1, y.shape[2]))
        push(stacks, Digits(distribution).stages(z.ravel()), [self.network.latents] * chains)
        return x

    def _pop_item(self, stacks: Stacks, chains: int) -> tuple[Ints, NDArray[np.uint8]]:
        net = self.network
        prior = categories(np.tile(net.start, (chains, 1)))
        z = Digits(prior).pop(stacks, [net.latents] * chains).reshape(chains, -1)
        x = np.zeros((chains, 1, 1, net.config["length"]), np.uint8)
        for t, y in enumerate(net.weights(z, x[:, 0, 0])):
            x[:, 0, 0, t] = Digits(categories(y)).pop(stacks, [1] * chains)
        return z, x


def _noisy(name: str, y: Ints) -> Listed:
    """The distribution of the greatest of ``y`` (N,k) plus noise (docs/format.md, "Series")."""
    if name == "gumbel":
        return categories(y)
    f, d = noise(name)
    g = np.minimum(511, y.max(1, keepdims=True) - y)
    below = f[:, g]  # (nodes,N,k)
    return proportional(power(below.sum(2, keepdims=True) - below + d[:, g]).sum(0))
