"""Archives of series, and the model files that read them: round trips, and every lie rejected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_network as random_image_network
from safetensors import safe_open
from safetensors.torch import save_file
from sequences import config, random_model, random_network, random_series, save

from vaedensity.archive.block import CODECS, DEFLATE, LZMA, RAW, SERIES, Codec, Kind
from vaedensity.archive.container import Writer
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.model_blocks import spans
from vaedensity.archive.reader import ArchiveFile
from vaedensity.archive.writer import write_archive
from vaedensity.coding.ans import Stacks
from vaedensity.coding.engine import CodingModel, coding_model
from vaedensity.errors import DamagedArchive, ModelError, VaedensityError
from vaedensity.model.checkpoint import _sort_tensors, load_model, network_sha256
from vaedensity.model.config import with_unit
from vaedensity.model.kinds import config_from_json
from vaedensity.model.sequence import SequenceVAE

Arrays = dict[str, np.ndarray]
SHA = "ab" * 32
LENGTH = 40


def series_model(levels: int = 20, values: list[int] | None = None, **changes: object) -> CodingModel:
    return CodingModel(random_network(levels=levels, spread=0.2, **changes), SHA, "series", values, 1.0)


def series(count: int, levels: int = 20, length: int = LENGTH) -> np.ndarray:
    """Whose fallback coding is no better."""
    return random_series(config(levels=levels, length=length), count, seed=7)[:, 0, 0].numpy().copy()


def pack(path: Path, arrays: Arrays, model: CodingModel | None, **options: Any) -> Path:
    with open(path, "wb") as f:
        write_archive(f, arrays, [], model, **options)
    return path


def unpack(path: Path, model: CodingModel | None, **options: Any) -> Arrays:
    with ArchiveFile(path) as archive:
        return read_arrays(archive, model, **options)


def same(back: Arrays, arrays: Arrays) -> bool:
    return list(back) == list(arrays) and all(
        (back[k].dtype, back[k].shape, back[k].tobytes()) == (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()
    )


def codecs(path: Path) -> list[Codec]:
    with ArchiveFile(path) as archive:
        return [block.codec for block in archive.blocks]


@pytest.fixture(scope="module")
def model() -> CodingModel:
    return series_model()


@pytest.fixture(scope="module")
def good(model: CodingModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty series in one block of codec SERIES."""
    path = pack(tmp_path_factory.mktemp("series") / "a.vdz", {"x": series(20)}, model)
    assert codecs(path) == [SERIES]
    return path


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "m.safetensors", random_model(levels=20))


# Round trips


@pytest.mark.parametrize("count", [1, 2, 30])
def test_series_round_trip(tmp_path: Path, count: int, model: CodingModel) -> None:
    arrays = {"x": series(count)}
    path = pack(tmp_path / "a.vdz", arrays, model)
    assert count < 30 or codecs(path) == [SERIES]
    assert same(unpack(path, model), arrays)


def test_many_arrays_and_types(tmp_path: Path, model: CodingModel) -> None:
    x = series(40)
    arrays = {
        "series": x,
        "fortran": np.asfortranarray(x[:20]),
        "outside": x + np.uint8(30),
        "short": x[:, :-1],
        "bytes": x.ravel(),
        "images": x.reshape(40, 5, 8),
        "one row": x[:, None],
        "wide": x.astype(np.int64),
        "empty": x[:0],
        "scalar": np.array(3),
    }
    path = pack(tmp_path / "a.vdz", arrays, model)
    assert same(unpack(path, model), arrays)
    with ArchiveFile(path) as archive:
        by_model = {a.name for a in archive.arrays for index in a.blocks if archive.blocks[index].codec == SERIES}
        assert by_model == {"series", "fortran"}
        assert {a.name for a in archive.arrays if a.layout} == {"series", "fortran", "outside"}


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_two_values(tmp_path: Path, dtype: type) -> None:
    values = [0, 1] if dtype is np.bool_ else [255, 7]
    model = series_model(2, values, length=100)
    levels = series(20, 2, 100)
    arrays = {"x": levels.astype(np.bool_) if dtype is np.bool_ else np.array(values, np.uint8)[levels]}
    path = pack(tmp_path / "a.vdz", arrays, model)
    assert same(unpack(path, model), arrays) and set(codecs(path)) <= {SERIES, RAW, DEFLATE, LZMA}


def test_threads_lockstep_and_engines_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaedensity.archive.model_blocks.SERIES_POSITIONS", 8 * LENGTH)
    monkeypatch.setattr("vaedensity.archive.model_blocks.WORTH_ASKING", 1e9)
    model, arrays = series_model(noise="uniform"), {"x": series(60)}
    whole = pack(tmp_path / "a.vdz", arrays, model).read_bytes()
    assert len(codecs(tmp_path / "a.vdz")) == 8  # chains of eight series
    assert pack(tmp_path / "b.vdz", arrays, model, threads=2, verify=False).read_bytes() == whole
    for module in ("chains", "quantise", "engine"):
        monkeypatch.setattr(f"vaedensity.coding.{module}.fastest_stacks", lambda: Stacks)
    assert pack(tmp_path / "b.vdz", arrays, model).read_bytes() == whole
    for lockstep in (1, 5, 100):
        assert same(unpack(tmp_path / "a.vdz", model, lockstep=lockstep, threads=2), arrays)


