"""The bytes of a .vdz file: head, header, blocks, index, footer (docs/format.md, "File layout").

This file knows where bytes lie and how they are checked; it knows nothing of what they mean.
"""

import json
import struct
import zlib
from typing import Any, BinaryIO

from vaedensity.archive import varint
from vaedensity.archive.block import Block, Codec, Contents, codec_of
from vaedensity.archive.block_header import LONGEST, SHORTEST, BlockHeader, unpack
from vaedensity.archive.record import crc32, described, inflate, parse_record
from vaedensity.errors import DamagedArchive

MAGIC = b"\x89vdz\r\n\x1a\n"  # as PNG's: shows transfers that touch line ends or the high bit
UNRELEASED_MAGIC = b"\x89VDZ\r\n\x1a\n"
END_MAGIC = b"vdz\x1aend\n"
VERSION = 1
HEAD = struct.Struct("<8sHH")  # magic, version, zero
LENGTH = struct.Struct("<I")  # of the header's stream
CHECKSUM = struct.Struct("<I")  # of head, length and stream: the archive id
FIXED = HEAD.size + LENGTH.size + CHECKSUM.size  # bytes before the header's stream
FOOTER = struct.Struct("<QII8s")  # bytes of all blocks, of the index, CRC-32 of the first FIXED bytes and it, end
DIGEST = 32
MOST_STREAM = 1 << 28
SENSELESS = (ValueError, KeyError, TypeError, AttributeError, SyntaxError)
"""What reading a record that makes no sense may raise."""
Mark = tuple[int, int, int]


class Writer:
    """Writes head and header, blocks as they come, then index and footer."""

    def __init__(self, f: BinaryIO, record: dict[str, Any]):
        self.f, self.blocks, self.length, self.payload_bytes = f, [], 0, 0  # type: BinaryIO, list[Block], int, int
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
        stream = zlib.compress(text, 9)
        head = HEAD.pack(MAGIC, VERSION, 0) + LENGTH.pack(len(stream))
        self.fixed = head + CHECKSUM.pack(crc32(head, stream))
        self.archive_id = id_of(self.fixed)
        self.begin = len(self.fixed) + len(stream)
        f.write(self.fixed + stream)

    def add(self, array: int, first: int, items: int, codec: Codec, payload: bytes, items_checksum: int) -> None:
        """Write one block: items ``first`` .. ``first`` + ``items`` - 1 of an array; ``items_checksum``: CRC-32 of
        their bytes."""
        header = BlockHeader(array, first, items, codec, len(payload), items_checksum, crc32(self.archive_id, payload))
        packed = header.pack(self.archive_id)
        size = len(packed) + len(payload)
        self.f.write(packed + payload)
        self.blocks.append(Block(array, first, items, codec, self.begin + self.length, size))
        self.length += size
        self.payload_bytes += len(payload)

    def mark(self) -> Mark:
        """Where the next block will be written."""
        return len(self.blocks), self.length, self.payload_bytes

    def rewind(self, mark: Mark) -> None:
        """Forget the blocks written since ``mark``."""
        blocks, self.length, self.payload_bytes = mark
        del self.blocks[blocks:]
        self.f.seek(self.begin + self.length)
        self.f.truncate()

    def copy(self, block: Block, f: BinaryIO, archive_id: bytes) -> None:
        """Write a block of another archive with this id, its payload as it stands there. Raises ValueError where it is
        damaged."""
        f.seek(block.begin)
        payload, items_checksum = payload_of(block, f.read(block.size), archive_id)
        self.add(block.array, block.first, block.items, block.codec, payload, items_checksum)

    def finish(self, digests: list[bytes | None]) -> dict[str, int]:
        """Write index and footer, given the SHA-256 of each array; returns the bytes spent on ``header`` and
        ``index``."""
        index = zlib.compress(b"".join(d or bytes(DIGEST) for d in digests) + pack_index(self.blocks), 9)
        self.f.write(index)
        self.f.write(FOOTER.pack(self.length, len(index), crc32(self.fixed, index), END_MAGIC))
        digests_bytes = min(len(index), DIGEST * len(digests))
        block_headers = self.length - self.payload_bytes
        return {
            "header": self.begin + FOOTER.size + digests_bytes,
            "index": len(index) - digests_bytes + block_headers,
        }


def pack_index(blocks: list[Block]) -> bytes:
    """Columns: number of blocks, then all arrays, codecs, item counts, sizes."""
    out = varint.put(len(blocks)) + b"".join(varint.put(b.array) for b in blocks)
    out += bytes(b.codec.byte for b in blocks) + b"".join(varint.put(b.items) for b in blocks)
    return out + b"".join(varint.put(b.size) for b in blocks)


