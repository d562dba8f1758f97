"""General codecs to measure an archive against: each encodes and decodes the same array, layout by layout."""

import io
import lzma
import math
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview
LONGEST_SIDE = 16_000  # of a mosaic: WebP stops at 16,383 pixels


@dataclass(frozen=True)
class Codec:
    """``encode`` takes a picture (H,W) or (H,W,3) uint8, or a row of bytes; ``decode`` gives its array back."""

    encode: Callable[[Bytes], bytes]
    decode: Callable[[bytes], Bytes]


@dataclass(frozen=True)
class Rival:
    """A codec and the layouts it is tried in: "each image", "mosaic", "whole array", "packed bits"."""

    name: str
    codec: Codec
    layouts: tuple[str, ...]


def lay_out(images: Bytes, layout: str) -> list[Bytes]:
    """Images (N,H,W) or (N,H,W,3) as the pieces that are coded one by one. Two-valued images are 0 and 255."""
    if layout == "each image":
        return list(images)
    if layout == "mosaic":
        return mosaics(images)
    if layout == "packed bits":
        return [np.packbits(images.reshape(-1) > 0)]
    return [images.reshape(-1)]


def mosaics(images: Bytes) -> list[Bytes]:
    """As few nearly square pictures as their longest side permits; the last rows are filled with zeros."""
    height, width = images.shape[1:3]
    columns = min(max(1, LONGEST_SIDE // width), math.ceil(math.sqrt(len(images) * height / width)))
    per_picture = columns * max(1, LONGEST_SIDE // height)
    pictures = []
    for begin in range(0, len(images), per_picture):
        part = images[begin : begin + per_picture]
        rows = -(-len(part) // columns)
        grid = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
        grid[: len(part)] = part
        grid = grid.reshape(rows, columns, *images.shape[1:])
        pictures.append(np.moveaxis(grid, 1, 2).reshape(rows * height, columns * width, *images.shape[3:]))
    return pictures


def known_rivals(two_valued: bool) -> dict[str, Rival]:
    """The rivals that this machine has, by the name that ``rivals`` of bench takes."""
    pictures = ("each image", "mosaic")
    whole = ("whole array", "packed bits") if two_valued else ("whole array",)
    found = {
        "png": Rival("PNG", png(two_valued), pictures),
        "webp": Rival("WebP lossless m6", webp(), pictures),
        "xz": Rival("xz -9e", of_bytes(partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME), lzma.decompress), whole),
        "zlib": Rival("zlib -9", of_bytes(partial(zlib.compress, level=9), zlib.decompress), whole),
    }
    try:
        ic = import_module("imagecodecs")
    except ImportError:
        ic = None
    if ic is not None:
        zstd = of_bytes(partial(ic.zstd_encode, level=22), ic.zstd_decode)
        brotli = of_bytes(partial(ic.brotli_encode, level=11, lgwin=24), ic.brotli_decode)
        found |= {
            "jxl-e7": Rival("JPEG XL e7", jpegxl(ic, 7), pictures),
            "jxl-e9": Rival("JPEG XL e9", jpegxl(ic, 9), pictures),
            "jpegls": Rival("JPEG-LS", Codec(lambda a: bytes(ic.jpegls_encode(a)), ic.jpegls_decode), pictures),
            "zstd": Rival("zstd -22", zstd, whole),
            "brotli": Rival("brotli 11", brotli, whole),
        }
    if shutil.which("zpaq"):
        found["zpaq"] = Rival("zpaq -m5", zpaq(), whole)
    return found


MISSING = dict.fromkeys(("jxl-e7", "jxl-e9", "jpegls", "zstd", "brotli"), "imagecodecs") | {"zpaq": "the program zpaq"}
"""What a rival needs that may not be there."""


def of_bytes(encode: Callable[[bytes], Buffer], decode: Callable[[bytes], Buffer]) -> Codec:
    """A codec of bytes, applied to an array's own."""
    return Codec(lambda a: bytes(encode(a.tobytes())), lambda b: flat(decode(b)))


def flat(data: Buffer) -> Bytes:
    """Bytes as a row."""
    return np.frombuffer(bytes(data), np.uint8)


def png(two_valued: bool) -> Codec:
    """Pillow's encoder, one bit a pixel for two-valued images."""

    def encode(a: Bytes) -> bytes:
        f = io.BytesIO()
        picture = (
            Image.fromarray(a).convert("1", dither=Image.Dither.NONE)
            if two_valued and a.ndim == 2
            else Image.fromarray(a)
        )
        picture.save(f, format="PNG", optimize=True)
        return f.getvalue()

    def decode(b: bytes) -> Bytes:
        picture = Image.open(io.BytesIO(b))
        return np.asarray(picture.convert("L") if picture.mode == "1" else picture)

    return Codec(encode, decode)


def webp() -> Codec:
    """Grey images travel as three equal channels, which costs WebP next to nothing."""

    def encode(a: Bytes) -> bytes:
        f = io.BytesIO()
        colour = a if a.ndim == 3 else np.stack([a] * 3, -1)
        Image.fromarray(colour).save(f, format="WEBP", lossless=True, quality=100, method=6)
        return (b"\0" if a.ndim == 2 else b"\1") + f.getvalue()

    def decode(b: bytes) -> Bytes:
        colour = np.asarray(Image.open(io.BytesIO(b[1:])).convert("RGB"))
        return colour if b[0] else colour[..., 0]

    return Codec(encode, decode)


def jpegxl(ic: Any, effort: int) -> Codec:
    """The reference encoder with one thread, as ``imagecodecs`` has it."""
    return Codec(
        lambda a: bytes(ic.jpegxl_encode(a, lossless=True, effort=effort, numthreads=1)),
        lambda b: np.asarray(ic.jpegxl_decode(b, numthreads=1)),
    )


def zpaq() -> Codec:
    """The program, with the threads that it takes by itself; one array is one block to it."""

    def run(folder: str, *arguments: str) -> None:
        subprocess.run(["zpaq", *arguments], cwd=folder, check=True, capture_output=True)

    def encode(a: Bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "raw").write_bytes(a.tobytes())
            run(folder, "add", "a.zpaq", "raw", "-m5")
            return Path(folder, "a.zpaq").read_bytes()

    def decode(b: bytes) -> Bytes:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "a.zpaq").write_bytes(b)
            run(folder, "extract", "a.zpaq", "raw", "-to", "back")
            return flat(Path(folder, "back").read_bytes())

    return Codec(encode, decode)
