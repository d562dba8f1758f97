"""Whole numbers as bytes: seven bits each, least significant first, the high bit set on all but the last."""

LONGEST = 9


def put(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def get(data: bytes, at: int) -> tuple[int, int]:
    """(value, position after it). Raises ValueError where the data end early or the number is overlong."""
    value = 0
    for i in range(LONGEST):
        if at + i >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise ValueError("a number is written longer than it need be")
            return value, at + i + 1
    raise ValueError("a number is too long")


def get_many(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """(``count`` values, position after them). Raises ValueError."""
    if count > len(data) - at:
        raise ValueError("numbers are cut off")
    values = []
    for _ in range(count):
        value, at = get(data, at)
        values.append(value)
    return values, at
