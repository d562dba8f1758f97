"""Nats, bits, bits per dimension and durations: the one place where they are converted; and numbers as JSON has them."""

import json
import math
import re
from typing import Any

from vaedensity.errors import UsageError

LN2 = math.log(2.0)
SECONDS = {"s": 1, "m": 60, "h": 3600}


def nats_to_bits(nats: float) -> float:
    """Information in bits of an amount given in nats."""
    return nats / LN2


def bits_to_nats(bits: float) -> float:
    """Information in nats of an amount given in bits."""
    return bits * LN2


def bits_per_dim(log_prob_nats: float, dims: int) -> float:
    """Rate in bits per dimension of an item of ``dims`` values with log-probability ``log_prob_nats``.

    The data are integers and the likelihood is a probability mass function, so there is no
    dequantisation constant to add.

    >>> round(bits_per_dim(-784 * LN2, 784), 6)
    1.0
    """
    return -log_prob_nats / (dims * LN2)


def json_line(record: dict[str, Any]) -> str:
    """``record`` as JSON in one line. JSON knows no NaN and no infinities: they are null.

    >>> json_line({"a": [1.5, math.inf]})
    '{"a": [1.5, null]}'
    """

    def known(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {key: known(one) for key, one in value.items()}
        return [known(one) for one in value] if isinstance(value, list | tuple) else value

    return json.dumps(known(record), allow_nan=False)


def parse_duration(text: str) -> float:
    """Seconds of a time with its unit, such as "90s", "10m" or "1.5h". Raises UsageError.

    >>> parse_duration("1.5h")
    5400.0
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if not match:
        raise UsageError(f"{text!r}: expected a time such as 90s, 10m or 1.5h")
    if not match[2]:
        raise UsageError(f"{text!r}: expected a time with its unit, {text}s for seconds or {text}m for minutes")
    return float(match[1]) * SECONDS[match[2]]
