"""Whole numbers as bytes: seven bits each, least significant first, the high bit set on all but the last (LEB128)."""

LONGEST = 9


def put(value: int) -> bytes:
    """The bytes of a whole number 0 .. 2^63 - 1.

    Examples
    --------
    >>> put(5), put(300)
    (b'\\x05', b'\\xac\\x02')
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def get(data: bytes, at: int) -> tuple[int, int]:
    """Undo :func:`put` at position ``at`` of ``data``.

    Returns
    -------
    value, end : int
        The number, and the position after it.

    Raises
    ------
    ValueError
        The data end within the number, or it has more bytes than it needs or than LONGEST.

    Examples
    --------
    >>> get(b"\\xac\\x02\\x05", 0)
    (300, 2)
    """
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
    """``count`` numbers from position ``at`` on, and the position after them; raises as :func:`get`.

    Examples
    --------
    >>> get_many(b"\\x01\\xac\\x02\\x07", 0, 2)
    ([1, 300], 3)
    """
    if count > len(data) - at:
        raise ValueError("numbers are cut off")
    values = []
    for _ in range(count):
        value, at = get(data, at)
        values.append(value)
    return values, at
