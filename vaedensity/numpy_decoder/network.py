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
    """One top-down pass of ``batch`` items (docs/format.md, "Top-down pass"): in turn the prior of a level and its
    latents."""

    def __init__(self, network: Network, batch: int):
        self.network, self.level = network, 0
        start = network.layers.start.astype(np.float32)
        self.h: Map = np.repeat(start[:, None], batch, 1)

    def prior(self) -> Statistics:
        layers, a = self.network.layers, self.network.relu(self.h)
        scale = clamp(layers(f"prior_heads.{self.level}.1", a), -16, 24)
        return layers(f"prior_heads.{self.level}.0", a), scale

    def posterior(self, prior: Statistics, features: list[Map]) -> Statistics:
        """That of the same level, asked for before its latents are absorbed."""
        net, i = self.network, self.level
        j = net.relu(features[i] + net.layers(f"from_decoder.{i}", net.relu(self.h)))
        mean = prior[0] + net.layers(f"posterior_heads.{i}.0", j)
        return mean, clamp(prior[1] + net.layers(f"posterior_heads.{i}.1", j), -16, 24)

    def absorb(self, z: Ints) -> None:
        """The level's latents, symbols (B, c * rows * columns)."""
        net, i = self.network, self.level
        c, r, s = net.shapes[i]
        points = z.reshape(-1, c, r, s).transpose(1, 0, 2, 3).astype(np.float32) - 128
        h = net.residual(f"decoder.{i}", net.config["blocks"], self.h + net.layers(f"latent_in.{i}", points))
        self.h = h if i == net.n - 1 else shuffle(net.layers(f"expand.{i}", net.relu(h)))
        self.level += 1


class Pixels:
    """The parameters of one sub-image after the other (docs/format.md, "Sub-images").

    ``x``: levels (B,C,H,W), known as far as decoded."""

    def __init__(self, network: Network, g: Map, x: NDArray[np.uint8]):
        self.network, self.x = network, x
        self.fine, self.coarse = g, None
        if len(network.sub_images) == 7:
            self.coarse = network.layers("to_coarse", network.relu(g))

    def parameters(self, p: int) -> list[Ints]:
        """Each group's parameters (n_g,C,B,r_p,s_p) as the heads give them."""
        net, sub_image = self.network, self.network.sub_images[p]
        g = net.residual(f"sub_image_blocks.{p}", net.config["sub_image_blocks"], self._stream(sub_image))
        self._keep(sub_image, g)
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
        rows, columns = sub_image.pixels
        if len(net.sub_images) == 7 and p == 3:
            assert self.coarse is not None
            sub_image, rows, columns = net.sub_images[4], slice(None, None, 2), slice(None, None, 2)
            self.fine = self.fine + shuffle(net.layers("from_coarse", net.relu(self.coarse)))
        g = self._stream(sub_image)
        seen = self.x[:, :, rows, columns].transpose(1, 0, 2, 3).astype(np.float32) - net.half
        self._keep(sub_image, g + net.layers(f"pixel_in.{p}", extended(seen, *g.shape[2:])))

    def neighbours(self, p: int) -> Ints:
        """V (M,C,B,r_p,s_p) of docs/format.md, "Distributions": the known neighbours of the pixels, in steps."""
        net, sub_image = self.network, self.network.sub_images[p]
        edge = sub_image.step // 2
        padded = np.pad(self.x, ((0, 0), (0, 0), (edge, edge), (edge, edge))).transpose(1, 0, 2, 3).astype(np.int64)
        found = []
        for i, j in sub_image.neighbours:
            r, s = sub_image.row + edge + i, sub_image.column + edge + j
            found.append(
                padded[:, :, r :: sub_image.step, s :: sub_image.step][:, :, : sub_image.rows, : sub_image.columns]
            )
        steps: Ints = (np.stack(found) - net.half) * steps_per_level(net.config["levels"])
        return steps

    def _stream(self, sub_image: SubImage) -> Map:
        if sub_image.step == 2:
            return self.fine
        assert self.coarse is not None
        return self.coarse

    def _keep(self, sub_image: SubImage, g: Map) -> None:
        if sub_image.step == 2:
            self.fine = g
        else:
            self.coarse = g


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
