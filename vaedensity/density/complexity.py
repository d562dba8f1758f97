"""Input complexity: how many bits does an item take that knows nothing of the model? (Serra et al. 2020)"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vaedensity.density.anomaly import AnomalyScore, information_bits
from vaedensity.density.estimate import Estimate, Floats
from vaedensity.errors import UsageError

Encoder = Callable[[NDArray[np.uint8]], int]


def _png() -> Encoder:
    # optimize deflates at level 9; the default is level 6.
    return lambda picture: _pillow_bytes(picture, format="PNG", optimize=True)


def _webp() -> Encoder:
    return lambda picture: _pillow_bytes(picture, format="WEBP", lossless=True, quality=100, method=6)


def _zstd() -> Encoder:
    try:
        import zstandard
    except ImportError as error:
        raise UsageError(
            "codec zstd: the package zstandard is not installed; pip install vaedensity[zstd], or use png or webp"
        ) from error
    compressor = zstandard.ZstdCompressor(level=zstandard.MAX_COMPRESSION_LEVEL)
    return lambda picture: len(compressor.compress(picture.tobytes()))


ENCODERS: dict[str, Callable[[], Encoder]] = {"png": _png, "webp": _webp, "zstd": _zstd}
CODECS = tuple(ENCODERS)


def codec_bits(items: NDArray[np.uint8], codec: str) -> Floats:
    """Bits (N,) of the complete file that ``codec``, one of ``CODECS``, makes of each of ``items`` (N,C,H,W) uint8,
    grey or RGB.

    Eight bits a value go in, whatever the data: two-valued items too, for which every codec finds the idle bits by
    itself. Headers are counted; they shift all items of one size by about the same.
    Raises UsageError for other codecs, dtypes and shapes, and where the codec is not installed.
    """
    if items.ndim != 4 or items.shape[1] not in (1, 3) or items.dtype != np.uint8:
        raise UsageError(f"codec {codec}: found {items.dtype} of shape {items.shape}, expected uint8 (N,1 or 3,H,W)")
    encode = _encoder(codec)
    pictures = np.ascontiguousarray(items.transpose(0, 2, 3, 1))
    return 8.0 * np.array([encode(picture) for picture in pictures], np.float64)


def _encoder(codec: str) -> Encoder:
    if codec not in ENCODERS:
        raise UsageError(f"found codec {codec!r}, expected one of {', '.join(CODECS)}")
    return ENCODERS[codec]()


def _pillow_bytes(picture: NDArray[np.uint8], **options: Any) -> int:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, **options)
    return file.tell()


@dataclass(frozen=True)
class Complexity(AnomalyScore):
    """-log2 p(x) - L(x) (Serra et al. 2020, their score S), L(x) = the bits that ``codec`` takes for the item.

    A likelihood ratio against the codec as a universal model: an image that everybody codes in few bits is no longer
    normal for being simple. Raises UsageError for an unknown or missing codec when it is made.
    """

    codec: str = "png"
    name: ClassVar[str] = "complexity"

    def __post_init__(self) -> None:
        _encoder(self.codec)

    def bits(self, estimate: Estimate, items: NDArray[np.uint8]) -> Floats:
        return information_bits(estimate) - codec_bits(items, self.codec)
