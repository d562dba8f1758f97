"""Tags of TIFF files of one image: those that are metadata are taken out and put into another file (TIFF 6.0, 1992)."""

import struct
from typing import NamedTuple

ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# bytes of a value of each type, and of the numbers it is made of
TYPES = {
    **dict.fromkeys((1, 2, 6, 7), (1, 1)),
    **dict.fromkeys((3, 8), (2, 2)),
    **dict.fromkeys((4, 9, 11), (4, 4)),
    **dict.fromkeys((5, 10), (8, 4)),
    12: (8, 8),
}
# How pixels are stored: the new file has its own. Size, compression, strips and tiles, predictor, order of bits.
STORAGE = frozenset([256, 257, 259, 266, 273, 278, 279, 284, 292, 293, 317, 322, 323, 324, 325])
# How stored numbers become what is shown: has to be that of the new file. Value where there is none.
# Kind of image, bits per sample, kind of colour, samples per pixel, orientation, more samples, format of samples.
MEANING: dict[int, tuple[int, ...]] = {254: (0,), 258: (1,), 262: (), 277: (1,), 274: (1,), 338: (), 339: (1,)}
TWO_VALUED = MEANING | {262: (1,)}
ORDINARY = (TWO_VALUED, TWO_VALUED | {258: (8,)}, TWO_VALUED | {258: (8,), 262: (2,), 277: (3,)})  # grey, RGB
# Ways to store pixels that Pillow writes as it finds them. Of DEFLATE, no tag is kept.
COMPRESSION, DEFLATE = 259, 8
WRITTEN = {1: "raw", 5: "tiff_lzw", DEFLATE: "tiff_adobe_deflate", 32773: "packbits"}
TILES, PLANES = frozenset([322, 323, 324, 325]), 284
# Cannot be kept: offsets in the file and what only goes with another way of storing. Sub-images, EXIF, GPS and other
# tables, free space, old ways of JPEG, palettes, subsampled colours.
REFUSED = frozenset(
    [330, 34665, 34853, 40965, 288, 289, 347, *range(512, 522), 320, 529, 530, 531, 532, 301, 332, 333, 334, 336, 50740]
)
POINTERS = frozenset([330, 34665, 34853, 40965, 513, 514])
MOST_PADDING = 15  # bytes of zeros between parts of a file


class Tag(NamedTuple):
    number: int
    kind: int
    length: int  # numbers, or pairs of them
    value: bytes  # as in the file


def read_tags(data: bytes) -> tuple[str, dict[int, Tag]]:
    """(byte order "<" or ">", tags by number) of a TIFF file with one IFD (image file directory).

    Raises ValueError; also where values share bytes, so that what is returned is never more than ``data``.
    """
    order = ORDERS.get(data[:4])
    if order is None or len(data) < 8:
        raise ValueError("no TIFF file")
    (at,) = struct.unpack_from(order + "I", data, 4)
    if not 8 <= at <= len(data) - 6:
        raise ValueError("a TIFF file without tags")
    (count,) = struct.unpack_from(order + "H", data, at)
    end = at + 2 + 12 * count
    if end + 4 > len(data) or data[end : end + 4] != bytes(4):
        raise ValueError("a TIFF file of several images, or cut off")
    tags: dict[int, Tag] = {}
    room = len(data) - 8 - (end + 4 - at)
    for entry in range(at + 2, end, 12):
        number, kind, n = struct.unpack_from(order + "HHI", data, entry)
        size = TYPES.get(kind, (0, 0))[0] * n
        start = struct.unpack_from(order + "I", data, entry + 8)[0] if size > 4 else entry + 8
        room -= size if size > 4 else 0
        if not size or start + size > len(data) or room < 0 or number in tags:
            raise ValueError("a TIFF tag of no known type, beyond the end or there twice")
        tags[number] = Tag(number, kind, n, data[start : start + size])
    return order, tags


def meaning(data: bytes) -> dict[int, tuple[int, ...]]:
    """The tags that decide how the stored numbers are shown; what is said of each channel, once. Raises ValueError."""
    order, tags = read_tags(data)
    found = {number: _numbers(tags[number], order) if number in tags else usual for number, usual in MEANING.items()}
    return {number: tuple(sorted(set(values))) for number, values in found.items()}


def kept_tags(data: bytes) -> bytes:
    """A file's tags that are metadata, and its compression unless that is DEFLATE; empty where there are none.

    They are a TIFF header and one IFD, in the order ``<``. Raises ValueError where tags could not be put into another
    file, or its pixels would come back stored in another way.
    """
    order, tags = read_tags(data)
    if REFUSED & tags.keys():
        raise ValueError("tags that go with this file only")
    if meaning(data) not in ORDINARY:
        raise ValueError("pixels that are not plainly two-valued, grey or RGB")
    (compression,) = _numbers(tags[COMPRESSION], order) if COMPRESSION in tags else (1,)
    if compression not in WRITTEN or TILES & tags.keys():
        raise ValueError("pixels stored with loss, in tiles, or in a way that is not written")
    if PLANES in tags and _numbers(tags[PLANES], order) != (1,):
        raise ValueError("channels stored apart")
    if bytes_of_nothing(data):
        raise ValueError("bytes that no tag speaks of, as further images of a stack")
    kept = [
        _ordered(tag, order, "<") for number, tag in tags.items() if number not in STORAGE and number not in MEANING
    ]
    if compression != DEFLATE:
        kept.append(Tag(COMPRESSION, 3, 1, struct.pack("<H", compression)))
    return b"II*\0" + struct.pack("<I", 8) + _directory(sorted(kept), "<", 8) if kept else b""


