"""JSON values that readers may not expect, and JSON with one place altered."""

from random import Random
from typing import Any


def words(text: str) -> list[str]:
    return text.split()


EDGES = [2**k + d for k in (24, 28, 31, 32, 40, 48, 62, 63, 64) for d in (-1, 0, 1)]
NUMBERS = [*range(9), *(n + d for n in (16, 21, 32, 64, 128, 256, 4096, 65536) for d in (-1, 0, 1)), *EDGES]
VARINTS = [n for n in NUMBERS if n < 2**63]
NAMES = words(
    ". .. / ../x /etc/passwd a/../../b a\\b c:d x y pool grey model a/b a//b a/./b a/ CON ~ -rf \xe9 e\u0301 \u202e"
)
NAMES += ["", " ", "a\0b", "a\nb", "\ud800", "\udc80", "a" * 300, "a/" * 200]
WORDS = words(
    """
    |u1 |b1 <i2 >i2 <f4 <f8 <U5 |S3 |V4 |V0 <M8[ns] <m8[0s] |O i4,i4 (2,)i4 <c16 NHW NHWC NCHW NT L RGB
    1 npy npz folder file files tree d f i l telepathy a.png b.webp c.tif d.PNG sequence image gumbel
    normal mixture categorical I16 I8 I32 F32 F16 BF16 F64 U8 BOOL F8_E4M3
    """
)
WORDS += ["0" * 64, "f" * 64, "0" * 16]
FLOATS = [0.5, -1.0, 1e300, float("inf"), float("-inf"), float("nan")]
KEYS = words(
    """
    arrays name dtype shape layout restore kind files sizes mode entries types links
    images groups extras rights times bytes requires model particles probe array sha256 config values card
    unit direct_steps version neighbours sub_images sub_image_blocks likelihood
    """
)


def odd_value(rng: Random, depth: int = 0) -> Any:
    """Some JSON value."""
    kind = rng.randrange(14)
    if kind < 4:
        return rng.choice(NUMBERS) * rng.choice((1, 1, 1, -1))
    if kind < 6:
        return rng.choice(NAMES)
    if kind < 8:
        return rng.choice(WORDS)
    if kind == 8:
        return rng.choice((True, False, None))
    if kind == 9:
        return rng.choice(FLOATS)
    if kind == 10 and depth < 3:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 11 and depth < 3:
        return {rng.choice(KEYS): odd_value(rng, depth + 1) for _ in range(rng.randrange(3))}
    if kind == 12:
        deep: Any = 0
        for _ in range(rng.choice((3, 30, 90))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    return [rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 2, 9, 40)))]


def mutate_json(rng: Random, root: Any) -> Any:
    """``root`` with one place altered; it may be altered itself."""
    holder: Any = {"root": root}
    key: Any = "root"
    for _ in range(rng.choice((1, 2, 3, 4, 5, 8))):
        value = holder[key]
        if not isinstance(value, (dict, list)) or not value:
            break
        holder, key = value, rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    value, choice = holder[key], rng.randrange(12)
    if choice == 0 and len(holder) > 1:
        del holder[key]
        return root
    if choice == 1:
        if isinstance(holder, list):
            holder.insert(key, value)
        elif key != "root":
            holder[rng.choice(KEYS)] = value
        return root
    if choice == 2 and isinstance(value, dict):
        value[rng.choice(KEYS)] = odd_value(rng)
        return root
    if choice == 3 and isinstance(value, list):
        value.append(odd_value(rng) if rng.random() < 0.5 or not value else rng.choice(value))
        return root
    if choice == 4 and isinstance(value, list):
        rng.shuffle(value)
        return root
    if choice < 8 and type(value) is int:
        new: Any = value + rng.choice((-1, 1, 2, -2, 8, -value - 1, value))
    elif choice < 9 and isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        new = value[:at] + rng.choice(NAMES) + value[at + rng.randrange(2) :]
    else:
        new = odd_value(rng)
    if key == "root":
        return new
    holder[key] = new
    return root
