"""What a network answers to a fixed question: asked before a block is written or read (docs/format.md, "Probe")."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vaedensity.arithmetic import fresh_thread, full_precision
from vaedensity.coding.top_down import TopDownPass
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.integer_conv import IntegerKernel
from vaedensity.model.kinds import Network
from vaedensity.model.sequence import SequenceVAE
from vaedensity.numpy_decoder import probe
from vaedensity.numpy_decoder.model_file import Model
from vaedensity.numpy_decoder.network import Network as PlainNetwork
from vaedensity.numpy_decoder.series import SeriesNetwork


@full_precision()
@torch.inference_mode()
def answer(network: Network) -> str:
    """What torch makes of it."""
    found = _series(network) if isinstance(network, SequenceVAE) else _image(network)
    return probe.digest(part.numpy() for part in found)


@fresh_thread()
def expected_answer(network: Network, kernels: dict[str, IntegerKernel], start: Tensor) -> str:
    """What the stored integers make of it, without torch."""
    series = isinstance(network, SequenceVAE)
    parts = ("weight", "bias", "shift")
    tensors = {f"{name}/{part}": getattr(k, part).numpy() for name, k in kernels.items() for part in parts}
    tensors["start"] = start.to(torch.int32).numpy()
    model = Model(Path(), network.config.to_json(), None, [], tensors, "")
    return probe.answer_in_double(SeriesNetwork(model) if series else PlainNetwork(model))


def _image(network: HierarchicalVAE) -> Iterator[Tensor]:
    config = network.config
    x = torch.from_numpy(probe.question(config.dims, config.levels)).to(torch.uint8).view(1, *config.item_shape)
    sizes = [c * h * w for c, h, w in network.latent_shapes]
    z = torch.from_numpy(probe.question(sum(sizes), 256)).split(sizes)
    features, top_down = network.encode(x), TopDownPass(network, 1)
    yield from features
    for level, own in enumerate(z):
        yield from (*top_down.prior(level), *top_down.posterior(level, features))
        top_down.absorb(level, own[None].numpy())
    streams = network.begin_sub_images(top_down.streams[-1])
    for index in range(len(network.sub_images)):
        streams, outputs = network.sub_image_outputs(index, streams, x)
        yield from outputs
        if index + 1 < len(network.sub_images):
            streams = network.absorb_sub_image(index, streams, x)


def _series(network: SequenceVAE) -> Iterator[Tensor]:
    config = network.config
    x = torch.from_numpy(probe.question(config.length, config.levels))[None]
    yield network.encode(x)[0]
    z = torch.from_numpy(probe.question(config.variables, config.categories))
    yield network.logits(x[:, : probe.POSITIONS], F.one_hot(z, config.categories).float()[None])
