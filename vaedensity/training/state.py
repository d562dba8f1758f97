"""The training state on disk: everything that ``--resume`` needs to go on as if never stopped.

A safetensors file (no pickle): weights, their average, Adam's moments and the noise generator as
tensors, what the gradient transforms have learnt, the counters as JSON.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vaedensity.data.atomic import atomic_file
from vaedensity.errors import ModelError, UsageError
from vaedensity.training.ema import WeightAverage
from vaedensity.training.gradients import GradientTransform


def tensors_of(
    model: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    gradient: GradientTransform,
) -> dict[str, Tensor]:
    """Flat copies of all state tensors, on the CPU."""
    tensors = {f"weights/{name}": p.detach() for name, p in model.named_parameters()}
    tensors |= {f"average/{name}": p for name, p in average.average.items()}
    for name, p in model.named_parameters():
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
    tensors["generator"] = generator.get_state()
    tensors |= {f"gradient/{key}": t for key, t in gradient.state_dict().items()}
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def restore(
    tensors: dict[str, Tensor],
    model: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    gradient: GradientTransform,
) -> None:
    """Put copies made by :func:`tensors_of` back in place."""
    for name, p in model.named_parameters():
        p.copy_(tensors[f"weights/{name}"])
        moments = {
            key.split("/")[1]: t
            for key, t in tensors.items()
            if key.startswith("optimizer/") and key.split("/", 2)[2] == name
        }
        optimizer.state.pop(p, None)
        if moments:
            optimizer.state[p] = {k: t.clone().to(t.device if k == "step" else p.device) for k, t in moments.items()}
    average.restore({key[len("average/") :]: t for key, t in tensors.items() if key.startswith("average/")})
    generator.set_state(tensors["generator"])
    gradient.load_state_dict({key[len("gradient/") :]: t for key, t in tensors.items() if key.startswith("gradient/")})


def save_state(path: Path, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
    """The old state or the new one is there, whole."""
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    data = save(tensors, metadata={"counters": json.dumps(counters)})
    with atomic_file(path, True) as f:
        f.write(data)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.exists():
        raise UsageError(f"resume: no training state at {path}; fit without resume=True first")
    try:
        with safe_open(path, "pt") as f:
            counters = json.loads(f.metadata()["counters"])
            return {key: f.get_tensor(key) for key in f.keys()}, counters
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not a training state ({type(error).__name__}); delete it and fit again") from error
