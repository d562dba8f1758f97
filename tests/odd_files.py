"""Files that a reader may take for less than they are, and whether what came back of one is all of it.

Each kind is a function of a random generator that gives (suffix, bytes). What judges is written apart from the
package's readers."""

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

Rng = np.random.Generator
Maker = Callable[[Rng], tuple[str, bytes]]
ARRAYS: tuple[Callable[[Rng], np.ndarray], ...] = (
    lambda rng: rng.integers(0, 17, (6, 4, 4), np.uint8),
    lambda rng: rng.integers(0, 99, (3, 5)).astype(">i2"),
    lambda rng: np.asfortranarray(rng.normal(size=(4, 3))),
    lambda rng: np.array(7, np.int16),
    lambda rng: np.zeros((0, 3), np.float32),
    lambda rng: np.array(["a", "bcd"]),
    lambda rng: np.array(["2026-01-02", "NaT"], "M8[D]"),
    lambda rng: np.frombuffer(rng.bytes(12), np.bool_),  # values other than 0 and 1
    lambda rng: np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")]),
    lambda rng: np.array([np.nan, -0.0, np.inf], np.float32),
    lambda rng: np.zeros((1,) * 10, np.uint8),
)


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    f = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(f, array, version=version)
    return f.getvalue()


def any_array(rng: Rng) -> np.ndarray:
    return ARRAYS[rng.integers(len(ARRAYS))](rng)


def npys(rng: Rng) -> dict[str, bytes]:
    one, two = npy(any_array(rng)), npy(any_array(rng))
    return {
        "one": one,
        "several": one + two,
        "more behind": one + rng.bytes(int(rng.integers(1, 40))),
        "cut off": one[:-1],
        "version 2": npy(any_array(rng), (2, 0)),
        "version 3": npy(any_array(rng), (3, 0)),
        "header alone": one[:10],
        "text": b"not an array",
        "nothing": b"",
    }


def zipped(members: list[tuple[str, bytes]], comment: bytes = b"", how: int = zipfile.ZIP_STORED) -> bytes:
    f = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(f, "w", how) as z:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            z.writestr(name, data)
        z.comment = comment
    return f.getvalue()


