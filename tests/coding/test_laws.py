"""The two laws of every codec: pop undoes push, push undoes pop, leaving the stacks identical to the bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vaedensity.coding.ans import Stacks
from vaedensity.coding.argmax_table import NOISES, argmax_table
from vaedensity.coding.bits_back import BitsBack, Direct, TooShallow
from vaedensity.coding.codec import Autoregressive, Codec, Table, TableCodec
from vaedensity.coding.compiled import fastest_stacks
from vaedensity.coding.latent_table import CoarseGaussian, LatticeGaussian
from vaedensity.coding.pixel_table import BernoulliTable, CategoricalTable, MixtureTable
from vaedensity.coding.tables import TOTAL

BATCH, COUNT = 3, 40
ENGINES = list(dict.fromkeys([Stacks, fastest_stacks()]))


def integers(low: int, high: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def gaussian(seed: int = 0) -> LatticeGaussian:
    return LatticeGaussian(integers(-700, 700, BATCH, COUNT, seed=seed), integers(-20, 30, BATCH, COUNT, seed=seed + 1))


def mixture(levels: int, seed: int = 0) -> MixtureTable:
    parts = [integers(-300, 300, BATCH, 4, COUNT, seed=seed), integers(-2500, 2500, BATCH, 4, COUNT, seed=seed + 1)]
    parts.append(integers(-70, 30, BATCH, 4, COUNT, seed=seed + 2))
    return MixtureTable(torch.cat(parts, 1), levels, 4)


TABLES: dict[str, Callable[[], Table]] = {
    "gaussian": gaussian,
    "coarse gaussian": lambda: CoarseGaussian(gaussian(), 2 ** integers(0, 9, 1, COUNT)),
    **{
        f"{n} categories": (lambda n=n: CategoricalTable(integers(-300, 300, BATCH, n, COUNT)))
        for n in (3, 32, 40, 256)
    },
    **{f"{n} noise": (lambda n=n: argmax_table(integers(-60, 60, BATCH, 9, COUNT), n)) for n in NOISES},
    "bernoulli": lambda: BernoulliTable(integers(-400, 400, BATCH, 1, COUNT)),
    **{f"mixture of {n}": (lambda n=n: mixture(n)) for n in (3, 4, 17, 32, 33, 64, 100, 128, 255, 256)},
}


def check_laws(codec: Codec, symbol: object, equal: Callable[[object, object], bool]) -> None:
    """Both laws, on every engine, with the same words on each."""
    pushes, pops = [], []
    for engine in ENGINES:
        stacks = engine.random(BATCH, 4000, seed=5)
        start = stacks.to_bytes()
        codec.push(stacks, symbol)
        pushes.append((stacks.to_bytes(), stacks.information))
        assert pushes[-1][0] != start
        assert equal(codec.pop(stacks), symbol)
        assert stacks.to_bytes() == start
        assert np.abs(stacks.information).max() < 1e-6
        popped = codec.pop(stacks)
        pops.append(stacks.to_bytes())
        codec.push(stacks, popped)
        assert stacks.to_bytes() == start
    assert all(words == pushes[0][0] for words, _ in pushes) and all(words == pops[0] for words in pops)
    assert all(np.allclose(bits, pushes[0][1], atol=1e-6) for _, bits in pushes)


def arrays_equal(a: object, b: object) -> bool:
    return bool((np.asarray(a) == np.asarray(b)).all())


@pytest.mark.parametrize("name", TABLES)
def test_table_codecs(name: str) -> None:
    table = TABLES[name]()
    codec = TableCodec(table)
    symbols = integers(0, table.size, BATCH, COUNT, seed=9).numpy()
    if isinstance(table, CoarseGaussian):
        symbols = table.nearest(torch.from_numpy(symbols)).numpy()
    check_laws(codec, symbols, arrays_equal)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_distributions(name: str) -> None:
    table = TABLES[name]()
    ends = torch.arange(table.size + 1)
    mass = table.cumulative(ends)
    assert (mass[..., 0] == 0).all() and (mass[..., -1] == TOTAL).all()
    assert (mass.diff(dim=-1) >= 0).all() and (mass == mass.floor()).all()
    assert (TableCodec(table)._boundaries(ends).diff(dim=-1) >= 2).all()


@pytest.mark.parametrize("name", [n for n in TABLES if TABLES[n]().size > 32])
def test_rows_agree_with_single_boundaries(name: str) -> None:
    table = TABLES[name]()
    count = -(-table.size // 16) + 1
    ends = (torch.arange(count) * 16).clamp(max=table.size)
    rows = table.grid(torch.zeros(BATCH, COUNT, dtype=torch.int64), 16)[..., :count]
    rows[..., -1] = TOTAL
    assert (rows == table.cumulative(ends)).all()
    high = integers(0, table.size // 16, BATCH, COUNT) * 16
    assert (table.grid(high, 1) == table.cumulative(high[..., None] + torch.arange(17))).all()


def test_every_symbol_costs_what_its_probability_says() -> None:
    table = mixture(256)
    symbols = integers(0, 256, BATCH, COUNT, seed=3)
    stacks = Stacks.random(BATCH, 100, seed=5)
    TableCodec(table).push(stacks, symbols.numpy())
    mass = table.cumulative(torch.stack([symbols, symbols + 1], -1)).diff(dim=-1)[..., 0]
    bits = (24 - torch.log2(mass.clamp(min=1))).sum(1)
    assert (stacks.information <= bits.numpy() + 0.01 * COUNT).all()


def toy(step: int) -> Codec:
    return TableCodec(gaussian(seed=step))


def test_combinators() -> None:
    chain = Autoregressive(3, lambda: 0, lambda i, state: toy(i + state), lambda i, state, s: int(s.sum()) % 7)
    symbols = [integers(0, 256, BATCH, COUNT, seed=i).numpy() for i in range(3)]
    # type: ignore[call-overload]
    check_laws(chain, symbols, lambda a, b: all(arrays_equal(x, y) for x, y in zip(a, b)))
    x = integers(0, 256, BATCH, COUNT).numpy()
    back = BitsBack(toy(1), lambda s: toy(int(s.sum()) % 5), lambda z: toy(int(z.sum()) % 5))
    check_laws(back, x, arrays_equal)


def test_direct_pops_what_it_pushed() -> None:
    codec = Direct(toy(1), lambda s: (s + 3) % 256, lambda z: toy(int(z.sum()) % 5))
    stacks, x = Stacks(BATCH), integers(0, 256, BATCH, COUNT).numpy()
    codec.push(stacks, x)
    assert arrays_equal(codec.pop(stacks), x)
    assert stacks.is_empty().all()


def test_bits_are_never_invented() -> None:
    codec = BitsBack(toy(1), lambda s: toy(2), lambda z: toy(3))
    with pytest.raises(TooShallow):
        codec.push(Stacks(BATCH), integers(0, 256, BATCH, COUNT).numpy())
