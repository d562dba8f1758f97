"""Exact layers in floating point (docs/format.md, "Network"): whole numbers below 2^24 as float32.

The weights prove that no partial sum of a layer is larger, so the order of summation does not matter, nor does the
library that multiplies matrices. Maps are (channels, batch, rows, columns): a convolution is one matrix product.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.model_file import Model

Map = NDArray[np.floating[Any]]
"""Whole numbers in float32, or in float64 where a probe is computed so."""
Interval = tuple[int, int]
LIMIT = 1 << 24


@dataclass(frozen=True)
class Spec:
    """What a layer must look like: ``kernel`` (rows, columns); ``interval``: least and greatest input; ``use`` of the
    inputs: all of them ("sum"), one of them ("table"), or one of each of ``groups`` ("groups")."""

    outputs: int
    inputs: int
    kernel: tuple[int, int]
    interval: Interval
    stride: int = 1
    use: str = "sum"
    groups: int = 1


def clamp(h: Map, low: int, high: int) -> Map:
    """``h`` within low..high (numpy's clip takes longer on small maps)."""
    out = np.maximum(h, np.float32(low))
    return np.minimum(out, np.float32(high), out=out)


class Layers:
    """A model's layers, each as ``spec`` says. Raises ValueError where one is not, or is not exact."""

    def __init__(
        self, model: Model, specs: dict[str, Spec], start_shape: tuple[int, ...], added: tuple[str, ...] | None = None
    ):
        """``added``: the layers whose results may be added up; None: all of them, and ``start``."""
        tensors = model.tensors
        wanted = {f"{name}/{part}" for name in specs for part in ("weight", "bias", "shift")} | {"start"}
        if set(tensors) != wanted:
            raise ValueError("layers are missing or left over")
        start = tensors["start"]
        if start.dtype.name != "int32" or start.shape != start_shape or np.abs(start.astype(np.int64)).max() >= 1 << 20:
            raise ValueError("the start map is not as it should be")
        self.start = start[0]
        self.layers = {name: Layer(name, model, spec) for name, spec in specs.items()}
        reach = sum(self.layers[name].reach for name in (specs if added is None else added))
        if reach + (np.abs(start.astype(np.int64)).max() if added is None else 0) >= LIMIT:
            raise ValueError("sums of maps may leave the whole numbers of float32")

    def __call__(self, name: str, x: Map) -> Map:
        """A convolution: ``x`` (in,B,R,S) to (out,B,R',S')."""
        return self.layers[name].convolve(x)

    def __getitem__(self, name: str) -> "Layer":
        return self.layers[name]


class Layer:
    """One layer; ``matrix`` (out, in * taps) and ``bias`` (out,) times 2^-shift. Raises ValueError."""

    def __init__(self, name: str, model: Model, spec: Spec):
        weight, bias, shift = (model.tensors[f"{name}/{part}"] for part in ("weight", "bias", "shift"))
        types = ["int8" if spec.use == "table" else "int16", "int32", "int8"]
        if [t.dtype.name for t in (weight, bias, shift)] != types:
            raise ValueError(f"layer {name}: types are not {', '.join(types)}")
        if weight.shape != (spec.outputs, spec.inputs, *spec.kernel) or {bias.shape, shift.shape} != {(spec.outputs,)}:
            raise ValueError(f"layer {name}: shapes are not those of its configuration")
        if shift.min() < -4 or shift.max() > 20:
            raise ValueError(f"layer {name}: a shift is not in -4..20")
        self.spec = spec
        scale = np.exp2(-shift.astype(np.float64))
        bound = _bound(weight.reshape(spec.outputs, -1).astype(np.int64), spec) + np.abs(bias.astype(np.int64))
        if bound.max() >= LIMIT or weight.min() == np.iinfo(weight.dtype).min:
            raise ValueError(f"layer {name}: its sums may leave the whole numbers of float32")
        self.reach = float((bound * scale).max()) + 0.5
        scaled = weight.reshape(spec.outputs, -1) * scale[:, None]
        self.matrix: Map = scaled.astype(np.float32)
        self.bias: Map = (bias * scale).astype(np.float32)[:, None]

    def product(self, columns: Map) -> Map:
        """(out,N) rounded results for inputs (in * taps,N)."""
        out = self.matrix @ columns
        out += self.bias
        return np.rint(out, out=out)

    def convolve(self, x: Map) -> Map:
        """``x`` (in,B,R,S), zeros around it, to (out,B,R',S')."""
        c, b, r, s = x.shape
        k, t = self.spec.kernel[0], self.spec.stride
        if k == 1:
            return self.product(x.reshape(c, -1)).reshape(-1, b, r, s)
        edge = k // 2
        padded = np.zeros((c, b, r + 2 * edge, s + 2 * edge), np.float32)
        padded[:, :, edge : edge + r, edge : edge + s] = x
        rows, columns = (r - 1) // t + 1, (s - 1) // t + 1
        taps = np.empty((c, k, k, b, rows, columns), np.float32)
        for u in range(k):
            for v in range(k):
                taps[:, u, v] = padded[:, :, u : u + r : t, v : v + s : t]
        return self.product(taps.reshape(c * k * k, -1)).reshape(-1, b, rows, columns)

    def row(self, inputs: NDArray[np.int64]) -> Map:
        """(out,N): of a table, the rows ``inputs`` (N,)."""
        return np.rint(self.matrix[:, inputs] + self.bias)

    def chosen(self, inputs: NDArray[np.int64]) -> Map:
        """(out,N): the sum over inputs (G,N), one of each group, that are 1, the others being 0."""
        total: Map = self.matrix[:, inputs].sum(1) + self.bias
        return np.rint(total)


def _bound(weight: NDArray[np.int64], spec: Spec) -> NDArray[np.int64]:
    """(out,) the largest magnitude of a sum of weights (out, in * taps), without bias."""
    bound: NDArray[np.int64]
    if spec.use == "sum":
        low, high = spec.interval
        up, down = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
        bound = np.maximum(up * high + down * low, -(up * low + down * high))
    else:
        bound = np.abs(weight).reshape(len(weight), spec.groups, -1).max(2).sum(1)
    return bound
