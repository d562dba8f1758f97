"""What the text of --grad and --lr-scale means, and what is refused."""

import pytest

from vaedensity.cli.gradient_spec import TRANSFORMS, parse_scales, parse_transform, parse_transforms
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


@pytest.mark.parametrize(
    ("spec", "transform"),
    [
        ("clip_norm(1.0)", ClipNorm(1.0)),
        (" clip_global_norm() ", ClipGlobalNorm(1.0)),
        ("encoder.*=clip_norm(1.0)", ForPattern("encoder.*", ClipNorm(1.0))),
        ("add_noise(0.01, seed=3)", AddNoise(0.01, seed=3)),
        ("a=add_noise(0.01, decay=.5, seed=-3)", ForPattern("a", AddNoise(0.01, 0.5, -3))),
        ("skip_on_spike(4, window=50)", SkipOnSpike(4, window=50)),
        ("sign()", Sign()),
        ("centralise()", Centralise()),
        ("clip_value(1e-3)", ClipValue(1e-3)),
        ("clip_adaptive(0.01)", ClipAdaptive(0.01)),
    ],
)
def test_text_means_a_transform(spec: str, transform: GradientTransform) -> None:
    assert parse_transform(spec) == transform


def test_several_texts_are_a_chain() -> None:
    assert parse_transforms(["sign()"]) == Sign()
    assert parse_transforms(["sign()", "a=clip_norm(2)"]) == Chain([Sign(), ForPattern("a", ClipNorm(2))])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "expected [PATTERN=]NAME(NUMBERS)"),
        ("clip_norm", "for example clip_norm(1.0)"),
        ("a=b=sign()", "expected [PATTERN=]"),
        ("clip_norm(1.0", "expected [PATTERN=]"),
        ("clip_norm(1)(2)", "expected [PATTERN=]"),
        ("torch.save(1)", "expected [PATTERN=]"),
        ("sign()\0", "expected [PATTERN=]"),
        ("(" * 5000, "expected [PATTERN=]"),
        ("=sign()", "expected a pattern"),
        ("clip_nrom(1.0)", "clip_nrom is none of " + ", ".join(TRANSFORMS)),
        ("__import__('os')", "__import__ is none of"),
        ("clip_norm('1')", "plain numbers"),
        ("clip_norm(True)", "plain numbers"),
        ("clip_norm(10**3)", "plain numbers"),
        ("clip_norm(*[1])", "plain numbers"),
        ("clip_norm(x)", "plain numbers"),
        ("clip_norm(1e999)", "too large"),
        ("clip_norm()", "it is clip_norm(limit)"),
        ("clip_norm(1, 2)", "it is clip_norm(limit)"),
        ("clip_norm(limit=1, limit=2)", "twice; it is clip_norm(limit)"),
        ("clip_adaptive(1, roof=2)", "it is clip_adaptive(ratio, floor=0.001)"),
        ("skip_on_spike(2, running=1)", "it is skip_on_spike(factor, window=100, warmup=20)"),
        ("clip_norm(-1)", "expected a limit above 0"),
    ],
)
def test_other_text_is_rejected_in_one_line(spec: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_transform(spec)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_scales_as_text() -> None:
    assert list(parse_scales(["a=1", "b.*=0", "a=1e-2"]).items()) == [("b.*", 0.0), ("a", 0.01)]
    for spec in ("a", "a=", "=1", "a=x", "a=-1", "a=nan", "a=inf", ""):
        with pytest.raises(UsageError, match="PATTERN=SCALE"):
            parse_scales([spec])
