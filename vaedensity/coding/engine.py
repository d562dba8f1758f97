"""The torch engine: models that encode and decode the blocks of archives.

Its classes and functions are those that vaedensity/archive/engine.py asks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaedensity.arithmetic import fresh_thread, full_precision
from vaedensity.coding.ans import Stacks
from vaedensity.coding.chains import ChainCodecs, decode_chains, encode_chains
from vaedensity.coding.codec import ONE_DIGIT, RADIX, TableCodec
from vaedensity.coding.escape import CentreFirst
from vaedensity.coding.latent_table import STEPS, LatticeGaussian
from vaedensity.coding.pixel_table import MixtureTable, steps_per_level
from vaedensity.coding.plan import CodedChains, Items, Plan, Tick, Way, silent
from vaedensity.coding.probe import answer, expected_answer
from vaedensity.coding.quantise import IntegerNetwork, build, words_enough
from vaedensity.coding.stacks_choice import fastest_stacks
from vaedensity.coding.top_down import PASS_VALUES
from vaedensity.coding.windows import windows
from vaedensity.errors import ModelError, VaedensityError, refuse_if_out_of_memory
from vaedensity.model.checkpoint import ModelFile, load_model, parse_model

CHAINS_AT_ONCE, SERIES_CHAINS_AT_ONCE = 48, 128


@dataclass(frozen=True)
class CodingModel:
    """An integer network as archives refer to it.

    ``sha256`` of its integers, ``name`` to ask for it by, ``values``: what two-valued data's levels
    stand for, ``bits_per_dim``: its usual rate, which sets the block size.
    """

    integers: IntegerNetwork
    sha256: str
    name: str
    values: list[int] | None
    bits_per_dim: float
    file_bytes: int = 0

    @property
    def item_shape(self) -> tuple[int, int, int]:
        """(C,H,W)."""
        return self.integers.config.item_shape

    @property
    def levels(self) -> int:
        """Items have the values 0..levels-1."""
        return self.integers.config.levels

    @property
    def is_series(self) -> bool:
        """Whether items are series (1,1,T)."""
        return self.integers.is_sequence

    @property
    def latents(self) -> int:
        """How many latents an item has."""
        return self.integers.bits_back().latents

    @cached_property
    def probe(self) -> str:
        """What this machine's torch makes of the model's fixed question."""
        return answer(self.integers.network)

    @cached_property
    def proven_probe(self) -> str:
        """:attr:`probe`, where arithmetic without torch agrees. Raises VaedensityError."""
        if self.probe != expected_answer(self.integers.network, self.integers.kernels, self.integers.start):
            raise VaedensityError(
                f"this machine's torch computes the integers of the model {self.name} wrongly; nothing was written; "
                "compress on another machine or without a model"
            )
        return self.probe

    def codecs(self, way: Way) -> ChainCodecs:
        """The ways to code an item of a block coded in this ``way``."""
        coupled = self.integers.bits_back(way.particles, way.ends_first) if way.coupled else None
        return ChainCodecs(self.integers.bits_back(1, way.ends_first), self.integers.direct(way.ends_first), coupled)

    def prepare(self) -> None:
        """Build and compile what coding needs, so that forked processes share it."""
        prepare_tables(self.levels)

    def chains_at_once(self, way: Way) -> int:
        """Chains that move in lockstep: fewer where items are large or particles many, so that memory does not grow."""
        most = SERIES_CHAINS_AT_ONCE if self.is_series else CHAINS_AT_ONCE
        return max(1, min(most, PASS_VALUES // self.integers.config.dims) // way.particles)

    @full_precision()
    def encode(self, chains: list[Items], way: Way, tick: Tick = silent) -> CodedChains:
        """Code ``chains`` in lockstep, longest first."""
        return encode_chains(self.codecs(way), chains, tick)

    @full_precision()
    def decode(
        self, words: Sequence[bytes], lengths: Sequence[int], plan: Plan, way: Way, tick: Tick = silent
    ) -> list[Items]:
        """Undo :meth:`encode`. Raises ValueError."""
        return decode_chains(self.codecs(way), words, lengths, plan, self.item_shape, tick)

    @full_precision()
    @torch.no_grad()
    def deep_bits(self, chains: list[Items], items: list[int], way: Way) -> NDArray[np.float64]:
        """What each chain's ``items`` would have taken in the best way, from stacks of random bits."""
        bits, codec = np.zeros(len(chains)), self.integers.bits_back(way.particles, way.ends_first)
        for t in items:
            active = sum(len(x) > t for x in chains)
            stacks = fastest_stacks().random(active, words_enough(codec), t)
            codec.push(stacks, torch.from_numpy(np.stack([x[t] for x in chains[:active]])))
            bits[:active] += stacks.information
        return bits


def coding_model(file: ModelFile, name: str) -> CodingModel:
    """The coding side of a model file, every bound proved anew. Raises ModelError."""
    try:
        integers = build(file.coding_config, file.kernels, file.start, file.direct_steps)
        rate = float(file.card["integer_bits_per_dim"])
        if not 0 <= rate <= 64:
            raise ValueError(f"a rate of {rate} bits per dimension")
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError, RuntimeError) as error:
        refuse_if_out_of_memory(error)
        raise ModelError(f"{file.path}: its integer network is not usable ({error}); fit again") from error
    return CodingModel(integers, file.sha256, name, file.values, rate, file.file_bytes)


def load_decoder(path: Path) -> CodingModel:
    """The coding side of the model file ``path``. Raises ModelError."""
    return coding_model(load_model(path), path.stem)


def parse_decoder(data: bytes, name: str, path: Path) -> CodingModel:
    """As :func:`load_decoder`, of a model file's bytes that the archive ``path`` holds."""
    return coding_model(parse_model(data, path), name)


@fresh_thread()
def prepare_tables(levels: int) -> None:
    """Build and compile what coding needs, so that forked processes share it."""
    if fastest_stacks() is not Stacks:
        stacks = fastest_stacks().random(1, 100, seed=0)
        mixture = MixtureTable(torch.zeros(1, 3, 1), max(3, levels), 1)
        for codec in (CentreFirst(LatticeGaussian(torch.zeros(1, 1), torch.zeros(1, 1))), TableCodec(mixture)):
            codec.push(stacks, codec.pop(stacks))
        stacks.push_intervals(np.array([[5]]), np.array([[9]]))
        stacks.pop_rows(np.array([[[0, 5, 1 << 24]]]))
        return
    windows("gaussian", STEPS)
    windows("gaussian", RADIX * STEPS)
    if levels > ONE_DIGIT:
        windows("logistic", steps_per_level(levels))
        windows("logistic", RADIX * steps_per_level(levels))
        windows("logistic", (levels - 2) * steps_per_level(levels), 2)
