"""What may happen to gradients between ``backward`` and ``step``: small transforms that compose.

A transform is called with [(name, parameter)] and the number of steps done, and changes ``parameter.grad`` in place;
parameters without a gradient are passed over. Settings out of range raise UsageError. Where a transform returns False,
the step is not to be taken:

    if transform(list(model.named_parameters()), step) is not False:
        optimizer.step()
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vaedensity.errors import UsageError
from vaedensity.training.patterns import matching

NamedParameters = Sequence[tuple[str, nn.Parameter]]


class GradientTransform(ABC):
    """A change of gradients in place, between ``backward`` and ``step``.

    Make it a frozen dataclass: its repr then tells its settings, by which a resumed run knows it again. What it learns
    on the way is state, tensors by name, and takes no part in repr or equality.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Scale(GradientTransform):
    ...     factor: float
    ...
    ...     def __call__(self, named_parameters, step):
    ...         for _, p in named_parameters:
    ...             if p.grad is not None:
    ...                 p.grad.mul_(self.factor)
    >>> x = nn.Parameter(torch.zeros(2))
    >>> x.grad = torch.ones(2)
    >>> Scale(3.0)([("x", x)], step=0)
    >>> x.grad
    tensor([3., 3.])
    """

    @abstractmethod
    def __call__(self, named_parameters: NamedParameters, step: int) -> bool | None:
        """Change the gradients.

        Parameters
        ----------
        named_parameters : sequence of (str, nn.Parameter)
        step : int
            Steps done so far.

        Returns
        -------
        bool or None
            False where no step is to be taken.
        """

    def check(self, names: Sequence[str]) -> None:
        """Raise UsageError where a pattern matches none of the parameters ``names``."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """All that later calls depend on, copied."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` gave. Raises KeyError where something is missing."""
        return None


def _gradients(named_parameters: NamedParameters) -> list[tuple[Tensor, Tensor]]:
    """(parameter, gradient) where there is one, cut loose from the graph."""
    return [(p.detach(), p.grad.detach()) for _, p in named_parameters if p.grad is not None]


def global_norm(named_parameters: NamedParameters) -> Tensor:
    """The Euclidean norm of all gradients as one vector, a tensor without dimensions; 0 where there are none."""
    return torch.nn.utils.get_total_norm([g for _, g in _gradients(named_parameters)])


def require(condition: bool, transform: object, expected: str) -> None:
    """Raise UsageError unless the settings of ``transform`` are as ``expected``."""
    if not condition:
        raise UsageError(f"{transform}: expected {expected}")


def positive(value: float) -> bool:
    return 0 < value < math.inf


@dataclass(frozen=True)
class ClipValue(GradientTransform):
    """Every entry into [-limit, limit]."""

    limit: float

    def __post_init__(self) -> None:
        require(positive(self.limit), self, "a limit above 0")

    def __call__(self, named_parameters: NamedParameters, step: int) -> None:
        for _, g in _gradients(named_parameters):
            g.clamp_(-self.limit, self.limit)


@dataclass(frozen=True)
class ClipNorm(GradientTransform):
    """Each tensor's Euclidean norm to at most ``limit``, g * min(1, limit / |g|)."""

    limit: float

    def __post_init__(self) -> None:
        require(positive(self.limit), self, "a limit above 0")

    def __call__(self, named_parameters: NamedParameters, step: int) -> None:
        for _, g in _gradients(named_parameters):
            g.mul_((self.limit / torch.linalg.vector_norm(g)).clamp(max=1))


@dataclass(frozen=True)
class ClipGlobalNorm(GradientTransform):
    """The norm of all gradients as one vector to at most ``limit`` (Pascanu et al. 2013, algorithm 1)."""

    limit: float = 1.0

    def __post_init__(self) -> None:
        require(positive(self.limit), self, "a limit above 0")

    def __call__(self, named_parameters: NamedParameters, step: int) -> None:
        torch.nn.utils.clip_grad_norm_([p for _, p in named_parameters], self.limit)


@dataclass(frozen=True)
class ClipAdaptive(GradientTransform):
    """Each output unit's gradient to at most ``ratio`` times its weights' norm (Brock et al. 2021, eq. 3).

    A unit is a row along the first dimension; a vector or a scalar is one unit. ``floor`` stands in for smaller weight
    norms, so that weights that begin at 0 can leave it.
    """

    ratio: float
    floor: float = 1e-3

    def __post_init__(self) -> None:
        require(positive(self.ratio) and positive(self.floor), self, "a ratio and a floor above 0")

    def __call__(self, named_parameters: NamedParameters, step: int) -> None:
        for p, g in _gradients(named_parameters):
            largest = self.ratio * _unit_norms(p).clamp(min=self.floor)
            g.mul_((largest / _unit_norms(g)).clamp(max=1))


def _unit_norms(t: Tensor) -> Tensor:
    """Norms of the rows (O,1,...) of a tensor (O,...); of a vector or scalar, its own."""
    norms: Tensor = torch.linalg.vector_norm(t, dim=tuple(range(1, t.dim())) or None, keepdim=t.dim() > 1)
    return norms


