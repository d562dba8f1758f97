"""Metadata of PNG, WebP and TIFF files, taken out of their bytes and put back (docs/format.md).

`take` reads a file of any program, `put` one that Pillow has just written, and `check` what an archive holds.
"""

import struct
import zlib

from vaedensity.data import tiff

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
# Chunks that say how pixels are stored and shown: they come from the new file, or are not there.
PNG_PIXELS = frozenset([b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT"])
PNG_PLAIN = frozenset([b"IHDR", b"IDAT", b"IEND"])
WEBP_KEPT = (b"ICCP", b"EXIF", b"XMP ")  # the order of the metadata in an archive
WEBP_FLAGS = (0x20, 0x08, 0x04)
VARINT_BYTES = 9
PIECE_BYTES = 1 << 20
KEPT_OF = {".png": "png", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}


def take(data: bytes, suffix: str) -> bytes:
    """The metadata of an image file, as bytes; empty where there are none.

    ``suffix`` is that of the file's name in lower case, one of KEPT_OF. Raises ValueError where the file is not of this
    format, is damaged, or holds what could not be put back.
    """
    match KEPT_OF[suffix]:
        case "png":
            chunks = _png_chunks(data, len(PNG_HEAD)) if data.startswith(PNG_HEAD) else []
            kinds = [kind for kind, _ in chunks]
            ends = kinds[:1] == [b"IHDR"] and kinds[-1:] == [b"IEND"]
            if not ends or kinds.count(b"IHDR") != 1 or kinds.count(b"IEND") != 1:
                raise ValueError("no plain PNG file")
            if any(kind in PNG_PIXELS - PNG_PLAIN or (kind[:1].isupper() and kind not in PNG_PLAIN) for kind in kinds):
                raise ValueError("a PNG file with a palette, transparency or several frames")
            _require_only_pixels(chunks[0][1][8:-4], b"".join(chunk[8:-4] for kind, chunk in chunks if kind == b"IDAT"))
            return b"".join(chunk for kind, chunk in chunks if kind not in PNG_PLAIN)
        case "webp":
            found = _webp_chunks(data)
            if b"VP8L" not in found or set(found) - {b"VP8X", b"VP8L", *WEBP_KEPT}:
                raise ValueError("no still lossless WebP file")
            kept = [found.get(kind, b"") for kind in WEBP_KEPT]
            return b"".join(_varint(len(part)) + part for part in kept) if any(kept) else b""
        case _:
            return tiff.kept_tags(data)


def put(data: bytes, suffix: str, extras: bytes) -> bytes:
    """The image file ``data``, which has no metadata, with the metadata ``extras``. Raises ValueError as `check`."""
    check(extras, suffix)
    if not extras:
        return data
    match KEPT_OF[suffix]:
        case "png":
            chunks = _png_chunks(data, len(PNG_HEAD))
            (_, head), *rest = ((kind, chunk) for kind, chunk in chunks if kind in PNG_PLAIN)
            return b"".join([data[: len(PNG_HEAD)], head, extras, *(chunk for _, chunk in rest)])
        case "webp":
            pixels = _webp_chunks(data)[b"VP8L"]
            icc, exif, xmp = _webp_parts(extras)
            flags = sum(flag for flag, part in zip(WEBP_FLAGS, (icc, exif, xmp)) if part)
            size = int.from_bytes(pixels[1:5], "little")  # 14 bits of width - 1, 14 of height - 1
            width, height = size & 0x3FFF, size >> 14 & 0x3FFF
            extended = struct.pack("<I", flags) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
            parts = ((b"VP8X", extended), (b"ICCP", icc), (b"VP8L", pixels), (b"EXIF", exif), (b"XMP ", xmp))
            body = b"".join(
                kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for kind, part in parts if part
            )
            return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
        case _:
            return tiff.with_tags(data, extras)


def check(extras: bytes, suffix: str) -> None:
    """Raise ValueError unless ``extras`` are metadata of images with this suffix, as docs/format.md has them."""
    if not extras:
        return
    match KEPT_OF.get(suffix):
        case "png":
            if any(kind in PNG_PIXELS for kind, _ in _png_chunks(extras, 0)):
                raise ValueError("a chunk that is no metadata")
        case "webp":
            _webp_parts(extras)
        case "tiff":
            tiff.check_tags(extras)
        case _:
            raise ValueError(f"metadata of a {suffix} file, which has none")


def png_form(data: bytes) -> bytes:
    """Size, bit depth, kind of colour and order of rows of a PNG file."""
    return data[16:29]


def png_end(data: bytes) -> int:
    """Where a PNG file ends: behind its IEND chunk, or where it is cut off."""
    at = len(PNG_HEAD)
    while at < len(data):
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            break
    return at


def _png_chunks(data: bytes, at: int) -> list[tuple[bytes, bytes]]:
    """(type, the whole chunk) of all chunks from ``at`` to the end. Raises ValueError."""
    found = []
    while at < len(data):
        if len(data) - at < 12:
            raise ValueError("a PNG chunk is cut off")
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, chunk = data[at + 4 : at + 8], data[at:end]
        if len(chunk) != end - at or not (kind.isascii() and kind.isalpha()):
            raise ValueError("a PNG chunk is cut off")
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise ValueError("a PNG chunk is damaged")
        found.append((kind, chunk))
        at = end
    return found


# First column and row of a PNG file's interlaced passes, and the steps between them.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _require_only_pixels(head: bytes, stream: bytes) -> None:
    """Raise ValueError unless the compressed ``stream`` of a grey or RGB PNG file holds its pixels and nothing else."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    bits = depth * (3 if colour == 2 else 1)
    left = 0
    for column, row, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - column) // across), -(-(height - row) // down)
        left += rows * (1 + -(-columns * bits // 8)) if columns > 0 else 0
    unpacked = zlib.decompressobj()
    while left >= 0 and (part := unpacked.decompress(stream, PIECE_BYTES)):
        left, stream = left - len(part), unpacked.unconsumed_tail
    if left or not unpacked.eof or unpacked.unused_data:
        raise ValueError("a PNG file whose compressed pixels are not all that there is")


def _webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """Content by type. Raises ValueError, also where a type occurs twice."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or int.from_bytes(data[4:8], "little") + 8 != len(data):
        raise ValueError("no WebP file")
    found, at = {}, 12
    while at < len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        part = data[at + 8 : at + 8 + size]
        if len(data) - at < 8 or len(part) != size or kind in found:
            raise ValueError("a WebP chunk is cut off or there twice")
        found[kind] = part
        at += 8 + size + size % 2
    return found


def _webp_parts(extras: bytes) -> list[bytes]:
    parts, at = [], 0
    for _ in WEBP_KEPT:
        size, shift = 0, 0
        while True:
            if at >= len(extras) or shift >= 7 * VARINT_BYTES:
                raise ValueError("WebP metadata are cut off")
            byte = extras[at]
            at, size, shift = at + 1, size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        if byte == 0 and shift > 7:
            raise ValueError("a length is written longer than it need be")
        if size > len(extras) - at or size >= 1 << 31:
            raise ValueError("WebP metadata are cut off")
        parts.append(extras[at : at + size])
        at += size
    if at != len(extras):
        raise ValueError("WebP metadata do not end where they should")
    return parts


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