def writer(extras: bytes) -> str:
    """Pillow's name of the compression that ``extras`` of :func:`kept_tags` ask for. Raises ValueError."""
    order, tags = read_tags(extras) if extras else ("<", {})
    (compression,) = _numbers(tags[COMPRESSION], order) if COMPRESSION in tags else (DEFLATE,)
    if compression not in WRITTEN:
        raise ValueError(f"a TIFF file of compression {compression}")
    return WRITTEN[compression]


def bytes_of_nothing(data: bytes) -> int:
    """How many bytes of a file belong neither to its tags nor to its pixels, apart from padding.

    Some programs keep all images but the first there (ImageJ's stacks). Raises ValueError where tags point to what is
    not looked at.
    """
    order, tags = read_tags(data)
    if POINTERS & tags.keys():
        raise ValueError("tags that lead to others")
    (at,) = struct.unpack_from(order + "I", data, 4)
    used = [(0, 8), (at, at + 6 + 12 * len(tags)), (len(data), len(data))]
    for entry in range(at + 2, at + 2 + 12 * len(tags), 12):
        number, _, _, start = struct.unpack_from(order + "HHII", data, entry)
        if len(tags[number].value) > 4:
            used.append((start, start + len(tags[number].value)))
    for offsets, sizes in ((273, 279), (324, 325)):
        if offsets in tags and sizes in tags:
            begins = _numbers(tags[offsets], order)
            used += [(begin, begin + size) for begin, size in zip(begins, _numbers(tags[sizes], order))]
    end, count = 0, 0
    for begin, stop in sorted(used):
        gap = data[end:begin]
        count += len(gap) if len(gap) > MOST_PADDING or any(gap) else 0
        end = max(end, stop)
    return count


def check_tags(extras: bytes) -> None:
    """Raise ValueError unless ``extras`` are what :func:`kept_tags` may have made, in either order."""
    _, tags = read_tags(extras)
    if any(number in STORAGE - {COMPRESSION} or number in MEANING or number in REFUSED for number in tags):
        raise ValueError("a tag that is no metadata")
    writer(extras)


def with_tags(data: bytes, extras: bytes) -> bytes:
    """The TIFF file ``data``, which has strips, with the tags of ``extras`` in place of its own metadata."""
    order, tags = read_tags(data)
    other, kept = read_tags(extras)
    own = {number: tag for number, tag in tags.items() if number in STORAGE or number in MEANING}
    strips, begins = bytearray(8), []
    for begin, size in zip(_numbers(tags[273], order), _numbers(tags[279], order)):
        begins.append(len(strips))
        strips += data[begin : begin + size] + b"\0" * (size % 2)
    own[273] = Tag(273, 4, len(begins), struct.pack(f"{order}{len(begins)}I", *begins))
    merged = {number: _ordered(tag, other, order) for number, tag in kept.items()} | own
    strips[:8] = data[:4] + struct.pack(order + "I", len(strips))
    return bytes(strips) + _directory([merged[number] for number in sorted(merged)], order, len(strips))


def _directory(tags: list[Tag], order: str, at: int) -> bytes:
    """An IFD that lies at offset ``at``, with the values behind it."""
    head = struct.pack(order + "H", len(tags))
    start = at + 2 + 12 * len(tags) + 4
    parts = []
    for tag in tags:
        if len(tag.value) <= 4:
            field = tag.value.ljust(4, b"\0")
        else:
            field = struct.pack(order + "I", start)
            parts.append(tag.value + b"\0" * (len(tag.value) % 2))
            start += len(parts[-1])
        head += struct.pack(order + "HHI", tag.number, tag.kind, tag.length) + field
    return head + bytes(4) + b"".join(parts)


def _ordered(tag: Tag, found: str, wanted: str) -> Tag:
    """``tag`` with its numbers in the order ``wanted``."""
    width = TYPES[tag.kind][1]
    if found == wanted or width == 1:
        return tag
    value = b"".join(tag.value[i : i + width][::-1] for i in range(0, len(tag.value), width))
    return tag._replace(value=value)


def _numbers(tag: Tag, order: str) -> tuple[int, ...]:
    letter = {1: "B", 3: "H", 4: "I"}.get(tag.kind)
    if letter is None:
        raise ValueError(f"TIFF tag {tag.number} is no whole number")
    return struct.unpack(f"{order}{tag.length}{letter}", tag.value)
