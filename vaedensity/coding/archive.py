"""Arrays to a .vdz file (``reader.py`` is the way back).

An archive holds named arrays. Each array is cut into blocks of whole items along its first axis;
each block is coded by the model or, where that is smaller, by a classical coder.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity import __version__, items
from vaedensity.coding import chains, classical
from vaedensity.coding.ans import Stacks
from vaedensity.coding.container import MODEL_CODER, Writer
from vaedensity.coding.digest import feed
from vaedensity.coding.lowering import CodingModel
from vaedensity.coding.workers import Ticker, in_threads
from vaedensity.errors import UsageError, VaedensityError

CHAINS_PER_GROUP = 24
BLOCK_BYTES = 24 << 10  # coded size at which a chain's fixed cost (about 60 bytes) is a quarter of a percent
CLASSICAL_BLOCK_BYTES = 4 << 20
Progress = Callable[[int], None]


@dataclass
class Tally:
    """What an archive's bytes went to."""

    items: int = 0
    dims: int = 0
    bytes_in: int = 0
    model_bits: float = 0.0
    model_bits_expected: float = 0.0
    model_items: int = 0
    model_dims: int = 0
    payload_bytes: int = 0
    model_payload_bytes: int = 0
    overhead: dict[str, int] = field(default_factory=dict)
    fallback_blocks: int = 0


