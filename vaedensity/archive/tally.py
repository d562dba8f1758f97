"""What an archive's bytes went to."""

from dataclasses import dataclass, field

from vaedensity.archive.model_blocks import CodedBlock


@dataclass
class Tally:
    """What an archive's bytes went to."""

    # items (no whole one among bytes left over), values, whether of the kind that is counted
    arrays: list[tuple[int, int, bool]] = field(default_factory=list)
    bytes_in: int = 0
    stored: dict[str, int] = field(default_factory=dict)  # bytes of the blocks of each array
    fitting_items: int = 0  # of arrays that the model fits
    declined_bytes: int = 0  # that the model's blocks would have taken beyond those of fallback codecs
    model_bits: float = 0.0
    model_bits_expected: float = 0.0
    model_items: int = 0
    model_dims: int = 0
    payload_bytes: int = 0
    model_payload_bytes: int = 0
    overhead: dict[str, int] = field(default_factory=dict)
    fallback_blocks: int = 0

    def items_and_values(self) -> tuple[int, int]:
        """Items and values of the images or series, or of all arrays where there are none."""
        counted = [a for a in self.arrays if a[2]] or self.arrays
        return sum(a[0] for a in counted), sum(a[1] for a in counted)

    @property
    def overhead_bytes(self) -> dict[str, int]:
        """Bytes that hold no information about items, by what they are spent on."""
        return self.overhead | {
            "initial_bits": round((self.model_bits - self.model_bits_expected) / 8),
            "coder_ends": round(self.model_payload_bytes - self.model_bits / 8),
        }

    def count(self, block: CodedBlock, dims: int) -> None:
        """Take in a block of items of ``dims`` values."""
        if not block.codec.by_model:
            self.fallback_blocks += 1
            return
        self.model_items += block.items
        self.model_dims += block.items * dims
        self.model_bits += block.bits
        self.model_bits_expected += block.expected_bits
        self.model_payload_bytes += len(block.payload)

    def include(self, blocks: "Tally") -> None:
        """Take in what was counted apart."""
        for name in ("items", "dims", "bits", "bits_expected", "payload_bytes"):
            setattr(self, f"model_{name}", getattr(self, f"model_{name}") + getattr(blocks, f"model_{name}"))
        self.fallback_blocks += blocks.fallback_blocks