def unpack_index(data: bytes, at: int, arrays: int, begin: int, length: int) -> list[Block]:
    """Undoes :func:`pack_index` at position ``at`` to the end; ``length``: bytes of all blocks. Raises ValueError."""
    count, at = varint.get(data, at)
    if count * SHORTEST > length:
        raise ValueError(f"{count} blocks in {length} bytes")
    owners, at = varint.get_many(data, at, count)
    codecs, at = data[at : at + count], at + count
    items, at = varint.get_many(data, at, count)
    sizes, at = varint.get_many(data, at, count)
    if at != len(data):
        raise ValueError("the index does not end where it should")
    blocks, firsts = [], [0] * arrays
    for array, byte, number, size in zip(owners, codecs, items, sizes):
        if array >= arrays:
            raise ValueError("blocks belong to no array")
        blocks.append(Block(array, firsts[array], number, codec_of(byte), begin, size))
        firsts[array] += number
        begin += size
    if sum(sizes) != length:
        raise ValueError("blocks and index do not add up")
    return blocks


def read_contents(f: BinaryIO, name: str) -> Contents:
    """Check head, header, index and footer of a seekable file and return what they say.

    Raises DamagedArchive with the reason; reads no block.
    """
    size = read_head(f, name)
    advice = "get the file again, or see 'vaedensity repair --help'"
    try:
        f.seek(size - FOOTER.size)
        length, index_length, checksum, end = FOOTER.unpack(f.read(FOOTER.size))
        cut_off = f"{name}: the end of the archive is missing or altered; {advice}"
        if end != END_MAGIC or FIXED + length + index_length + FOOTER.size > size:
            raise DamagedArchive(cut_off)
        record, fixed, begin = read_header(f, name, size)
        if begin + length + index_length + FOOTER.size != size:
            raise DamagedArchive(cut_off)
        if index_length > MOST_STREAM:
            raise DamagedArchive(f"{name}: an index of {index_length} bytes is beyond the limit of {MOST_STREAM}")
        f.seek(begin + length)
        packed = f.read(index_length)
        if crc32(fixed, packed) != checksum:
            raise DamagedArchive(f"{name}: the index's checksum does not match; {advice}")
        index, arrays = inflate(packed, MOST_STREAM), len(described(record))
        if len(index) < DIGEST * arrays:
            raise ValueError("the digests are cut off")
        digests = [index[DIGEST * k : DIGEST * (k + 1)] for k in range(arrays)]
        blocks = unpack_index(index, DIGEST * arrays, arrays, begin, length)
    except SENSELESS as error:
        raise DamagedArchive(f"{name}: the header or the index cannot be read ({error})") from error
    return Contents(record, blocks, [d if any(d) else None for d in digests], begin, id_of(fixed))


def read_head(f: BinaryIO, name: str) -> int:
    """The size of the file, whose first bytes are those of an archive that this reader knows. Raises DamagedArchive."""
    size = f.seek(0, 2)
    f.seek(0)
    start = f.read(HEAD.size)
    if len(start) == HEAD.size:
        magic, version, zero = HEAD.unpack(start)
        if magic == UNRELEASED_MAGIC:
            raise DamagedArchive(f"{name}: format {version} was never released; make the archive anew")
        if magic != MAGIC:
            raise DamagedArchive(f"{name}: not a .vdz archive (it begins with {magic.hex()}, expected {MAGIC.hex()})")
        if version != VERSION or zero != 0:
            raise DamagedArchive(
                f"{name}: format version {version}.{zero} is not known, expected {VERSION}.0; update vaedensity"
            )
    if size < FIXED + FOOTER.size:
        raise DamagedArchive(f"{name}: {size} bytes are too few for a .vdz archive; it is cut off or something else")
    return size


def read_header(f: BinaryIO, name: str, size: int) -> tuple[dict[str, Any], bytes, int]:
    """(the record, the file's first FIXED bytes, where blocks begin). Raises DamagedArchive; of what makes no sense,
    SENSELESS."""
    f.seek(0)
    fixed = f.read(FIXED)
    (length,) = LENGTH.unpack_from(fixed, HEAD.size)
    (checksum,) = CHECKSUM.unpack_from(fixed, HEAD.size + LENGTH.size)
    if length > min(MOST_STREAM, size - FIXED):
        raise DamagedArchive(f"{name}: the archive is cut off within its header, or altered; get the file again")
    stream = f.read(length)
    if crc32(fixed[: -CHECKSUM.size], stream) != checksum:
        raise DamagedArchive(f"{name}: the header's checksum does not match; get the file again")
    return parse_record(inflate(stream, MOST_STREAM), name), fixed, FIXED + length


def id_of(fixed: bytes) -> bytes:
    """The archive id: the header's checksum."""
    return fixed[-CHECKSUM.size :]


def payload_of(block: Block, data: bytes, archive_id: bytes) -> tuple[bytes, int]:
    """(payload, CRC-32 of the items) of the bytes of a block of the archive with this id. Raises ValueError where they
    are damaged."""
    header, at = unpack(data[:LONGEST], archive_id)
    if len(data) != block.size or crc32(archive_id, data[at:]) != header.checksum:
        raise ValueError("its checksum does not match")
    said = (header.array, header.first, header.items, header.codec, at + header.length)
    if said != (block.array, block.first, block.items, block.codec, block.size):
        raise ValueError("its block header says other than the index")
    return data[at:], header.items_checksum
