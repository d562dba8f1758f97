"""What a network looks like: a plain record that is stored in every model file."""

from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, ClassVar, TypeVar

LEVELS_MAX, LARGEST = 256, 512
AnyConfig = TypeVar("AnyConfig")
LIKELIHOODS = ("mixture", "categorical")


@dataclass(frozen=True)
class VAEConfig:
    """Shape of images and of the network that models them.

    Parameters
    ----------
    height, width, channels : int
        Of an item; 1 or 3 channels.
    levels : int
        Values are 0 to ``levels`` - 1.
    latents : tuple of (int, int)
        Levels from coarse to fine as (downsampling factor, channels); factors halve down to 2.
    widths : tuple of int
        Channels of the residual streams at the same factors.
    blocks, sub_image_blocks : int
        Residual blocks of every stream, and before the prediction of every sub-image.
    components : int
        Logistics in a mixture.
    unit : int
        The quantised network's activations are whole multiples of 1/unit in [0, 8).
    neighbours : int
        How many pixels nearby, already known, each mixture may copy.
    sub_images : int
        Passes in which pixels are predicted, 4 or 7.
    likelihood : str
        Of data with more than two levels: "mixture" of logistics, or "categorical", a probability for each level.

    Raises
    ------
    ValueError
        For sizes out of range.

    Examples
    --------
    >>> config = preset_config("tiny", (1, 28, 28), 256)
    >>> config.dims, config.latent_shapes()
    (784, [(4, 7, 7), (1, 14, 14)])
    """

    kind: ClassVar[str] = "image"

    height: int
    width: int
    channels: int
    levels: int
    latents: tuple[tuple[int, int], ...]
    widths: tuple[int, ...]
    blocks: int
    sub_image_blocks: int
    components: int
    unit: int = 128
    neighbours: int = 0
    sub_images: int = 4
    likelihood: str = "mixture"

    def __post_init__(self) -> None:
        sizes = [v for key, v in asdict(self).items() if key != "likelihood" and not isinstance(v, tuple)]
        sizes += [*self.widths, *(n for pair in self.latents for n in pair)]
        if any(type(v) is not int for v in sizes):
            raise ValueError(f"model configuration: expected whole numbers, found {asdict(self)}")
        factors = [f for f, _ in self.latents]
        checks = {
            f"height and width between 1 and {LARGEST}": 1 <= self.height <= LARGEST and 1 <= self.width <= LARGEST,
            "1 or 3 channels": self.channels in (1, 3),
            "2 to 256 levels": 2 <= self.levels <= LEVELS_MAX,
            "factors that halve down to 2": len(factors) > 0
            and factors == [2 ** (len(factors) - i) for i in range(len(factors))],
            "at most 6 levels of 1 to 64 channels": len(factors) <= 6 and all(1 <= c <= 64 for _, c in self.latents),
            "one width of 1 to 512 per level": len(self.widths) == len(factors)
            and all(1 <= w <= 512 for w in self.widths),
            "0 to 16 blocks": 0 <= self.blocks <= 16 and 0 <= self.sub_image_blocks <= 16,
            "1 to 32 components": 1 <= self.components <= 32,
            "0 to 8 neighbours": 0 <= self.neighbours <= 8,
            "4 sub-images, or 7 where the coarsest level is at a quarter or less": self.sub_images == 4
            or (self.sub_images == 7 and len(factors) > 1),
            "unit 64, 128 or 256": self.unit in (64, 128, 256),
            f"a likelihood among {', '.join(LIKELIHOODS)}, categorical without neighbours": self.likelihood
            in LIKELIHOODS
            and not (self.likelihood == "categorical" and self.neighbours),
        }
        for requirement, met in checks.items():
            if not met:
                raise ValueError(f"model configuration: expected {requirement}, found {asdict(self)}")

    @property
    def dims(self) -> int:
        """Values per item."""
        return self.height * self.width * self.channels

    @property
    def item_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """(C, h, w) of every latent level, coarse to fine."""
        coarsest = self.latents[0][0]
        rows, columns = -(-self.height // coarsest), -(-self.width // coarsest)
        return [(c, rows * coarsest // f, columns * coarsest // f) for f, c in self.latents]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_json(record: dict[str, Any]) -> "VAEConfig":
        fields = {key: value for key, value in record.items() if key != "kind"}
        known = {one.name for one in dataclass_fields(VAEConfig)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"model configuration: field {unknown[0]!r} is not known; update vaedensity")
        if missing := sorted(known - set(fields)):
            raise ValueError(f"model configuration: field {missing[0]!r} is missing")
        fields["latents"] = tuple((f, c) for f, c in fields["latents"])
        fields["widths"] = tuple(fields["widths"])
        return VAEConfig(**fields)


PRESETS: dict[str, dict[str, Any]] = {
    "fast": {
        "latents": ((2, 1),),
        "widths": (16,),
        "blocks": 0,
        "sub_image_blocks": 1,
        "components": 2,
        "neighbours": 2,
    },
    "tiny": {"latents": ((4, 4), (2, 1)), "widths": (32, 24), "blocks": 1, "sub_image_blocks": 1, "components": 4},
    "small": {
        "latents": ((4, 8), (2, 1)),
        "widths": (48, 32),
        "blocks": 1,
        "sub_image_blocks": 1,
        "components": 4,
        "neighbours": 4,
        "sub_images": 7,
    },
    "medium": {
        "latents": ((4, 8), (2, 1)),
        "widths": (64, 48),
        "blocks": 1,
        "sub_image_blocks": 1,
        "components": 5,
        "neighbours": 8,
        "sub_images": 7,
    },
    "base": {
        "latents": ((8, 8), (4, 8), (2, 2)),
        "widths": (96, 80, 64),
        "blocks": 2,
        "sub_image_blocks": 2,
        "components": 8,
        "neighbours": 8,
        "sub_images": 7,
    },
}


def preset_config(preset: str, item_shape: tuple[int, int, int], levels: int, likelihood: str = "mixture") -> VAEConfig:
    """The configuration of ``preset`` (a key of ``PRESETS``) for items of shape (C,H,W) with values 0..levels-1. Raises
    ValueError for items that no model takes."""
    channels, height, width = item_shape
    if max(height, width) > LARGEST:
        raise ValueError(f"images of {height}x{width}, a model takes up to {LARGEST}x{LARGEST}; cut or scale them")
    sizes = dict(PRESETS[preset], likelihood=likelihood)
    if likelihood == "categorical":
        sizes["neighbours"] = 0
    return VAEConfig(height=height, width=width, channels=channels, levels=levels, **sizes)


def with_unit(config: AnyConfig, unit: int) -> AnyConfig:
    """The same configuration with activations in multiples of 1/unit."""
    return replace(config, unit=unit)  # type: ignore[type-var]  # of images and of sequences alike: both have the field
