"""Nats, bits and bits per dimension: the one place where they are converted."""

import math

LN2 = math.log(2.0)


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
