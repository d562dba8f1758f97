"""Arrays to a .vdz file (``reader.py`` is the way back).

An archive holds named arrays. Each array is cut into blocks of whole items along its first axis;
each block is coded by the model or, where that is smaller, by a classical coder.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity import __version__, items
from vaedensity.coding import classical
from vaedensity.coding.container import MODEL_CODERS, Writer
from vaedensity.coding.digest import feed
from vaedensity.coding.lowering import CodingModel
from vaedensity.coding.model_blocks import BlockCoder, CodedBlock, chains_per_group, evenly
from vaedensity.coding.order import prepare_tables
from vaedensity.coding.workers import Ticker, side_by_side
from vaedensity.errors import UsageError

CLASSICAL_BLOCK_BYTES = 4 << 20
Progress = Callable[[int], None]


@dataclass
class Tally:
    """What an archive's bytes went to."""

    # items (no whole one among bytes left over), values, whether of the kind that is counted
    arrays: list[tuple[int, int, bool]] = field(default_factory=list)
    bytes_in: int = 0
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

    def count(self, block: CodedBlock, dims: int) -> None:
        """Take in a block of items of ``dims`` values."""
        if block.coder not in MODEL_CODERS:
            self.fallback_blocks += 1
            return
        self.model_items += block.items
        self.model_dims += block.items * dims
        self.model_bits += block.bits
        self.model_bits_expected += block.expected_bits
        self.model_payload_bytes += len(block.payload)


def write_archive(
    f: BinaryIO,
    arrays: dict[str, NDArray[np.generic]],
    note: dict[str, Any],
    model: CodingModel | None,
    *,
    verify: bool = True,
    particles: int = 1,
    coder: int | None = None,
    threads: int | None = None,
    progress: Progress = lambda n: None,
) -> Tally:
    """Write ``arrays`` and the JSON ``note`` about them to ``f``; every block is decoded and compared
    unless ``verify`` is False. More than one of ``particles`` makes the model's blocks smaller and slower. ``coder``: see
    :class:`BlockCoder`."""
    layouts = {name: (model.layout_of(array) if model else items.layout_of(array)) for name, array in arrays.items()}
    coders = {}
    for name, array in arrays.items():
        if model is not None and model.fits(array):
            layout = layouts[name]
            assert layout is not None
            coders[name] = BlockCoder(model, layout, array, verify, particles, coder)
    if coders:
        assert model is not None
        prepare_tables(model.integers.config.levels)
    writer = Writer(f, max((MODEL_CODERS[c.coder] for c in coders.values()), default=1))
    tally, digest, described = Tally(), hashlib.sha256(), []
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise UsageError(
                f"array {name}: dtype {array.dtype} holds Python objects, which are never stored; convert it"
            )
        first = len(writer.blocks)
        layout, used = layouts[name], name in coders
        feed(digest, array)
        tally.bytes_in += array.nbytes
        if used:
            _write_with_model(writer, tally, array, coders[name], threads, progress)
        else:
            _write_classical(writer, tally, array, verify, progress)
        left_over = model is not None and model.integers.is_sequence and array.ndim == 1 and array.dtype == np.uint8
        rows = 0 if left_over else len(array) if array.ndim else 1
        tally.arrays.append((rows, array.size, layout is not None or left_over))
        described.append(
            {"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "blocks": len(writer.blocks) - first}
            | ({"layout": layout} if used else {})
        )
    record: dict[str, Any] = {"arrays": described, "note": note, "sha256": digest.hexdigest(), "by": __version__}
    if any(block.coder in MODEL_CODERS for block in writer.blocks):
        assert model is not None
        record["model"] = {"sha256": model.sha256, "name": model.name}
        if particles > 1:
            record["model"]["particles"] = particles
    tally.overhead |= writer.finish(record)
    tally.payload_bytes = writer.length
    return tally


def _write_with_model(
    writer: Writer,
    tally: Tally,
    array: NDArray[np.generic],
    coder: BlockCoder,
    threads: int | None,
    progress: Progress,
) -> None:
    cuts, ticker = coder.spans(array), Ticker(progress)
    groups = evenly(cuts, chains_per_group(coder.model.integers, coder.particles))

    def code(group: Sequence[tuple[int, int]]) -> list[CodedBlock]:
        return coder.code([array[begin:end] for begin, end in group], ticker.tick)

    for group in side_by_side(code, groups, ticker, threads):
        for block in group:
            writer.add(block.coder, block.items, block.payload)
            tally.count(block, coder.model.integers.config.dims)


def _write_classical(
    writer: Writer, tally: Tally, array: NDArray[np.generic], verify: bool, progress: Progress
) -> None:
    rows = len(array) if array.ndim else 1
    flat = np.ascontiguousarray(array).reshape(rows, -1) if array.size else np.zeros((0, 0), array.dtype)
    size = max(1, CLASSICAL_BLOCK_BYTES // max(1, flat[:1].nbytes))
    for begin in range(0, len(flat), size):
        part = flat[begin : begin + size]
        raw = part.tobytes()
        coder, payload = classical.encode_verified(raw) if verify else classical.encode(raw)
        writer.add(coder, len(part), payload)
        tally.fallback_blocks += 1
        progress(len(part))
