"""What a network answers to a fixed question (docs/format.md, "Probe"): a machine that computes otherwise gives another
answer."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaedensity.numpy_decoder.network import Network, Pixels, TopDownPass
from vaedensity.numpy_decoder.series import SeriesNetwork

FACTOR = 2654435761
POSITIONS = 32  # of a series, at most
DIGITS = 16


def question(count: int, below: int) -> NDArray[np.int64]:
    """The fixed values, or the fixed latents, of the one item of the probe.

    Parameters
    ----------
    count
        How many.
    below
        They are whole numbers from 0 to ``below`` - 1.

    Returns
    -------
    array (count,)

    Examples
    --------
    >>> question(5, 256).tolist()
    [0, 55, 110, 166, 221]
    """
    return ((np.arange(count, dtype=np.int64) * FACTOR & 0xFFFFFFFF) >> 16) % below


def digest(answers: Iterable[NDArray[Any]]) -> str:
    """The probe's 16 hexadecimal digits.

    Parameters
    ----------
    answers
        Arrays of whole numbers below 2^31 in magnitude, of any type, in the order of the document.

    Returns
    -------
    str
        The first digits of the SHA-256 of all numbers as little-endian int32.

    Examples
    --------
    >>> digest([np.arange(3), np.ones((2, 2))])
    '181c193cf8c3c77c'
    """
    sha256 = hashlib.sha256()
    for answer in answers:
        sha256.update(np.ascontiguousarray(answer).astype("<i4").tobytes())
    return sha256.hexdigest()[:DIGITS]


def answer(network: Network | SeriesNetwork) -> str:
    """The probe of ``network``, computed as items are."""
    return digest(_series(network) if isinstance(network, SeriesNetwork) else _image(network))


def answer_in_double(network: Network | SeriesNetwork) -> str:
    """The probe of ``network``, computed in float64, where nothing near 2^24 can round, whatever a library does.

    ``network`` computes so from now on."""
    for layer in network.layers.layers.values():
        layer.matrix = layer.matrix.astype(np.float64)
    return answer(network)


def _image(network: Network) -> Iterator[NDArray[Any]]:
    c = network.config
    shape = (1, c["channels"], c["height"], c["width"])
    x = question(int(np.prod(shape)), c["levels"]).astype(np.uint8).reshape(shape)
    z = question(network.latents, 256)
    features, top_down = network.features(x), TopDownPass(network, 1)
    yield from features
    for level, (channels, rows, columns) in enumerate(network.shapes):
        yield from (*top_down.prior(level), *top_down.posterior(level, features))
        own, z = np.split(z, [channels * rows * columns])
        top_down.absorb(own[None])
    pixels = Pixels(network, top_down.streams[-1], x)
    for p in range(len(network.sub_images)):
        yield from pixels.parameters(p)
        pixels.absorb(p)


def _series(network: SeriesNetwork) -> Iterator[NDArray[Any]]:
    c = network.config
    x = question(c["length"], c["levels"]).astype(np.uint8)[None]
    yield network.posterior(x)
    yield from islice(network.weights(question(c["variables"], c["categories"])[None], x), POSITIONS)
