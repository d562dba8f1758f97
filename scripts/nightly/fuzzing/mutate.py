"""Inputs made from other inputs: bytes altered, or parts altered and all outer checks made right again."""

import struct
import zlib
from collections.abc import Callable
from random import Random

from scripts.nightly.fuzzing.odd import VARINTS, mutate_json
from scripts.nightly.fuzzing.parts import ModelParts, Part, Parts


def mutate_bytes(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Bits flipped; bytes overwritten, cut, doubled, moved, or taken from ``other``; numbers that are edges."""
    out, size = bytearray(data), len(data)
    at, choice = rng.randrange(size + 1), rng.randrange(10)
    if choice < 3 and at < size:
        out[at] ^= 1 << rng.randrange(8)
    elif choice == 3 and at < size:
        out[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    elif choice == 4:
        length = rng.choice((1, 2, 4, 8, 20))
        out[at : at + length] = rng.randbytes(length)
    elif choice == 5:
        del out[at : size if rng.random() < 0.5 else at + rng.choice((1, 2, 4, 16, 64))]
    elif choice == 6:
        out[at:at] = out[at : at + rng.choice((1, 4, 16, 64, 256))]
    elif choice == 7 and other:
        begin = rng.randrange(len(other))
        part = other[begin : begin + rng.choice((4, 16, 64, 512))]
        out[at : at + len(part)] = part
    elif choice == 8:
        number = rng.choice(VARINTS)
        packed = struct.pack(rng.choice("<>") + rng.choice("BHIQ"), 0)
        out[at : at + len(packed)] = (number & (1 << 8 * len(packed)) - 1).to_bytes(len(packed), "little")
    else:
        length, target = rng.choice((1, 4, 16)), rng.randrange(size + 1)
        out[target : target + length] = out[at : at + length]
    return bytes(out)


def mutate_parts(rng: Random, parts: Parts, other: Parts | None) -> Parts:
    """One or a few of the things that an archive is made of altered."""
    out = parts.copied()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choices(CHANGES, WEIGHTS)[0](rng, out, other)
    return out


def _record(rng: Random, out: Parts, other: Parts | None) -> None:
    record = out.record
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        record = mutate_json(rng, record)
    out.text = out.with_record(record).text


def _text(rng: Random, out: Parts, other: Parts | None) -> None:
    out.text = mutate_bytes(rng, out.text, other.text if other else b"")


def _payload(rng: Random, out: Parts, other: Parts | None) -> None:
    if out.parts:
        part = rng.choice(out.parts)
        if rng.random() < 0.1 and other and other.parts:
            part.payload = rng.choice(other.parts).payload
        else:
            part.payload = mutate_bytes(rng, part.payload or b"\0", b"".join(p.payload for p in out.parts))


def _field(rng: Random, out: Parts, other: Parts | None) -> None:
    if out.parts:
        part, name = rng.choice(out.parts), rng.choice(("array", "first", "items", "codec"))
        value, high = getattr(part, name), rng.choice(VARINTS)
        if name in ("array", "codec"):
            high = rng.choice(CODECS) if name == "codec" else rng.randrange(max(1, len(out.digests)))
        setattr(part, name, rng.choice((abs(value + rng.choice((-1, 1))), value ^ 1, high)))


def _said(rng: Random, out: Parts, other: Parts | None) -> None:
    if out.parts:
        said, fields = rng.choice(
            [
                (rng.choice(out.parts).said, ("array", "first", "items", "codec", "length", "checksum")),
                (rng.choice(out.parts).listed, ("array", "items", "codec", "length")),
            ]
        )
        name = rng.choice(fields)
        said[name] = rng.choice(VARINTS) & 0xFFFFFFFF if name == "checksum" else rng.choice(VARINTS)


def _checksum(rng: Random, out: Parts, other: Parts | None) -> None:
    if out.parts:
        rng.choice(out.parts).items_checksum = rng.choice((0, rng.getrandbits(32)))


def _blocks(rng: Random, out: Parts, other: Parts | None) -> None:
    choice = rng.randrange(5)
    if choice == 0 and out.parts:
        out.parts.pop(rng.randrange(len(out.parts)))
    elif choice == 1 and out.parts:
        out.parts.insert(rng.randrange(len(out.parts) + 1), rng.choice(out.parts).copied())
    elif choice == 2:
        rng.shuffle(out.parts)
    elif choice == 3 and other and other.parts:
        out.parts.insert(rng.randrange(len(out.parts) + 1), rng.choice(other.parts).copied())
    else:
        out.parts.append(Part(rng.choice(VARINTS[:4]), 0, rng.choice(VARINTS[:9]), rng.choice(CODECS), b"abc"))


def _lost(rng: Random, out: Parts, other: Parts | None) -> None:
    if out.parts:
        part = rng.choice(out.parts)
        part.codec, part.payload, part.items_checksum = 15, rng.choice((b"", b"x")), 0


def _digests(rng: Random, out: Parts, other: Parts | None) -> None:
    choice = rng.randrange(4)
    if choice == 0 and out.digests:
        out.digests[rng.randrange(len(out.digests))] = rng.choice((bytes(32), b"\1" * 32, b"\1" * 31))
    elif choice == 1:
        out.digests.append(bytes(32))
    elif choice == 2 and out.digests:
        out.digests.pop()
    else:
        out.index = mutate_bytes(rng, b"".join(out.digests) + out.columns([p.together(b"") for p in out.parts]))


def _version(rng: Random, out: Parts, other: Parts | None) -> None:
    out.version = rng.choice((0, 1, 1, 2, rng.choice(VARINTS)))
    out.zero = rng.choice((0, 0, 0, 1))


def _streams(rng: Random, out: Parts, other: Parts | None) -> None:
    """A stream that inflates too far, is followed by something, or is damaged inside."""
    name, choice = rng.choice(("header", "index")), rng.randrange(4)
    if choice == 0:
        out.streams[name] = zlib.compress(out.text + b" " * (1 << 20), 1)
    elif choice == 1:
        out.streams[name] = zlib.compress(out.text, 1) + b"x"
    elif choice == 2:
        out.streams[name] = mutate_bytes(rng, zlib.compress(out.text, 1))
    else:
        out.streams[name] = zlib.compress(mutate_bytes(rng, out.text), 0)


CODECS = (0, 1, 2, 3, 4, 5, 6, 15, 16, 20, 21, 36, 52, 68, 132)
"""Bytes of codecs, and some that are none."""
Change = Callable[[Random, Parts, Parts | None], None]
CHANGES: list[Change] = [
    _record,
    _text,
    _payload,
    _field,
    _said,
    _checksum,
    _blocks,
    _lost,
    _digests,
    _version,
    _streams,
]
WEIGHTS = [40, 4, 20, 8, 6, 2, 8, 3, 4, 3, 1]


def mutate_model(rng: Random, parts: ModelParts) -> ModelParts:
    """A model file's record, header or numbers altered."""
    out = ModelParts(parts.tensors, parts.record, parts.data)
    for _ in range(rng.choice((1, 1, 2))):
        choice = rng.randrange(6)
        if choice < 3:
            out.record = mutate_json(rng, out.record)
        elif choice == 3:
            tensors = mutate_json(rng, out.tensors)
            out.tensors = tensors if isinstance(tensors, dict) else {}
        elif choice == 4:
            out.data = mutate_bytes(rng, out.data or b"\0")
        else:
            edge = rng.choice(
                (b"\xff\x7f", b"\0\x80", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\x7f", b"\x80", b"\xff\xff\xff\x7f")
            )
            at = rng.randrange(0, max(1, len(out.data)))
            out.data = out.data[:at] + edge + out.data[at + len(edge) :]
    return out