def test_chains_of_series_are_short() -> None:
    for length in (1, 100, 1 << 14, 1 << 16):
        cuts = spans(series_model(length=length), 3000, 20.0)
        assert cuts[0][0] == 0 and cuts[-1][1] == 3000
        assert all(1 <= end - begin <= max(1, (1 << 14) // length) for begin, end in cuts)


# Records that lie


def rewritten(path: Path, folder: Path, change: Callable[[dict[str, Any]], None], codec: Codec = SERIES) -> Path:
    """The blocks of ``path`` again, said to be of ``codec``, under a changed record."""
    with ArchiveFile(path) as archive:
        record, digests = archive.record, archive.digests
        payloads = [(block.first, block.items, *archive.payload(i)) for i, block in enumerate(archive.blocks)]
    change(record)
    with open(folder / "b.vdz", "wb") as f:
        writer = Writer(f, record)
        for first, count, payload, checksum in payloads:
            writer.add(0, first, count, codec, payload, checksum)
        writer.finish(digests)
    return folder / "b.vdz"


LIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "images": lambda r: r["arrays"][0].update(layout="NHW", shape=[20, 5, 8]),
    "one row": lambda r: r["arrays"][0].update(layout="NHW", shape=[20, 1, 40]),
    "layout of another": lambda r: r["arrays"][0].update(layout="NHW"),
    "no layout": lambda r: r["arrays"][0].pop("layout"),
    "no such layout": lambda r: r["arrays"][0].update(layout="TN"),
    "no model": lambda r: r.pop("model"),
    "particles": lambda r: r["model"].update(particles=2),
    "other type": lambda r: r["arrays"][0].update(dtype="|i1"),
    "other length": lambda r: r["arrays"][0].update(shape=[20, 41]),
    "other count": lambda r: r["arrays"][0].update(shape=[21, 40]),
}


@pytest.mark.parametrize("lie", LIES)
def test_records_that_lie(tmp_path: Path, lie: str, good: Path, model: CodingModel) -> None:
    with pytest.raises(DamagedArchive):
        unpack(rewritten(good, tmp_path, LIES[lie]), model)


def test_a_record_written_again_does_not_lie(tmp_path: Path, good: Path, model: CodingModel) -> None:
    assert same(unpack(rewritten(good, tmp_path, lambda r: None), model), {"x": series(20)})


@pytest.mark.parametrize("other", [codec for codec in CODECS.values() if codec.kind == Kind.MODEL])
def test_series_under_another_codec(tmp_path: Path, other: Codec, good: Path, model: CodingModel) -> None:
    with pytest.raises(DamagedArchive):
        unpack(rewritten(good, tmp_path, lambda r: None, other), model)


def test_a_model_of_the_other_kind(tmp_path: Path) -> None:
    """Of the same name and hash, and of items of the same shape."""
    image = CodingModel(random_image_network("line"), SHA, "series", None, 1.0)  # 1x9, 33 levels
    sequence = series_model(33, length=9)
    x = series(60, 33, 9)
    with pytest.raises(VaedensityError, match="computes the model's integers differently"):
        unpack(pack(tmp_path / "a.vdz", {"x": x}, sequence), image)
    assert codecs(tmp_path / "a.vdz") == [SERIES]
    lie = rewritten(
        tmp_path / "a.vdz",
        tmp_path,
        lambda r: r["arrays"][0].update(layout="NHW", shape=[60, 1, 9]),
        Codec(Kind.MODEL),
    )
    with pytest.raises(DamagedArchive, match="another item shape"):
        unpack(lie, sequence)
    with pytest.raises(ModelError, match="needs the model"):
        unpack(tmp_path / "a.vdz", None)


# Model files


def true_sha256(tensors: dict[str, Any], record: dict[str, Any]) -> str:
    """What a file with these must name, where they make sense."""
    try:
        _, kernels, start = _sort_tensors(tensors)
        config = with_unit(config_from_json(record["config"]), record["unit"])
        return network_sha256(config, record["values"], record["direct_steps"], kernels, start)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "0" * 64


def altered(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Path:
    with safe_open(path, "pt") as f:
        tensors, record = {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["vaedensity"])
    change(tensors, record)
    record["sha256"] = true_sha256(tensors, record)
    out = path.with_name("altered.safetensors")
    save_file(tensors, out, metadata={"vaedensity": json.dumps(record)})
    return out


@pytest.mark.parametrize("unit", [128, 256])
@torch.no_grad()
def test_a_file_holds_integers_alone_and_scores_with_them(tmp_path: Path, unit: int) -> None:
    trained = random_model(levels=20)
    file = load_model(save(tmp_path / "m.safetensors", trained, unit))
    assert file.weights == {} and file.config == trained.config and file.unit == unit
    assert file.kernels["value_table"].weight.dtype == torch.int8
    assert file.kernels["head"].weight.dtype == torch.int16 and file.start.dtype == torch.int32
    scoring, integers = file.float_model(), coding_model(file, "m").integers.network
    assert isinstance(scoring, SequenceVAE) and isinstance(integers, SequenceVAE) and not scoring.training
    for name, layer in scoring.integer_convs().items():
        kernel, ratio = file.kernels[name], layer.out_unit / layer.grid.unit
        step = torch.exp2(-kernel.shift.double())
        expected = kernel.weight.double() * step[:, None, None, None] / ratio
        assert torch.equal(layer.weight.double(), expected)
        assert torch.equal(layer.bias.double(), kernel.bias.double() * step / layer.out_unit)
        original = dict(trained.named_modules())[name]
        torch.testing.assert_close(layer.weight, original.weight, atol=0.02, rtol=0)  # type: ignore[arg-type]
    x = random_series(trained.config, 6)
    values, chosen = x.flatten(1).long(), torch.eye(4).expand(6, -1, -1)[:, :3].contiguous()
    assert float((scoring.logits(values, chosen) - integers.logits(values, chosen) / 16).abs().mean()) < 0.1
    assert float((scoring.encode(x)[0] - integers.encode(x)[0] / 16).abs().mean()) < 0.1
    record = json.loads(safe_open(file.path, "pt").metadata()["vaedensity"])
    assert record["version"] == 1 and record["config"]["kind"] == "sequence"


FAULTS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "missing layer": lambda t, r: [t.pop(f"integer/head/{part}") for part in ("weight", "bias", "shift")],
    "missing part": lambda t, r: t.pop("integer/head/shift"),
    "unknown layer": lambda t, r: t.update(
        {f"integer/x/{p}": t[f"integer/head/{p}"].clone() for p in ("weight", "bias", "shift")}
    ),
    "wrong shape": lambda t, r: t.update({"integer/head/weight": t["integer/head/weight"][:, :-1].contiguous()}),
    "wrong bias": lambda t, r: t.update({"integer/head/bias": t["integer/head/bias"][:-1].contiguous()}),
    "wrong start": lambda t, r: t.update({"integer/start": t["integer/start"][:, :-1].contiguous()}),
    "large start": lambda t, r: t["integer/start"].fill_(2**20),
    "real start": lambda t, r: t.update({"integer/start": torch.full((1, 12, 1, 1), float("nan"))}),
    "beyond the bound": lambda t, r: t["integer/blocks.0.convolution/weight"].fill_(32767),
    "beyond the shift": lambda t, r: t["integer/value_table/shift"].fill_(21),
    "real weights": lambda t, r: t.update({"integer/head/weight": t["integer/head/weight"].float()}),
    "float start": lambda t, r: t.update({"float/start": torch.full((1, 12, 1, 1), float("nan"))}),
    "unknown kind": lambda t, r: r["config"].update(kind="film"),
    "image kind": lambda t, r: r["config"].update(kind="image"),
    "no kind": lambda t, r: r["config"].pop("kind"),
    "unknown noise": lambda t, r: r["config"].update(noise="cauchy"),
    "text length": lambda t, r: r["config"].update(length="40"),
    "no dilations": lambda t, r: r["config"].update(dilations=None),
    "other contexts": lambda t, r: r["config"].update(contexts=[2, 3, 4]),
    "other width": lambda t, r: r["config"].update(width=13),
    "odd unit": lambda t, r: r.update(unit=100),
    "steps": lambda t, r: r.update(direct_steps=[[1]]),
    "old format": lambda t, r: r.update(format=4),
    "other version": lambda t, r: r.update(version=2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_lie(good_model: Path, fault: str) -> None:
    bad = altered(good_model, FAULTS[fault])
    with pytest.raises(ModelError) as caught:
        coding_model(load_model(bad), "m")
    assert "altered.safetensors" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["missing layer", "unknown layer", "wrong shape", "wrong bias", "wrong start"])
def test_files_that_cannot_score(good_model: Path, fault: str) -> None:
    bad = altered(good_model, FAULTS[fault])
    with pytest.raises(ModelError, match=r"altered\.safetensors: its .* fit its configuration"):
        load_model(bad).float_model()


def test_the_hash_is_of_all_that_decides_bits(good_model: Path) -> None:
    whole = load_model(good_model).sha256

    def other(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> str:
        return load_model(altered(good_model, change)).sha256

    assert other(lambda t, r: r["card"].update(name="x")) == whole
    assert other(lambda t, r: t["integer/value_table/weight"].add_(1)) != whole
    assert other(lambda t, r: r["config"].update(noise="uniform")) != whole
    assert other(lambda t, r: r["config"].update(context_bits=4)) != whole
