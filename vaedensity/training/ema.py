"""Exponential moving average of the weights (Polyak & Juditsky 1992)."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """average <- decay * average + (1 - decay) * weights, with a short memory at the beginning."""

    def __init__(self, model: nn.Module, decay: float = 0.999):
        self.decay = decay
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        decay = min(self.decay, (1 + steps) / (10 + steps))
        parameters = dict(model.named_parameters())
        torch._foreach_lerp_(
            list(self.average.values()), [parameters[name].detach() for name in self.average], 1 - decay
        )

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        for name, p in model.named_parameters():
            p.copy_(self.average[name])

    def restore(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.average.items():
            tensor.copy_(tensors[name])
