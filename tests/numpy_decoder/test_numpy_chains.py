"""The engines agree: what torch codes by models of random weights, numpy alone decodes to the same items."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from both_engines import KINDS, SERIES, SHAPES, VALUES, both, items_of, model_file, same

from vaedensity.coding.plan import Way, silent
from vaedensity.numpy_decoder import stacks
from vaedensity.numpy_decoder.engine import load_decoder, parse_decoder
from vaedensity.numpy_decoder.probe import answer_in_double

COUNT = 12


def cut(items: np.ndarray, *lengths: int) -> list[np.ndarray]:
    return np.split(items, np.cumsum(lengths)[:-1])


def enough(kind: str, bits_a_latent: int) -> int:
    """Items of a chain after which its stack holds so many bits a latent."""
    coder, decoder = both(kind)
    item_bits = np.prod(coder.item_shape) * np.log2(coder.levels) * 0.8
    return 5 + int((bits_a_latent * decoder.latents + 128) / item_bits)


@pytest.mark.parametrize("kind", KINDS)
def test_chains_of_any_model(kind: str) -> None:
    """In lockstep, and one by one."""
    coder, decoder = both(kind)
    count = enough(kind, bits_a_latent=8)
    lengths = [count, count, count - 1, 1]
    parts = cut(items_of(kind, sum(lengths)), *lengths)
    for way in (Way(), Way(ends_first=True))[: 1 if kind in SERIES else 2]:
        found, ticks = coder.encode(parts, way), list[int]()
        (direct,) = found.plan
        assert 1 <= len(direct) < count - 1
        assert same(decoder.decode(found.words, lengths, found.plan, way, ticks.append), parts)
        assert len(ticks) == count and sum(ticks) == sum(lengths)
        for words, part in zip(found.words, parts):
            assert same(decoder.decode([words], [len(part)], found.plan, way, silent), [part])


@pytest.mark.parametrize("way", [Way(2), Way(16, ends_first=True)], ids=str)
@pytest.mark.parametrize("kind", SHAPES)
def test_chains_of_coupled_particles(kind: str, way: Way) -> None:
    coder, decoder = both(kind)
    count = enough(kind, bits_a_latent=27)
    lengths = [count, count - 1]
    parts = cut(items_of(kind, sum(lengths)), *lengths)
    found = coder.encode(parts, way)
    direct, bits_back = found.plan
    assert direct and len(direct) + len(bits_back) < count - 1
    assert bits_back or kind in ("rgb", "seven")  # of which one item fills a stack
    assert same(decoder.decode(found.words, lengths, found.plan, way, silent), parts)


@pytest.mark.parametrize("kind", ["copying", "binary", "gumbel"])
def test_many_chains_in_lockstep_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coder, decoder = both(kind)
    parts = cut(items_of(kind, 3 * COUNT), *[COUNT] * 3)
    found = coder.encode(parts, Way())
    monkeypatch.setattr(stacks, "MANY", 1)
    assert same(decoder.decode(found.words, [COUNT] * 3, found.plan, Way(), silent), parts)


@pytest.mark.parametrize("kind", ["grey", "hundred", "many categories", "uniform"])
def test_altered_words_are_rejected(kind: str) -> None:
    """By a symbol that cannot be or by bits that are left over."""
    coder, decoder = both(kind)
    found = coder.encode([items_of(kind, COUNT)], Way())
    (words,), plan = found.words, found.plan
    told = set()
    for bit in (0, 7, 4 * len(words), 8 * len(words) - 33):
        altered = bytearray(words)
        altered[bit // 8] ^= 1 << bit % 8
        for wrong in (bytes(altered), words[4:], words + b"\1\0\0\0", words[: len(words) // 8 * 4]):
            with pytest.raises(ValueError) as caught:
                decoder.decode([wrong], [COUNT], plan, Way(), silent)
            told.add(str(caught.value))
    assert "bits are left over after the first item" in told
    with pytest.raises(ValueError):
        decoder.decode([words], [COUNT - 1], plan, Way(), silent)


def test_what_cannot_be_a_chain_is_rejected() -> None:
    decoder, series = both("grey")[1], both("gumbel")[1]
    with pytest.raises(ValueError, match="the coder words are cut off"):
        decoder.decode([b"123"], [1], ((0,),), Way(), silent)
    with pytest.raises(ValueError, match="a plan of 1 lists, expected 2"):
        decoder.decode([b""], [1], ((0,),), Way(3), silent)
    with pytest.raises(ValueError, match="3 particles of series"):
        series.decode([b""], [1], ((0,), ()), Way(3), silent)


@pytest.mark.parametrize("kind", KINDS)
def test_probes_are_those_of_torch(kind: str) -> None:
    coder, decoder = both(kind)
    expected = coder.probe
    assert decoder.probe == expected
    assert answer_in_double(parse_decoder(model_file(kind), kind, Path("a.vdz")).network) == expected


def test_what_a_decoder_says_of_its_model(tmp_path: Path) -> None:
    for kind in ("binary", "gumbel"):
        for fact in ("sha256", "name", "values", "item_shape", "is_series", "latents"):
            torch_says, numpy_says = (getattr(decoder, fact) for decoder in both(kind))
            assert torch_says == numpy_says, fact
    decoder = both("binary")[1]
    assert decoder.name == "binary" and decoder.values == VALUES["binary"]
    (tmp_path / "some.safetensors").write_bytes(model_file("binary"))
    found = load_decoder(tmp_path / "some.safetensors")
    assert (found.name, found.sha256) == ("some", decoder.sha256)


def test_fewer_chains_where_items_are_large_or_particles_many() -> None:
    decoder = both("grey")[1]
    assert [decoder.chains_at_once(Way(k)) for k in (1, 2, 64, 256)] == [64, 32, 1, 1]
    large = parse_decoder(model_file("grey"), "grey", Path("a.vdz"))
    large.item_shape = (3, 512, 512)
    assert large.chains_at_once(Way()) == 1


WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numba", "constriction", "scipy", "safetensors", "sklearn"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import numpy as np
from pathlib import Path
from types import SimpleNamespace
from vaedensity.numpy_decoder.engine import load_decoder

folder, plan = Path(sys.argv[1]), eval(sys.argv[2])
words, items = (folder / "words").read_bytes(), np.load(folder / "items.npy")
way = SimpleNamespace(particles=2, ends_first=True)
decoder = load_decoder(folder / "m.safetensors")
(found,) = decoder.decode([words], [len(items)], plan, way, lambda n: None)
assert np.array_equal(found, items)
others = {name.split(".")[1] for name in sys.modules if name.startswith("vaedensity.")}
assert others == {"errors", "lazy", "numpy_decoder"}, others
"""


def test_a_chain_is_decoded_without_torch(tmp_path: Path) -> None:
    """Nor does it take more of the package than the errors."""
    items = items_of("copying", 20)
    found = both("copying")[0].encode([items], Way(2, True))
    (tmp_path / "m.safetensors").write_bytes(model_file("copying"))
    (tmp_path / "words").write_bytes(found.words[0])
    np.save(tmp_path / "items.npy", items)
    command = [sys.executable, "-c", WITHOUT, str(tmp_path), repr(found.plan)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