def npzs(rng: Rng) -> dict[str, bytes]:
    one, two = npy(any_array(rng)), npy(any_array(rng))
    both = [("x.npy", one), ("y.npy", two)]
    return {
        "two": zipped(both),
        "compressed": zipped(both, how=zipfile.ZIP_DEFLATED),
        "twice the same name": zipped([*both, ("x.npy", two)]),
        "a name with and without suffix": zipped([("x.npy", one), ("x", two)]),
        "a comment": zipped(both, b"made with care"),
        "a text too": zipped([*both, ("README", b"hello")]),
        "a folder too": zipped([*both, ("sub/", b"")]),
        "names in folders": zipped([("sub/x.npy", one), ("sub/y.npy", two)]),
        "bytes before": b"prefix" + zipped(both),
        "bytes behind": zipped(both) + b"suffix",
        "several arrays in a member": zipped([("x.npy", one + two)]),
        "a member with more behind": zipped([("x.npy", one + b"more")]),
        "no member": zipped([]),
        "cut off": zipped(both)[:-9],
    }


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rng: Rng, depth: int, colour: int, *more: bytes, interlaced: bool = False) -> bytes:
    """A PNG file by hand: 5x4, of any depth and colour type."""
    width, height = 5, 4
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = -(-width * channels * depth // 8)
    data = b"".join(b"\0" + rng.bytes(row) for _ in range(height))
    if colour == 3:
        most = 256 if depth == 8 else 1 << depth
        more = (chunk(b"PLTE", rng.bytes(3 * most)), *more)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    if interlaced:
        data = b"".join(
            b"\0" + rng.bytes(-(-columns * channels * depth // 8))
            for columns, rows in ((1, 1), (1, 1), (2, 1), (1, 1), (3, 1), (2, 2), (5, 2))
            for _ in range(rows)
        )
    parts = (chunk(b"IHDR", head), *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(form: str, *images: np.ndarray, **options: Any) -> bytes:
    f, frames = io.BytesIO(), [Image.fromarray(pixels) for pixels in images]
    more = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
    frames[0].save(f, form, **more, **options)
    return f.getvalue()


def pngs(rng: Rng) -> dict[str, bytes]:
    grey, rgb = png(rng, 8, 0), png(rng, 8, 2)
    frames = [rng.integers(0, 256, (4, 5, 3), np.uint8) for _ in range(2)]
    return {
        **{f"grey of {depth} bits": png(rng, depth, 0) for depth in (1, 2, 4, 8, 16)},
        **{f"palette of {depth} bits": png(rng, depth, 3) for depth in (1, 2, 4, 8)},
        **{
            f"colour type {colour} of {depth} bits": png(rng, depth, colour)
            for colour in (2, 4, 6)
            for depth in (8, 16)
        },
        "interlaced": png(rng, 8, 2, interlaced=True),
        "a transparent value": png(rng, 8, 0, chunk(b"tRNS", b"\0\5")),
        "significant bits": png(rng, 8, 0, chunk(b"sBIT", b"\5")),
        "a chunk nobody knows": png(rng, 8, 0, chunk(b"abCd", b"private")),
        "a text": png(rng, 8, 0, chunk(b"tEXt", b"Title\0of a picture")),
        "gamma": png(rng, 8, 0, chunk(b"gAMA", struct.pack(">I", 45455))),
        "bytes behind": rgb + b"more",
        "two files in one": grey + png(rng, 8, 0),
        "animated": encoded("PNG", *frames),
        "cut off": rgb[:-20],
        "wrong checksum": rgb[:-1] + b"\0",
        "text": b"no image",
    }


def pnms(rng: Rng) -> dict[str, bytes]:
    def pgm(most: int, more: bytes = b"") -> bytes:
        values = rng.integers(0, most + 1, 20)
        return b"P5\n%s5 4\n%d\n" % (more, most) + values.astype(">u2" if most > 255 else np.uint8).tobytes()

    return {
        **{f"values to {most}": pgm(most) for most in (1, 15, 200, 255, 256, 65535)},
        "a comment": pgm(255, b"# by hand\n"),
        "two images": pgm(255) * 2,
        "bytes behind": pgm(255) + b"\n",
        "as text": b"P2\n2 2\n255\n1 2\n3 4\n",
        "bits": b"P4\n8 2\n\xaa\x55",
        "colour": b"P6\n2 1\n255\n" + rng.bytes(6),
        "colour of 16 bits": b"P6\n2 1\n65535\n" + rng.bytes(12),
    }


def others(rng: Rng) -> dict[str, dict[str, bytes]]:
    grey, rgb = rng.integers(0, 256, (4, 5), np.uint8), rng.integers(0, 256, (4, 5, 3), np.uint8)
    rgba = rng.integers(0, 256, (4, 5, 4), np.uint8)
    bits = np.packbits(rng.integers(0, 2, (4, 8), np.uint8), axis=1)
    one_bit, f = Image.frombytes("1", (8, 4), bits.tobytes()), io.BytesIO()
    one_bit.save(f, "TIFF", compression="group4")
    return {
        ".tif": {
            "plain": encoded("TIFF", grey),
            "pages": encoded("TIFF", grey, grey + 1),
            "16 bits": encoded("TIFF", grey.astype(np.uint16) * 257),
            "packbits": encoded("TIFF", rgb, compression="packbits"),
            "lzw": encoded("TIFF", rgb, compression="tiff_lzw"),
            "alpha": encoded("TIFF", rgba),
            "fax": f.getvalue(),
            "bytes behind": encoded("TIFF", grey) + b"more",
        },
        ".bmp": {
            "grey": encoded("BMP", grey),
            "colour": encoded("BMP", rgb),
            "alpha": encoded("BMP", rgba),
            "bytes behind": encoded("BMP", rgb) + b"more",
        },
        ".webp": {
            "lossless": encoded("WEBP", rgb, lossless=True, exact=True),
            "lossy": encoded("WEBP", rgb),
            "animated": encoded("WEBP", rgb, rgb[::-1], lossless=True),
            "alpha": encoded("WEBP", rgba, lossless=True, exact=True),
        },
        ".jpg": {"colour": encoded("JPEG", rgb)},
        ".gif": {"grey": encoded("GIF", grey)},
        "": {"nothing": b"", "text": b"some text\n" * 20, "noise": rng.bytes(300)},
    }


def kinds(rng: Rng) -> dict[tuple[str, str], bytes]:
    """(suffix, what is odd) -> a file's bytes."""
    groups = {".npy": npys(rng), ".npz": npzs(rng), ".png": pngs(rng), ".pgm": pnms(rng), **others(rng)}
    return {(suffix, what): data for suffix, files in groups.items() for what, data in files.items()}


def same_array(before: bytes, after: bytes) -> bool:
    """Whether both are one array and nothing more, and equal ones."""
    found = []
    for data in (before, after):
        f = io.BytesIO(data)
        try:
            array = np.lib.format.read_array(f)
        except ValueError:
            return False
        if f.tell() != len(data):
            return False
        found.append((array.dtype.descr, array.shape, array.tobytes()))
    return found[0] == found[1]


def same_arrays(before: bytes, after: bytes) -> bool:
    """Whether both are archives of the same arrays and of nothing more."""
    members = []
    for data in (before, after):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as z:
                infos, comment = z.infolist(), z.comment
                found = {info.filename: z.read(info) for info in infos}
                first = min((info.header_offset for info in infos), default=0)
        except zipfile.BadZipFile:
            return False
        if (
            comment
            or first
            or len(found) != len(infos)
            or not data.endswith(b"\0\0")
            or not all(name.endswith(".npy") for name in found)
        ):
            return False
        members.append(found)
    before_members, after_members = members
    return list(before_members) == list(after_members) and all(
        same_array(data, after_members[name]) for name, data in before_members.items()
    )


def same_image(suffix: str, before: bytes, after: bytes) -> bool:
    """Whether both show one image of the same numbers of the same depth, with the same metas."""
    found = []
    for data in (before, after):
        try:
            with Image.open(io.BytesIO(data)) as image:
                metas = {k: v for k, v in image.info.items() if k not in ("compression", "interlace")}
                pixels = image.mode, image.size, image.tobytes(), getattr(image, "n_frames", 1)
        except Exception:  # whatever Pillow says of what is no image
            return False
        found.append((pixels, metas, depth(suffix, data)))
    if found[0] != found[1] or found[0][0][3] != 1:
        return False
    return suffix != ".png" or before.endswith(chunk(b"IEND", b""))  # what is behind the end would be lost


def depth(suffix: str, data: bytes) -> int:
    """Bits a sample, by the file's own header."""
    if suffix == ".png":
        return data[24]
    if suffix == ".pgm":
        words = b" ".join(line.partition(b"#")[0] for line in data[:200].split(b"\n")).split()
        return 1 if words[0] in (b"P1", b"P4") else (int(words[3]).bit_length())
    if suffix == ".tif":
        with Image.open(io.BytesIO(data)) as image:
            bits: Any = image.tag_v2.get(258, 1)  # type: ignore[attr-defined]
            return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def all_came_back(suffix: str, before: bytes, after: bytes) -> bool:
    """Whether nothing of a file was lost or altered that README does not say may be."""
    if before == after:
        return True
    if suffix == ".npy":
        return same_array(before, after)
    if suffix == ".npz":
        return same_arrays(before, after)
    return suffix in (".png", ".pgm", ".tif", ".bmp", ".webp") and same_image(suffix, before, after)
