"""The text of fit's options --grad, --term and --lr-scale: ``encoder.*=clip_norm(1.0)``, ``flood(1.0)``, ``stem=0.1``.

It is parsed, never evaluated: one call with a known name and literal numbers.
"""

import ast
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

from vaedensity.errors import UsageError
from vaedensity.training.gradients import (
    AddNoise,
    Centralise,
    Chain,
    ClipAdaptive,
    ClipGlobalNorm,
    ClipNorm,
    ClipValue,
    ForPattern,
    GradientTransform,
    Sign,
    SkipOnSpike,
)
from vaedensity.training.penalties import Flood, LossTerm, PenaliseGradient

Part = TypeVar("Part")

TRANSFORMS: dict[str, type[GradientTransform]] = {
    "clip_value": ClipValue,
    "clip_norm": ClipNorm,
    "clip_global_norm": ClipGlobalNorm,
    "clip_adaptive": ClipAdaptive,
    "centralise": Centralise,
    "add_noise": AddNoise,
    "sign": Sign,
    "skip_on_spike": SkipOnSpike,
}
TERMS: dict[str, type[LossTerm]] = {"flood": Flood, "penalise_gradient": PenaliseGradient}


def parse_transform(spec: str) -> GradientTransform:
    """The transform of ``NAME(NUMBERS)``, or of ``PATTERN=NAME(NUMBERS)`` for a part of the parameters.

    Raises UsageError for any other text, unknown names and wrong numbers.

    >>> parse_transform("encoder.*=clip_norm(1.0)")
    ForPattern(pattern='encoder.*', transform=ClipNorm(limit=1.0))
    """
    before, equals, after = spec.partition("=")
    # An "=" behind the parenthesis belongs to an argument: add_noise(0.01, seed=3).
    pattern, text = (before.strip(), after) if equals and "(" not in before else (None, spec)
    if pattern == "":
        raise UsageError(f"gradient transform {spec!r}: expected a pattern before '='")
    transform = _call(
        text.strip(), spec, "gradient transform", TRANSFORMS, "[PATTERN=]NAME(NUMBERS), for example clip_norm(1.0)"
    )
    return transform if pattern is None else ForPattern(pattern, transform)


def parse_transforms(specs: Iterable[str]) -> GradientTransform:
    """The transforms of ``specs``, one after the other."""
    transforms = [parse_transform(spec) for spec in specs]
    return transforms[0] if len(transforms) == 1 else Chain(transforms)


def parse_terms(specs: Iterable[str]) -> tuple[LossTerm, ...]:
    """Terms of the loss from ``NAME(NUMBERS)`` each. Raises UsageError for any other text.

    >>> parse_terms(["flood(1.0)"])
    (Flood(level=1.0),)
    """
    form = "NAME(NUMBERS), for example flood(1.0)"
    return tuple(_call(spec.strip(), spec, "term of the loss", TERMS, form) for spec in specs)


def parse_scales(specs: Iterable[str]) -> dict[str, float]:
    """Factors of the learning rate from ``PATTERN=SCALE`` each, in order. Raises UsageError for any other text.

    >>> parse_scales(["encoder.*=0.1", "start=0"])
    {'encoder.*': 0.1, 'start': 0.0}
    """
    scales: dict[str, float] = {}
    for spec in specs:
        pattern, equals, number = spec.rpartition("=")
        try:
            scale = float(number)
        except ValueError:
            scale = math.nan
        if not pattern or not equals or not (math.isfinite(scale) and scale >= 0):
            raise UsageError(f"learning-rate scale {spec!r}: expected PATTERN=SCALE, for example encoder.*=0.1")
        scales.pop(pattern, None)  # given again, it counts where it came last
        scales[pattern] = scale
    return scales


def _call(text: str, spec: str, what: str, known: Mapping[str, type[Part]], form: str) -> Part:
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise UsageError(f"{what} {spec!r}: expected {form}")
    if node.func.id not in known:
        raise UsageError(f"{what} {spec!r}: {node.func.id} is none of {', '.join(known)}")
    kind = known[node.func.id]
    signature = inspect.signature(kind)
    names = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in signature.parameters.values()]
    values = [_number(argument, what, spec) for argument in node.args]
    named = [(keyword.arg or "**", _number(keyword.value, what, spec)) for keyword in node.keywords]
    try:
        if len(dict(named)) < len(named):
            raise TypeError("an argument is given twice")
        bound = signature.bind(*values, **dict(named))
        return kind(*bound.args, **bound.kwargs)
    except TypeError as error:
        raise UsageError(f"{what} {spec!r}: {error}; it is {node.func.id}({', '.join(names)})") from error
    except UsageError as error:
        raise UsageError(f"{what} {spec!r}: {error}") from error


def _number(node: ast.expr, what: str, spec: str) -> float:
    """The value of a literal number, with or without a minus."""
    sign, bare = (-1, node.operand) if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else (1, node)
    if not isinstance(bare, ast.Constant) or type(bare.value) not in (int, float):
        raise UsageError(f"{what} {spec!r}: expected plain numbers as arguments")
    value = bare.value
    assert isinstance(value, int | float)
    if abs(value) >= 2**63:
        raise UsageError(f"{what} {spec!r}: a number is too large")
    return sign * value
