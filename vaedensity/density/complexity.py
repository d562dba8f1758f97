"""Input complexity: how many bits does an item take in a codec that knows nothing of the model? (Serrà et al. 2020)"""

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
    """Bits of the complete file that a general codec makes of each item.

    Eight bits a value go in, whatever the data: the codecs find idle bits by themselves. Headers are counted; they
    shift all items of one size by about the same.

    Parameters
    ----------
    items : (N, C, H, W) uint8 ndarray
        Grey or RGB images, C 1 or 3.
    codec : str
        "png", "webp" or "zstd".

    Returns
    -------
    (N,) float64

    Raises
    ------
    UsageError
        For other codecs, dtypes and shapes, and where the codec is not installed.

    Examples
    --------
    >>> noise = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), np.uint8)
    >>> bool(codec_bits(0 * noise, "png") < codec_bits(noise, "png"))
    True
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
    """-log2 p(x) - L(x) (Serrà et al. 2020, their score S), L(x) the bits that a general codec takes for the item.

    A likelihood ratio against the codec as a universal model: an image that every codec makes small is not normal for
    being simple.

    Parameters
    ----------
    codec : str
        "png", "webp" or "zstd".

    Raises
    ------
    UsageError
        For an unknown or missing codec, when the score is made.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-2:]
    >>> Complexity("png").score(vd.score("digits", x), x[:, None]).shape
    (2,)
    """

    codec: str = "png"
    name: ClassVar[str] = "complexity"

    def __post_init__(self) -> None:
        _encoder(self.codec)

    def bits(self, estimate: Estimate, items: NDArray[np.uint8]) -> Floats:
        return information_bits(estimate) - codec_bits(items, self.codec)
