"""The network of images (docs/format.md, "Network"): latents from coarse to fine, then sub-image by sub-image the
pixels; and from pixels to the features that posteriors see."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.distributions import steps_per_level
from vaedensity.numpy_decoder.layers import Layers, Map, Spec, clamp
from vaedensity.numpy_decoder.model_file import Model
from vaedensity.numpy_decoder.tables import Ints

Statistics = tuple[Map, Map]
"""Mean and log2 of the scale of a level's latents, each (c,B,R,S)."""
SUB_IMAGES = {
    4: [(2, 0, 0), (2, 1, 1), (2, 0, 1), (2, 1, 0)],
    7: [(4, 0, 0), (4, 2, 2), (4, 0, 2), (4, 2, 0), (2, 1, 1), (2, 0, 1), (2, 1, 0)],
}
OFFSETS = [(0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]


class SubImage:
    """Sub-image ``p`` of items: its ``step`` and first pixel, how many rows and columns of pixels, and which of its
    ``neighbours`` (rows, columns) are known."""

    def __init__(self, p: int, config: dict[str, Any]):
        sub_images = SUB_IMAGES[config["sub_images"]]
        self.step, self.row, self.column = sub_images[p]
        self.rows = (config["height"] + self.step - 1 - self.row) // self.step
        self.columns = (config["width"] + self.step - 1 - self.column) // self.step
        self.pixels = (slice(self.row, None, self.step), slice(self.column, None, self.step))
        order = {
            (i % 4, j % 4): k for k, (t, a, b) in enumerate(sub_images) for i in range(a, 4, t) for j in range(b, 4, t)
        }
        mine = [at for at, k in order.items() if k == p]
        near = [(i * self.step // 2, j * self.step // 2) for i, j in OFFSETS]
        known = [(i, j) for i, j in near if all(order[(r + i) % 4, (s + j) % 4] < p for r, s in mine)]
        self.neighbours = known[: config["neighbours"]] if config["levels"] > 2 else []


class Network:
    """The exact network of a model of images. Raises ValueError where its integers are not as they should be."""

    def __init__(self, model: Model):
        c = self.config = model.config
        self.model, self.n, self.half = model, len(c["latents"]), c["levels"] // 2
        self.sub_images = [SubImage(p, c) for p in range(c["sub_images"])]
        f = c["latents"][0][0]
        self.base = (-(-c["height"] // f), -(-c["width"] // f))
        self.shapes = [(ch, *(r * f // fi for r in self.base)) for fi, ch in c["latents"]]
        self.latents = sum(ch * r * s for ch, r, s in self.shapes)
        self.top = 8 * c["unit"] - 1
        self.layers = Layers(model, dict(self._specs()), (1, c["widths"][0], *self.base))

    def head_sizes(self, sub_image: SubImage) -> list[int]:
        """Parameters of a channel in each group of a sub-image's heads."""
        c = self.config
        if c["levels"] == 2 or c["likelihood"] == "categorical":
            return [1 if c["levels"] == 2 else c["levels"]]
        k = c["components"] + len(sub_image.neighbours)
        return [k, c["components"], k] + ([2 * k] if c["channels"] == 3 else [])

    def _specs(self) -> Iterator[tuple[str, Spec]]:
        c, n, w = self.config, self.n, self.config["widths"]
        acts, pixels, k1, k3 = (0, self.top), (-self.half, c["levels"] - 1 - self.half), (1, 1), (3, 3)
        residual = [(f"{way}.{i}.{j}", w[i]) for way in ("up", "decoder") for i in range(n) for j in range(c["blocks"])]
        widths = [w[n - 1] if sub_image.step == 2 else w[n - 2] for sub_image in self.sub_images]
        residual += [
            (f"sub_image_blocks.{p}.{j}", v) for p, v in enumerate(widths) for j in range(c["sub_image_blocks"])
        ]
        for name, width in residual:
            yield f"{name}.first", Spec(width, width, k3, acts)
            yield f"{name}.second", Spec(width, width, k3, acts)
        yield "stem", Spec(w[n - 1], 4 * c["channels"], k3, pixels)
        for i, (_, latents) in enumerate(c["latents"]):
            if i < n - 1:
                yield f"down.{i}", Spec(w[i], w[i + 1], k3, acts, 2)
                yield f"expand.{i}", Spec(4 * w[i + 1], w[i], k1, acts)
            yield f"from_encoder.{i}", Spec(w[i], w[i], k3, acts)
            yield f"from_decoder.{i}", Spec(w[i], w[i], k1, acts)
            for part in (0, 1):
                yield f"prior_heads.{i}.{part}", Spec(latents, w[i], k1, acts)
                yield f"posterior_heads.{i}.{part}", Spec(latents, w[i], k1, acts)
            yield f"latent_in.{i}", Spec(w[i], latents, k3, (-128, 127))
        for p, sub_image in enumerate(self.sub_images):
            if p < len(self.sub_images) - 1:
                yield f"pixel_in.{p}", Spec(widths[p + 1], c["channels"], k3, pixels)
            for g, size in enumerate(self.head_sizes(sub_image)):
                yield f"heads.{p}.{g}", Spec(c["channels"] * size, widths[p], k1, acts)
        if c["sub_images"] == 7:
            yield "to_coarse", Spec(w[n - 2], w[n - 1], k3, acts, 2)
            yield "from_coarse", Spec(4 * w[n - 1], w[n - 2], k1, acts)

    def relu(self, h: Map) -> Map:
        return clamp(h, 0, self.top)

    def residual(self, name: str, count: int, h: Map) -> Map:
        for j in range(count):
            h = h + self.layers(f"{name}.{j}.second", self.relu(self.layers(f"{name}.{j}.first", self.relu(h))))
        return h

    def features(self, x: NDArray[np.uint8]) -> list[Map]:
        """What the posterior of each level sees of items (B,C,H,W) of levels ."""
        f = self.config["latents"][0][0]
        map_ = extended(x.transpose(1, 0, 2, 3).astype(np.float32) - self.half, self.base[0] * f, self.base[1] * f)
        c, b, r, s = map_.shape
        parts = map_.reshape(c, b, r // 2, 2, s // 2, 2).transpose(0, 3, 5, 1, 2, 4)
        e = self.layers("stem", parts.reshape(4 * c, b, r // 2, s // 2))
        out = []
        for i in reversed(range(self.n)):
            e = self.residual(f"up.{i}", self.config["blocks"], e)
            out.append(self.layers(f"from_encoder.{i}", self.relu(e)))
            e = self.layers(f"down.{i - 1}", self.relu(e)) if i else e
        return out[::-1]


class TopDownPass:
    """One top-down pass of ``batch`` items (docs/format.md, "Top-down pass"), level after level of latents.

    ``streams``: h_0 and, as far as latents are absorbed, h_1, h_2, ..., each (w_i,B,R,S)."""

    def __init__(self, network: Network, batch: int):
        self.network = network
        start = network.layers.start.astype(np.float32)
        self.streams: list[Map] = [np.repeat(start[:, None], batch, 1)]
        self.priors: list[Statistics] = []

    def prior(self, level: int) -> Statistics:
        """That of a level whose latents come next or are absorbed."""
        if level == len(self.priors):
            layers, a = self.network.layers, self.network.relu(self.streams[level])
            scale = clamp(layers(f"prior_heads.{level}.1", a), -16, 24)
            self.priors.append((layers(f"prior_heads.{level}.0", a), scale))
        return self.priors[level]

    def posterior(self, level: int, features: list[Map]) -> Statistics:
        """That of the same level, of items with these features."""
        net, (mean, scale) = self.network, self.prior(level)
        j = net.relu(features[level] + net.layers(f"from_decoder.{level}", net.relu(self.streams[level])))
        mean = mean + net.layers(f"posterior_heads.{level}.0", j)
        return mean, clamp(scale + net.layers(f"posterior_heads.{level}.1", j), -16, 24)

    def absorb(self, z: Ints) -> None:
        """The next level's latents, symbols of B * c * rows * columns elements."""
        net, i = self.network, len(self.streams) - 1
        c, r, s = net.shapes[i]
        points = z.reshape(-1, c, r, s).transpose(1, 0, 2, 3).astype(np.float32) - 128
        h: Map = self.streams[i] + net.layers(f"latent_in.{i}", points)
        h = net.residual(f"decoder.{i}", net.config["blocks"], h)
        self.streams.append(h if i == net.n - 1 else shuffle(net.layers(f"expand.{i}", net.relu(h))))


class Pixels:
    """The parameters of one sub-image after the other (docs/format.md, "Sub-images").

    ``g``: the last stream of the top-down pass; ``x``: levels (B,C,H,W), known as far as decoded."""

    def __init__(self, network: Network, g: Map, x: NDArray[np.uint8]):
        self.network, self.x = network, x
        self.streams: dict[int, Map] = {2: g}  # by the step of the sub-images that they are for
        if len(network.sub_images) == 7:
            self.streams[4] = network.layers("to_coarse", network.relu(g))

    def parameters(self, p: int) -> list[Ints]:
        """Each group's parameters (n_g,C,B,r_p,s_p) as the heads give them."""
        net, sub_image = self.network, self.network.sub_images[p]
        g = net.residual(f"sub_image_blocks.{p}", net.config["sub_image_blocks"], self.streams[sub_image.step])
        self.streams[sub_image.step] = g
        a, groups = net.relu(g), []
        for i, size in enumerate(net.head_sizes(sub_image)):
            out = net.layers(f"heads.{p}.{i}", a)[:, :, : sub_image.rows, : sub_image.columns].astype(np.int64)
            groups.append(out.reshape(size, net.config["channels"], *out.shape[1:]))
        return groups

    def absorb(self, p: int) -> None:
        """Let the later sub-images see sub-image ``p``, whose pixels are in ``x`` now."""
        net, sub_image = self.network, self.network.sub_images[p]
        if p == len(net.sub_images) - 1:
            return
        step, (rows, columns) = sub_image.step, sub_image.pixels
        if len(net.sub_images) == 7 and p == 3:  # all levels at even rows and columns are known
            step, rows, columns = 2, slice(None, None, 2), slice(None, None, 2)
            self.streams[2] = self.streams[2] + shuffle(net.layers("from_coarse", net.relu(self.streams[4])))
        g = self.streams[step]
        seen = self.x[:, :, rows, columns].transpose(1, 0, 2, 3).astype(np.float32) - net.half
        self.streams[step] = g + net.layers(f"pixel_in.{p}", extended(seen, *g.shape[2:]))

    def neighbours(self, p: int) -> Ints:
        """V (M,C,B,r_p,s_p) of docs/format.md, "Distributions": the known neighbours of the pixels, in steps."""
        net, sub_image = self.network, self.network.sub_images[p]
        step, edge = sub_image.step, sub_image.step // 2
        padded = np.pad(self.x, ((0, 0), (0, 0), (edge, edge), (edge, edge))).transpose(1, 0, 2, 3).astype(np.int64)
        found = []
        for i, j in sub_image.neighbours:
            near = padded[:, :, sub_image.row + edge + i :: step, sub_image.column + edge + j :: step]
            found.append(near[:, :, : sub_image.rows, : sub_image.columns])
        steps: Ints = (np.stack(found) - net.half) * steps_per_level(net.config["levels"])
        return steps


def shuffle(h: Map) -> Map:
    """(4 w,B,R,S) to (w,B,2 R,2 S)."""
    c, b, r, s = h.shape
    return h.reshape(c // 4, 2, 2, b, r, s).transpose(0, 3, 4, 1, 5, 2).reshape(c // 4, b, 2 * r, 2 * s)


def extended(x: Map, rows: int, columns: int) -> Map:
    """``x`` (C,B,R,S) with its last row and column repeated; all 0 where it is empty."""
    c, b, r, s = x.shape
    if not x.size:
        return np.zeros((c, b, rows, columns), np.float32)
    if (r, s) == (rows, columns):
        return x
    return x[:, :, np.minimum(np.arange(rows), r - 1)][:, :, :, np.minimum(np.arange(columns), s - 1)]
