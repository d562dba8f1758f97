"""Compressed text inside an archive: inflated within bounds, parsed, checked to be what it should be."""

import json
import zlib
from typing import Any

DEFLATE_BEST = 1032  # no deflate stream is longer than this many times its input
DEEPEST = 32  # lists and objects in each other: an archive has 8
MOST_ARRAYS = 1 << 20
MOST_BRACKETS = 1 << 24  # of a record's text: each list and object takes tens of bytes of memory


def crc32(*parts: bytes) -> int:
    """CRC-32 of ``parts``, one after the other."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum


def inflate(packed: bytes, most: int) -> bytes:
    """What the zlib stream ``packed`` holds, at most ``most`` bytes. Raises ValueError."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(packed, min(most, DEFLATE_BEST * len(packed) + 1024))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflater.eof or inflater.unused_data:
        raise ValueError("the directory's stream does not end with it")
    return data


def parse_record(text: bytes) -> dict[str, Any]:
    """The record: a JSON object in UTF-8. Raises ValueError."""
    if text.count(b"[") + text.count(b"{") > MOST_BRACKETS:
        raise ValueError("the record has too many lists and objects")
    try:
        record = json.loads(text.decode())
    except RecursionError as error:
        raise ValueError("the record is nested too deep") from error
    if not isinstance(record, dict):
        raise ValueError("the record is not one of an archive")
    _require_shallow(record)
    return record


def described(record: dict[str, Any]) -> list[Any]:
    """What a record says of its arrays. Raises ValueError."""
    arrays = record.get("arrays")
    if not isinstance(arrays, list) or len(arrays) > MOST_ARRAYS:
        raise ValueError(f"no list of arrays, or of more than {MOST_ARRAYS}")
    return arrays


def _require_shallow(record: dict[str, Any]) -> None:
    """Raise ValueError where what follows, which walks the record by calls in each other, could run out of depth."""
    level: list[Any] = [record]
    for _ in range(DEEPEST):
        parts = (part.values() if isinstance(part, dict) else part for part in level)
        level = [value for values in parts for value in values if isinstance(value, (dict, list))]
        if not level:
            return
    raise ValueError("the record is nested too deep")
