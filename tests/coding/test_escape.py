"""A run of symbols first: both laws, the same probabilities as digits, and the orders in whole archives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SHAPES, random_items, random_network
from test_laws import BATCH, COUNT, ENGINES, arrays_equal, check_laws, gaussian, integers, mixture

from vaedensity.api.choose import open_model
from vaedensity.archive.block import Codec as BlockCodec
from vaedensity.archive.block import Kind
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.model_blocks import BlockCoder
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.writer import write_archive
from vaedensity.coding.ans import Ints, Stacks
from vaedensity.coding.codec import Codec, TableCodec
from vaedensity.coding.escape import CentreFirst, EndsFirst
from vaedensity.coding.latent_table import LatticeGaussian
from vaedensity.data.named import load_digits

SIZES = (33, 34, 64, 100, 128, 255, 256)
CODECS: dict[str, Codec] = {
    "centre first": CentreFirst(gaussian()),
    "centre first, far out": CentreFirst(
        LatticeGaussian(integers(-700, 700, BATCH, COUNT).sign() * 512, integers(-16, 24, BATCH, COUNT))
    ),
    **{f"ends first of {n}": EndsFirst(mixture(n)) for n in SIZES},
}


def symbols_for(codec: Codec, kind: str) -> Ints:
    """Symbols all over the alphabet, only its ends, or only what lies next to them."""
    size = codec.size  # type: ignore[attr-defined]
    choice = {"all": np.arange(size), "ends": np.array([0, size - 1]), "next": np.array([1, size - 2])}[kind]
    return choice[np.random.default_rng(1).integers(0, len(choice), (BATCH, COUNT))]


@pytest.mark.parametrize("kind", ["all", "ends", "next"])
@pytest.mark.parametrize("name", CODECS)
def test_laws(name: str, kind: str) -> None:
    check_laws(CODECS[name], symbols_for(CODECS[name], kind), arrays_equal)


@pytest.mark.parametrize("name", CODECS)
def test_rate_is_that_of_digits(name: str) -> None:
    codec = CODECS[name]
    popped = codec.pop(Stacks.random(BATCH, 4000, seed=3))  # symbols as likely as the table says
    bits = []
    for way in (codec, TableCodec(codec.table)):  # type: ignore[attr-defined]
        stacks = Stacks.random(BATCH, 4000, seed=5)
        way.push(stacks, popped)
        bits.append(stacks.information.sum())
    assert bits[0] == pytest.approx(bits[1], rel=1e-4, abs=0.05)


def test_stacks_that_no_writer_made_give_symbols_or_are_rejected() -> None:
    for name, codec in CODECS.items():
        for seed in range(20):
            words = np.random.default_rng(seed).choice([0, 1, 2**24 - 1, 2**31, 2**32 - 1], 400).astype("<u4")
            words[-1] = 1
            found: list[object] = []
            for engine in ENGINES:
                stacks = engine.from_bytes([words.tobytes()] * BATCH)
                try:
                    popped = codec.pop(stacks)
                except ValueError:
                    assert "centre" not in name  # each of its codes is a symbol
                    found.append(None)
                    continue
                assert popped.min() >= 0 and popped.max() < codec.size, name  # type: ignore[attr-defined]
                found.append((popped.tolist(), stacks.to_bytes()))
            assert all(record == found[0] for record in found), name


@pytest.mark.parametrize("ends_first", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_items_under_a_network(kind: str, ends_first: bool) -> None:
    network = random_network(kind)
    items = random_items(network.config, BATCH, seed=4)
    check_laws(network.bits_back(1, ends_first), items, lambda a, b: bool((a == b).all()))
    for engine in ENGINES:
        stacks = engine(BATCH)
        network.direct(ends_first).push(stacks, items)
        assert torch.equal(network.direct(ends_first).pop(stacks), items)
        assert stacks.is_empty().all()


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("ends_first", [False, True])
def test_archives_of_every_codec(tmp_path: Path, ends_first: bool, particles: int) -> None:
    model, digits = open_model("digits"), load_digits()[1500:1524]
    path, codec = tmp_path / "a.vdz", BlockCodec(Kind.MODEL, particles > 1, ends_first)
    with open(path, "wb") as f:
        write_archive(f, {"x": digits}, [], model, particles=particles, codec=codec)
    with ArchiveFile(path) as archive:
        assert {block.codec for block in archive.blocks} == {codec}
        assert (read_arrays(archive, model)["x"] == digits).all()


@pytest.mark.parametrize(("share", "ends_first"), [(0.1, False), (0.4, True)])
def test_ends_are_coded_first_where_they_are_many(share: float, ends_first: bool) -> None:
    model = open_model("fashion-mnist")
    rng = np.random.default_rng(0)
    x = rng.integers(1, 255, (4, 28, 28), np.uint8)
    x[rng.random(x.shape) < share] = 255
    assert BlockCoder(model, "NHW", x, verify=False).codec == BlockCodec(Kind.MODEL, ends_first=ends_first)