def write_archive(
    f: BinaryIO,
    arrays: dict[str, NDArray[np.generic]],
    note: dict[str, Any],
    model: CodingModel | None,
    *,
    verify: bool = True,
    threads: int | None = None,
    progress: Progress = lambda n: None,
) -> Tally:
    """Write ``arrays`` and the JSON ``note`` about them to ``f``; every block is decoded and compared
    unless ``verify`` is False."""
    writer, tally, digest, described = Writer(f), Tally(), hashlib.sha256(), []
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise UsageError(
                f"array {name}: dtype {array.dtype} holds Python objects, which are never stored; convert it"
            )
        first = len(writer.blocks)
        layout = items.layout_of(array)
        feed(digest, array)
        tally.bytes_in += array.nbytes
        used = model is not None and model.fits(array)
        if used:
            assert model is not None and layout is not None
            _write_with_model(
                writer, tally, items.to_items(array, layout), array, layout, model, verify, threads, progress
            )
        else:
            _write_classical(writer, tally, array, progress)
        tally.items += len(array) if array.ndim else 1
        tally.dims += array.size
        described.append(
            {"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "blocks": len(writer.blocks) - first}
            | ({"layout": layout} if used else {})
        )
    record: dict[str, Any] = {"arrays": described, "note": note, "sha256": digest.hexdigest(), "by": __version__}
    if any(block.coder == MODEL_CODER for block in writer.blocks):
        assert model is not None
        record["model"] = {"sha256": model.sha256, "name": model.name}
    tally.overhead |= writer.finish(record)
    tally.payload_bytes = writer.length
    return tally


def items_per_block(model: CodingModel, count: int) -> int:
    """Chain length: near BLOCK_BYTES of coded data, all chains alike."""
    dims = model.integers.config.dims
    per_item = max(1.0, model.bits_per_dim * dims / 8)
    wanted = max(1.0, count * per_item / BLOCK_BYTES)
    blocks = max(1, round(wanted), -(-count // chains.LONGEST_CHAIN))
    return -(-count // blocks)


def _write_with_model(
    writer: Writer,
    tally: Tally,
    all_items: NDArray[np.uint8],
    array: NDArray[np.generic],
    layout: str,
    model: CodingModel,
    verify: bool,
    threads: int | None,
    progress: Progress,
) -> None:
    config, codecs = model.integers.config, model.codecs()
    size = items_per_block(model, len(all_items))
    spans = [(a, min(a + size, len(all_items))) for a in range(0, len(all_items), size)]
    ticker = Ticker(progress)
    groups = [spans[i : i + CHAINS_PER_GROUP] for i in range(0, len(spans), CHAINS_PER_GROUP)]

    def code(group: list[tuple[int, int]]) -> list[tuple[int, int, bytes, float, float]]:
        levels, usable = [], []
        for a, b in group:
            mapped, known = items.apply_map(all_items[a:b], config.levels, model.values)
            usable.append(bool(known.all()))
            levels.append(mapped)
        good = [x for x, ok in zip(levels, usable) if ok]
        coded = (
            chains.encode_chains(codecs, good, ticker.tick)
            if good
            else chains.CodedChains([], np.zeros(0), np.zeros(0), [])
        )
        if verify and good:
            _verify(codecs, coded, good, config.item_shape, ticker)
        expected = _expected_direct_bits(codecs, good, coded.direct_steps, model)
        results, position = [], 0
        for (a, b), ok in zip(group, usable):
            raw = np.ascontiguousarray(array[a:b]).tobytes()
            if not ok:
                ticker.tick(b - a)
                results.append((*classical.encode(raw), b - a, 0.0, 0.0))
                continue
            payload = coded.blocks[position]
            # Only where deflate comes near is it worth asking the slow coders.
            if len(payload) > 0.8 * min(len(classical.deflate(raw)), len(raw)):
                other, shorter = classical.encode(raw)
                if len(shorter) < len(payload):
                    results.append((other, shorter, b - a, 0.0, 0.0))
                    position += 1
                    continue
            bits = coded.bits_back_bits[position] + coded.direct_bits[position]
            results.append((MODEL_CODER, payload, b - a, bits, coded.bits_back_bits[position] + expected[position]))
            position += 1
        return [(coder, n, payload, bits, anticipated) for coder, payload, n, bits, anticipated in results]

    for group in in_threads(code, groups, ticker, threads):
        for coder, count, payload, bits, anticipated in group:
            writer.add(coder, count, payload)
            if coder == MODEL_CODER:
                tally.model_items += count
                tally.model_dims += count * config.dims
                tally.model_bits += bits
                tally.model_bits_expected += anticipated
                tally.model_payload_bytes += len(payload)
            else:
                tally.fallback_blocks += 1


def _verify(
    codecs: chains.ChainCodecs,
    coded: chains.CodedChains,
    good: list[NDArray[np.uint8]],
    shape: tuple[int, ...],
    ticker: Ticker,
) -> None:
    parsed = [chains.parse_runs(block, len(x)) for block, x in zip(coded.blocks, good)]
    for same in chains.in_lockstep([runs for runs, _ in parsed], [len(x) for x in good]):
        try:
            back = chains.decode_chains(
                codecs,
                [parsed[i][1] for i in same],
                [len(good[i]) for i in same],
                parsed[same[0]][0],
                shape,
                lambda n: ticker.tick(0),
            )
        except (ValueError, RuntimeError, IndexError):
            back = []
        if len(back) != len(same) or any((b != good[i]).any() for b, i in zip(back, same)):
            raise VaedensityError(
                "a block does not decode to what was coded: this machine's arithmetic is not exact; "
                "nothing was written; run on another machine or without -m"
            )


@torch.no_grad()
def _expected_direct_bits(
    codecs: chains.ChainCodecs, good: list[NDArray[np.uint8]], direct_steps: list[int], model: CodingModel
) -> NDArray[np.float64]:
    """What bits-back would have cost the direct items (minus their ELBO), from stacks of random bits."""
    bits = np.zeros(len(good))
    words = 64 + sum(c * h * w for c, h, w in model.integers.network.latent_shapes) // 2
    for t in direct_steps:
        active = sum(len(x) > t for x in good)
        stacks = Stacks.random(active, words, t)
        codecs.bits_back.push(stacks, torch.from_numpy(np.stack([x[t] for x in good[:active]])))
        bits[:active] += stacks.information
    return bits


def _write_classical(writer: Writer, tally: Tally, array: NDArray[np.generic], progress: Progress) -> None:
    rows = len(array) if array.ndim else 1
    flat = np.ascontiguousarray(array).reshape(rows, -1) if array.size else np.zeros((0, 0), array.dtype)
    size = max(1, CLASSICAL_BLOCK_BYTES // max(1, flat[:1].nbytes))
    for begin in range(0, len(flat), size):
        part = flat[begin : begin + size]
        coder, payload = classical.encode(part.tobytes())
        writer.add(coder, len(part), payload)
        tally.fallback_blocks += 1
        progress(len(part))
