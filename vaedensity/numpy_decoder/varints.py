"""Varints (section 2.1)."""


def get_varint(data: bytes, at: int) -> tuple[int, int]:
    """(the varint at ``at``, where it ends). Raises ValueError."""
    value = 0
    for k in range(9):
        if at + k >= len(data):
            raise ValueError("a varint is cut off")
        byte = data[at + k]
        value |= (byte & 127) << 7 * k
        if byte < 128:
            if k and not byte:
                raise ValueError("a varint has unneeded bytes")
            return value, at + k + 1
    raise ValueError("a varint is too long")


def get_varints(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """(the ``count`` varints from ``at`` on, where the last ends). Raises ValueError."""
    values = []
    for _ in range(count):
        value, at = get_varint(data, at)
        values.append(value)
    return values, at