@dataclass(frozen=True)
class Centralise(GradientTransform):
    """Each output unit's gradient minus its mean, for matrices and kernels (Yong et al. 2020, eq. 1)."""

    def __call__(self, named_parameters: NamedParameters, step: int) -> None:
        for _, g in _gradients(named_parameters):
            if g.dim() > 1:
                g.sub_(g.mean(dim=tuple(range(1, g.dim())), keepdim=True))


@dataclass(frozen=True)
class Sign(GradientTransform):
    """Every entry's sign (Bernstein et al. 2018, signSGD)."""

    def __call__(self, named_parameters: NamedParameters, step: int) -> None:
        for _, g in _gradients(named_parameters):
            g.sign_()


@dataclass(frozen=True)
class AddNoise(GradientTransform):
    """Gaussian noise of variance ``variance`` / (1 + t)^``decay`` after t steps (Neelakantan et al. 2015, section 3).

    The paper tries variances 0.01, 0.3 and 1. The noise is a function of the seed, the step and the parameter's name:
    it has no state, and does not depend on what other parameters there are.
    """

    variance: float
    decay: float = 0.55
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            positive(self.variance) and 0 <= self.decay < math.inf, self, "a variance above 0, a decay of 0 or more"
        )
        require(isinstance(self.seed, int), self, "a whole number as seed")

    def __call__(self, named_parameters: NamedParameters, step: int) -> None:
        deviation = math.sqrt(self.variance / (1 + step) ** self.decay)
        for name, p in named_parameters:
            if p.grad is not None:
                key = hashlib.sha256(f"{self.seed}/{step}/{name}".encode()).digest()
                generator = torch.Generator(p.device).manual_seed(int.from_bytes(key[:4], "little"))
                noise = torch.randn(p.grad.shape, generator=generator, device=p.device, dtype=p.grad.dtype)
                p.grad.detach().add_(noise, alpha=deviation)


@dataclass
class _Running:
    mean: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class SkipOnSpike(GradientTransform):
    """No step where the gradients' global norm exceeds ``factor`` times its running mean, or is not finite.

    The gradients are then set to None, and False returned. The mean is over all norms at first and has a memory of
    ``window`` steps later; a spike counts in it as ``factor`` means, so that a lasting change of scale gets through
    after a while. The first ``warmup`` finite norms are no spikes, whatever they are.
    """

    factor: float
    window: int = 100
    warmup: int = 20
    running: _Running = field(default_factory=_Running, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(1 < self.factor < math.inf, self, "a factor above 1")
        whole = isinstance(self.window, int) and isinstance(self.warmup, int)
        require(whole and self.window >= 1 and self.warmup >= 1, self, "whole numbers above 0 as window and warmup")

    def __call__(self, named_parameters: NamedParameters, step: int) -> bool | None:
        norm, running = float(global_norm(named_parameters)), self.running
        limit = self.factor * running.mean if running.count >= self.warmup else math.inf
        if math.isfinite(norm):
            running.count += 1
            running.mean += (min(norm, limit) - running.mean) / min(running.count, self.window)
            if norm <= limit:
                return None
        for _, p in named_parameters:
            p.grad = None
        return False

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "mean": torch.tensor(self.running.mean, dtype=torch.float64),
            "count": torch.tensor(self.running.count),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.running.mean, self.running.count = float(state["mean"]), int(state["count"])


@dataclass(frozen=True)
class ForPattern(GradientTransform):
    """``transform``, for the parameters that ``pattern`` matches only (:mod:`~vaedensity.training.patterns`).

    Where it returns False, the whole step is not to be taken. Raises UsageError where nothing matches.

    >>> ForPattern("decoder.*", ClipNorm(1.0)).check(["encoder.weight", "decoder.weight"])
    """

    pattern: str
    transform: GradientTransform

    def __call__(self, named_parameters: NamedParameters, step: int) -> bool | None:
        parameters = dict(named_parameters)
        return self.transform([(name, parameters[name]) for name in matching(parameters, self.pattern)], step)

    def check(self, names: Sequence[str]) -> None:
        self.transform.check(matching(names, self.pattern))

    def state_dict(self) -> dict[str, Tensor]:
        return self.transform.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.transform.load_state_dict(state)


@dataclass(frozen=True)
class Chain(GradientTransform):
    """One transform after the other, until one returns False. An empty chain leaves gradients as they are.

    >>> len(Chain([SkipOnSpike(5.0), ClipGlobalNorm(1.0)]).transforms)
    2
    """

    transforms: tuple[GradientTransform, ...]

    def __init__(self, transforms: Iterable[GradientTransform] = ()):
        object.__setattr__(self, "transforms", tuple(transforms))

    def __call__(self, named_parameters: NamedParameters, step: int) -> bool | None:
        # all() stops at the first False, so what comes after a skipped step learns nothing from it.
        return None if all(t(named_parameters, step) is not False for t in self.transforms) else False

    def check(self, names: Sequence[str]) -> None:
        for transform in self.transforms:
            transform.check(names)

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{i}.{key}": t for i, part in enumerate(self.transforms) for key, t in part.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for i, part in enumerate(self.transforms):
            part.load_state_dict({key.removeprefix(f"{i}."): t for key, t in state.items() if key.startswith(f"{i}.")})
