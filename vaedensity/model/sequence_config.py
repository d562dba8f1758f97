"""What a network over sequences looks like: a plain record that is stored in every model file."""

from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, ClassVar

from vaedensity.model.config import LEVELS_MAX
from vaedensity.model.dgcnn import DILATIONS

LONGEST = 1 << 16
NOISES = ("gumbel", "exponential", "normal", "uniform")


@dataclass(frozen=True)
class SequenceConfig:
    """Shape of series and of the network that models them.

    Parameters
    ----------
    length, levels : int
        Of an item: ``length`` values from 0 to ``levels`` - 1.
    variables, categories : int
        Latents, and the categories of each.
    width : int
        Channels of the likelihood's stream.
    encoder_width : int
        Channels of the inference network.
    dilations : tuple of int
        Of the likelihood's gated blocks, one each.
    noise : str
        A category is the greatest of as many numbers plus this noise (``argmax.py``).
    contexts : tuple of int
        Besides the value before, a position sees the last n values as one cell of a table, for each n given here.
    context_bits, context_width : int
        These tables have 2^context_bits cells of ``context_width`` numbers.
    dropout_percent : int
        Of the gates, in training.
    unit : int
        The quantised network's activations are whole multiples of 1/unit in [-8, 8).

    Raises
    ------
    ValueError
        For sizes out of range.

    Examples
    --------
    >>> sequence_config("tiny", length=100, levels=27).item_shape
    (1, 1, 100)
    """

    kind: ClassVar[str] = "sequence"
    channels: ClassVar[int] = 1
    likelihood: ClassVar[str] = "categorical"

    length: int
    levels: int
    variables: int
    categories: int
    width: int
    encoder_width: int
    dilations: tuple[int, ...] = DILATIONS
    noise: str = "gumbel"
    contexts: tuple[int, ...] = ()
    context_bits: int = 12
    context_width: int = 32
    dropout_percent: int = 10
    unit: int = 128

    def __post_init__(self) -> None:
        record = asdict(self)
        sizes = [v for field, v in record.items() if field not in ("dilations", "contexts", "noise")]
        if any(type(v) is not int for v in [*sizes, *self.dilations, *self.contexts]):
            raise ValueError(f"model configuration: expected whole numbers, found {record}")
        checks = {
            f"a length between 1 and {LONGEST}": 1 <= self.length <= LONGEST,
            "2 to 256 levels": 2 <= self.levels <= LEVELS_MAX,
            "1 to 256 latents of 2 to 32 categories": 1 <= self.variables <= 256 and 2 <= self.categories <= 32,
            "widths between 1 and 1024": 1 <= self.width <= 1024 and 1 <= self.encoder_width <= 1024,
            "1 to 64 dilations between 1 and 512": 1 <= len(self.dilations) <= 64
            and all(1 <= d <= 512 for d in self.dilations),
            f"a noise among {', '.join(NOISES)}": self.noise in NOISES,
            "contexts between 2 and 16, rising": all(2 <= n <= 16 for n in self.contexts)
            and list(self.contexts) == sorted(set(self.contexts)),
            "contexts of 2 to 20 bits and no more numbers than the stream's": 2 <= self.context_bits <= 20
            and 1 <= self.context_width <= self.width,
            "a dropout of 0 to 99 percent": 0 <= self.dropout_percent < 100,
            "unit 64, 128 or 256": self.unit in (64, 128, 256),
        }
        for requirement, met in checks.items():
            if not met:
                raise ValueError(f"model configuration: expected {requirement}, found {record}")

    @property
    def dims(self) -> int:
        """Values per item."""
        return self.length

    @property
    def item_shape(self) -> tuple[int, int, int]:
        """(1, 1, length): a series is an image of one row."""
        return 1, 1, self.length

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_json(record: dict[str, Any]) -> "SequenceConfig":
        fields = {key: value for key, value in record.items() if key != "kind"}
        known = {one.name for one in dataclass_fields(SequenceConfig)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"model configuration: field {unknown[0]!r} is not known; update vaedensity")
        if missing := sorted(known - set(fields)):
            raise ValueError(f"model configuration: field {missing[0]!r} is missing")
        for field in ("dilations", "contexts"):
            fields[field] = tuple(fields[field])
        return SequenceConfig(**fields)


SEQUENCE_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "variables": 8,
        "categories": 8,
        "width": 48,
        "encoder_width": 32,
        "contexts": (2, 3),
        "context_bits": 10,
        "context_width": 32,
    },
    "small": {
        "variables": 16,
        "categories": 16,
        "width": 96,
        "encoder_width": 48,
        "contexts": (2, 3, 4),
        "context_bits": 12,
        "context_width": 48,
        "dropout_percent": 0,
    },
    "medium": {
        "variables": 16,
        "categories": 16,
        "width": 128,
        "encoder_width": 64,
        "contexts": (2, 3, 4),
        "context_bits": 13,
        "context_width": 48,
        "dropout_percent": 0,
    },
}


def sequence_config(preset: str, length: int, levels: int, noise: str = "gumbel") -> SequenceConfig:
    """The configuration of ``preset`` (a key of ``SEQUENCE_PRESETS``) for series of ``length`` values 0..levels-1.
    Raises ValueError for series that no model takes."""
    if length > LONGEST:
        raise ValueError(f"series of {length} values, a model takes up to {LONGEST}; cut them")
    return SequenceConfig(length=length, levels=levels, noise=noise, **SEQUENCE_PRESETS[preset])
