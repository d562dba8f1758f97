"""What every estimator of log p(x) shares: randomness keyed by the item, and a source of log-weights to gather."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import Field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.arithmetic import full_precision
from vaedensity.density.estimate import Estimate, Floats, Kind
from vaedensity.density.weights import Rows, WeightSums
from vaedensity.items import plain_array
from vaedensity.model.latent_model import LatentModel

ITEMS_AT_ONCE = 16  # share an encoder pass even where one item's samples alone fill a batch


class ItemNoise:
    """Independent streams of random numbers for one item (Philox, Salmon et al. 2011, keyed by a hash).

    The key comes from the item's values, not from its place. So results depend on neither order, batch, worker nor
    what else is scored, and equal items get equal results.

    Parameters
    ----------
    model_sha256 : str
        The model's identity; another model draws other numbers.
    seed : int
    item : ndarray
        The item as the model takes it; dtype, shape and values all count.

    Examples
    --------
    >>> one, same = (ItemNoise("", 0, np.array([1, 2, 3])) for _ in range(2))
    >>> one.stream("posterior").random() == same.stream("posterior").random()
    True
    """

    def __init__(self, model_sha256: str, seed: int, item: NDArray[np.generic]):
        digest = hashlib.sha256(f"{model_sha256} {seed} {item.dtype.str} {item.shape} ".encode())
        digest.update(np.ascontiguousarray(item).tobytes())
        self.key = int.from_bytes(digest.digest()[:16], "little")

    def stream(self, purpose: str, index: int = 0) -> np.random.Generator:
        """Stream ``index`` of ``purpose``: the same however many numbers other streams gave."""
        word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
        return np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, index, word]))


class Draws(NamedTuple):
    """Log-weights (r,k) of r items, and the log-weights of the plain posterior draws behind them, in nats."""

    log_weights: Floats
    elbo_terms: Floats


Sampler = Callable[[Rows, int], Draws]
"""Draws the next k samples of each of the items ``rows``; the first call gives samples 0 to k - 1."""


class Estimator(ABC):
    """An estimator of log p(x): a source of log-weights and a way to gather them, with its own settings.

    It knows no architecture and uses exactly as many samples as it was asked for. Subclasses are frozen dataclasses
    with a field ``samples``, a ``name`` and a ``kind``; most define :meth:`sampler` alone.
    """

    if TYPE_CHECKING:  # a dataclass would take a property that exists for the default of its field

        @property
        def samples(self) -> int: ...

        @property
        def name(self) -> str: ...

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # every estimator is a dataclass
    kind: Kind

    @abstractmethod
    def sampler(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Sampler:
        """Where the log-weights of items ``x`` (B,...) come from, one noise source each."""

    def collector(self, items: int, most: int) -> WeightSums:
        """What gathers up to ``most`` log-weights of each of ``items`` items."""
        return WeightSums(items, most, self.kind)

    def estimate(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Estimate:
        """Estimates for items ``x`` (B,...), with at most ``batch_size`` pairs of item and sample in memory at once,
        but at least B."""
        weights = self.collector(len(x), self.samples)
        gather(self.sampler(model, x, noise, batch_size), weights, np.arange(len(x)), self.samples, batch_size)
        return weights.estimate()


class TwoSided(Estimator):
    """An estimator that also gives an upper bound where an exact posterior draw is known (see density/bdmc.py)."""

    @abstractmethod
    def upper(
        self, model: LatentModel, x: Tensor, latents: Tensor, noise: list[ItemNoise], batch_size: int
    ) -> Estimate:
        """An upper bound in expectation, for items ``x`` (B,...) with exact draws ``latents`` (B,D) from p(z|x)."""


def gather(draw: Sampler, weights: WeightSums, rows: Rows, samples: int, batch_size: int) -> None:
    """Draw ``samples`` more for each item of ``rows``, a batch at a time."""
    chunk = max(1, min(samples, batch_size // len(rows)))
    for begin in range(0, samples, chunk):
        drawn = draw(rows, min(chunk, samples - begin))
        weights.add(rows, drawn.log_weights, drawn.elbo_terms)


@full_precision()
def score(
    model: LatentModel,
    items: NDArray[np.generic],
    estimator: Estimator,
    *,
    model_sha256: str = "",
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int], None] = lambda n: None,
) -> Estimate:
    """Estimate log p(x) in nats for every item, under any latent-variable model.

    :func:`vaedensity.score` does the same for model files and data in their own values, and explains the options.

    Parameters
    ----------
    model : LatentModel
        The network itself, on the device where it is to work.
    items : (N, ...) ndarray
        Items as the model takes them: of images, levels (N,C,H,W) uint8.
    model_sha256 : str
        The model's identity, which keys the noise.
    progress : callable
        Told after every batch how many items are done.

    Returns
    -------
    Estimate
        It depends on (``model_sha256``, ``seed``, the item's values) and not on batch size, order or what else is
        scored, up to the rounding of float32 sums (below 0.001 nats on images).

    Examples
    --------
    >>> import vaedensity as vd
    >>> model = vd.load_model("digits").float_model()
    >>> score(model, vd.load_digits()[-2:, None], vd.ImportanceSampling(samples=32)).samples
    array([32, 32])
    """
    parts, items = [], plain_array(items, "items")
    for part in score_batches(model, items, estimator, model_sha256=model_sha256, seed=seed, batch_size=batch_size):
        parts.append(part)
        progress(len(part))
    return Estimate.concatenate(parts)


def score_batches(
    model: LatentModel,
    items: NDArray[np.generic],
    estimator: Estimator,
    *,
    model_sha256: str = "",
    seed: int = 0,
    batch_size: int = 256,
) -> Iterator[Estimate]:
    """The estimates of :func:`score`, a few items at a time, in order."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    per_pass = max(min(ITEMS_AT_ONCE, batch_size), batch_size // estimator.samples)
    for begin in range(0, len(items), per_pass):
        part = np.array(items[begin : begin + per_pass], order="C")  # a copy: torch warns of arrays that are read-only
        noise = [ItemNoise(model_sha256, seed, item) for item in part]
        key = np.array([source.key % 2**64 for source in noise], np.uint64)
        estimate = estimator.estimate(model, torch.from_numpy(part).to(device), noise, batch_size)
        yield replace(estimate, item_key=key)
