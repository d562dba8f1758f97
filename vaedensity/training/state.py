"""All of a run that changes while it trains, in memory and on disk.

The file is safetensors (no pickle): weights, their average, the best average so far, the optimiser's moments, the noise
generator and what gradient transforms have learnt as tensors; counters and the record of the settings as JSON.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vaedensity.data.atomic import atomic_file
from vaedensity.errors import ModelError, UsageError
from vaedensity.model.kinds import Network
from vaedensity.training.gradients import GradientTransform
from vaedensity.training.settings import check_same

VERSION = 1


class WeightAverage:
    """Exponential moving average of a module's weights (Polyak & Juditsky 1992), with a short memory at first."""

    def __init__(self, model: nn.Module, decay: float = 0.999):
        self.decay = decay
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """average <- decay * average + (1 - decay) * weights, after ``steps`` steps."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        parameters = dict(model.named_parameters())
        weights = [parameters[name].detach() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)

    def copy(self) -> dict[str, Tensor]:
        """The averaged weights, on the processor."""
        return {name: p.to("cpu", copy=True) for name, p in self.average.items()}


class Snapshot(NamedTuple):
    """A run's tensors after ``steps`` steps, on the processor."""

    tensors: dict[str, Tensor]
    steps: int


@dataclass
class TrainingState:
    """A run: what it trains, how far it has come, and the best averaged weights so far."""

    model: Network
    average: WeightAverage
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    gradient: GradientTransform
    steps: int = 0
    seconds: float = 0.0
    restarts: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_rate: float = math.inf
    best_step: int = 0

    def keep_if_best(self, rate: float) -> None:
        """Keep the averaged weights, whose ``rate`` is known, if none were better."""
        if rate < self.best_rate:
            self.best, self.best_rate, self.best_step = self.average.copy(), rate, self.steps

    def snapshot(self) -> Snapshot:
        tensors = {f"weights/{name}": p.detach() for name, p in self.model.named_parameters()}
        tensors |= {f"average/{name}": p for name, p in self.average.average.items()}
        for name, p in self.model.named_parameters():
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
        tensors["generator"] = self.generator.get_state()
        tensors |= {f"gradient/{key}": t for key, t in self.gradient.state_dict().items()}
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        return Snapshot(copies, self.steps)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Put back what :meth:`snapshot` gave. Raises KeyError, IndexError or RuntimeError where a part is missing."""
        tensors = snapshot.tensors
        moments: dict[str, dict[str, Tensor]] = {}
        for path, t in _below("optimizer", tensors).items():
            key, name = path.split("/", 1)
            moments.setdefault(name, {})[key] = t
        for name, p in self.model.named_parameters():
            p.copy_(tensors[f"weights/{name}"])
            self.optimizer.state.pop(p, None)
            if name in moments:
                self.optimizer.state[p] = {
                    key: t.clone().to(t.device if key == "step" else p.device) for key, t in moments[name].items()
                }
        for name, mean in self.average.average.items():
            mean.copy_(tensors[f"average/{name}"])
        self.generator.set_state(tensors["generator"])
        self.gradient.load_state_dict(_below("gradient", tensors))
        self.steps = snapshot.steps

    def save(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write the state, whole or not at all; ``record`` names what the run is made with."""
        counters = {
            "version": VERSION,
            "steps": self.steps,
            "seconds": self.seconds,
            "restarts": self.restarts,
            "best_step": self.best_step,
            "best_rate": self.best_rate if math.isfinite(self.best_rate) else None,
        }
        tensors = self.snapshot().tensors | {f"best/{name}": t.contiguous() for name, t in self.best.items()}
        data = save(tensors, metadata={"counters": json.dumps(counters), "record": json.dumps(record)})
        with atomic_file(path, True) as f:
            f.write(data)

    def load(self, path: Path, record: Mapping[str, Any]) -> None:
        """Go on from a saved run. Raises UsageError where its ``record`` is another, ModelError where it is broken."""
        tensors, counters, saved = _read(path)
        check_same(path, saved, record)
        try:
            self.restore(Snapshot(tensors, counters["steps"]))
            self.seconds, self.restarts, self.best_step = (counters[k] for k in ("seconds", "restarts", "best_step"))
            self.best_rate = math.inf if counters["best_rate"] is None else counters["best_rate"]
            self.best = _below("best", tensors)
        except (KeyError, RuntimeError, IndexError) as error:
            raise ModelError(f"{path}: the saved run is not whole ({error}); fit without resume=True") from error


def _below(folder: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``folder/``, by the rest of their names."""
    return {key.removeprefix(f"{folder}/"): t for key, t in tensors.items() if key.startswith(f"{folder}/")}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """(tensors, counters, record of the settings)."""
    if not path.exists():
        raise UsageError(f"resume: no training state at {path}; fit without resume=True first")
    try:
        with safe_open(path, "pt") as f:
            counters, record = (json.loads(f.metadata().get(key, "{}")) for key in ("counters", "record"))
            tensors = {key: f.get_tensor(key) for key in f.keys()}
        version = counters.get("version")
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not a training state ({type(error).__name__}); delete it and fit again") from error
    if version != VERSION:
        raise ModelError(
            f"{path}: a training state of version {version!r:.40}, expected {VERSION}; delete it and fit again"
        )
    return tensors, counters, record
