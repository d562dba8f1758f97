"""Nats, bits, bits per dimension and durations, converted in one place; and numbers as JSON has them."""

import json
import math
import re
from typing import Any

from vaedensity.errors import UsageError

LN2 = math.log(2.0)
SECONDS = {"s": 1, "m": 60, "h": 3600}


def nats_to_bits(nats: float) -> float:
    """Nats as bits.

    >>> round(nats_to_bits(1.0), 4)
    1.4427
    """
    return nats / LN2


def bits_per_dim(log_prob_nats: float, dims: int) -> float:
    """The rate of one item in bits per dimension (bits/dim).

    The data are integers and the likelihood is a probability mass function, so there is no dequantisation constant to
    add.

    Parameters
    ----------
    log_prob_nats
        Log-probability of the item, in nats.
    dims
        How many values the item has: 784 for an MNIST digit.

    Returns
    -------
    float
        ``-log2 p(x) / dims``.

    Examples
    --------
    >>> round(bits_per_dim(-784 * LN2, 784), 6)
    1.0
    """
    return -log_prob_nats / (dims * LN2)


def json_line(record: dict[str, Any]) -> str:
    """``record`` as JSON in one line. NaN and infinities, which JSON does not have, become null.

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
    """How many seconds a time such as "90s", "10m" or "1.5h" is.

    Raises
    ------
    UsageError
        If ``text`` is no number with one of the units s, m and h.

    Examples
    --------
    >>> parse_duration("1.5h")
    5400.0
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if not match:
        raise UsageError(f"{text!r}: expected a time such as 90s, 10m or 1.5h")
    if not match[2]:
        raise UsageError(f"{text!r}: expected a time with its unit, {text}s for seconds or {text}m for minutes")
    return float(match[1]) * SECONDS[match[2]]
