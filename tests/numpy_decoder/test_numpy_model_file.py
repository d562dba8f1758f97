"""Model files that are none, or not this format's, are rejected by both readers; every bound is proved."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_engines import KINDS, model_file

from vaedensity.errors import ModelError
from vaedensity.model import checkpoint
from vaedensity.numpy_decoder.engine import load_decoder, parse_decoder
from vaedensity.numpy_decoder.model_file import Model, parse_model
from vaedensity.numpy_decoder.network import Network
from vaedensity.numpy_decoder.series import SeriesNetwork

WHOLE = model_file("copying")
PATH = Path("m.safetensors")
Change = Callable[[dict[str, Any]], object]


def rejection(data: bytes) -> str:
    """What this reader says of ``data``, which both must reject with one line."""
    for parse in (checkpoint.parse_model, parse_model):
        with pytest.raises(ModelError) as caught:
            parse(data, PATH)
        assert str(caught.value).startswith("m.safetensors: ") and "\n" not in str(caught.value)
    return str(caught.value)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, tensors) of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def joined(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def with_record(change: Change, kind: str = "copying", text: Callable[[str], str] = lambda text: text) -> bytes:
    """A model file after ``change`` of what it says of itself, and of the JSON ``text`` of that."""
    header, body = split(model_file(kind))
    record = json.loads(header["__metadata__"]["vaedensity"])
    change(record)
    header["__metadata__"]["vaedensity"] = text(json.dumps(record))
    return joined(header, body)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sha256_is_that_of_the_other_reader(kind: str) -> None:
    assert parse_model(model_file(kind), PATH).sha256 == checkpoint.parse_model(model_file(kind), PATH).sha256


@pytest.mark.parametrize("end", [0, 7, 8, 400, 2000, -1])
def test_cut_files(end: int) -> None:
    assert "not a vaedensity model" in rejection(WHOLE[:end])


@pytest.mark.parametrize("data", [b"", b"12345678" * 3, (1 << 40).to_bytes(8, "little"), WHOLE + b"\0"], ids=len)
def test_other_files(data: bytes, tmp_path: Path) -> None:
    assert "the model inside is not a vaedensity model" in rejection(data)
    with pytest.raises(ModelError, match=r"m\.safetensors: not a vaedensity model"):
        (tmp_path / "m.safetensors").write_bytes(data)
        load_decoder(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_decoder(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r.update(format=4), "model format 4 was never released; fit the model anew"),
        (lambda r: r.update(version=2), "model version 2 is not known, expected 1; update vaedensity"),
        (lambda r: r.pop("version"), "model version None is not known"),
        (lambda r: r.pop("sha256"), "'sha256'"),
        (lambda r: r.update(sha256="0" * 64), "do not have the SHA-256"),
        (lambda r: r.pop("config"), "'config'"),
        (lambda r: r.update(config=[]), "not a vaedensity model"),
        (lambda r: r.update(card=None), "not a vaedensity model"),
        (lambda r: r.update(values=[0, 1]), "values must be two different numbers"),
        (lambda r: r.update(unit=100), "a unit of 100"),
        (lambda r: r.update(unit=64), "do not have the SHA-256"),
        (lambda r: r["direct_steps"].pop(), "direct steps do not fit"),
        (lambda r: r["direct_steps"][0].append(1), "direct steps do not fit"),
        (lambda r: r["direct_steps"][0].__setitem__(0, 1.0), "direct steps do not fit"),
        (lambda r: r["config"].update(kind="sound"), "left over"),
        (lambda r: r["config"].update(more=1), "left over"),
        (lambda r: r["config"].update(height=0), "height 0, expected 1 to 512"),
        (lambda r: r["config"].update(width=8.0), "width 8.0"),
        (lambda r: r["config"].update(levels=257), "levels 257"),
        (lambda r: r["config"].update(channels=2), "channels"),
        (lambda r: r["config"].update(sub_images=5), "5 sub-images"),
        (lambda r: r["config"].update(likelihood="other"), "a likelihood 'other'"),
        (lambda r: r["config"].update(likelihood="categorical"), "a categorical likelihood with neighbours"),
        (lambda r: r["config"].update(latents=[[4, 3], [4, 2]]), "latents"),
        (lambda r: r["config"].update(latents=[[4, 3], [2, 65]]), "latents"),
        (lambda r: r["config"].update(widths=[12]), "latents and widths"),
        (lambda r: r["config"].update(blocks=17), "blocks 17"),
    ],
)
def test_records_that_make_no_sense(change: Change, told: str) -> None:
    assert told in rejection(with_record(change))


@pytest.mark.parametrize(
    "change",
    [
        {"length": 0},
        {"levels": 257},
        {"dilations": []},
        {"contexts": [3, 2]},
        {"context_width": 99},
        {"noise": "pink"},
        {"variables": True},
    ],
    ids=str,
)
def test_records_of_series_that_make_no_sense(change: dict[str, Any]) -> None:
    rejection(with_record(lambda r: r["config"].update(change), "gumbel"))


@pytest.mark.parametrize("bits", ["-1", "65", "NaN", "true", "null", '"1"'])
def test_cards_say_how_many_bits_an_item_takes(bits: str) -> None:
    data = with_record(
        lambda r: r["card"].update(integer_bits_per_dim="HERE"), text=lambda text: text.replace('"HERE"', bits)
    )
    with pytest.raises(ModelError, match="integer_bits_per_dim on its card"):
        parse_model(data, PATH)


def test_a_long_header_is_rejected_before_it_is_read() -> None:
    size = int.from_bytes(WHOLE[:8], "little")
    for header in (1 << 22, (1 << 22) + 1):
        data = header.to_bytes(8, "little") + WHOLE[8 : 8 + size].ljust(header) + WHOLE[8 + size :]
        if header == 1 << 22:
            assert parse_model(data, PATH).sha256 == parse_model(WHOLE, PATH).sha256
        else:
            assert "beyond the limit of 4194304" in rejection(data)


def moved(entry: dict[str, Any]) -> None:
    entry["data_offsets"] = [at + 2 for at in entry["data_offsets"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("integer/stem/bias"),
        lambda header: header.update({"integer/more/bias": header.pop("integer/stem/bias")}),
        lambda header: header.update({"other/bias": header.pop("integer/stem/bias")}),
        lambda header: moved(header["integer/stem/bias"]),
        lambda header: header["integer/stem/bias"].update(dtype="F32"),
        lambda header: header["integer/stem/bias"].update(dtype="X9"),
        lambda header: header["integer/stem/bias"].update(shape=[-1, -8]),
        lambda header: header.pop("__metadata__"),
    ],
)
def test_tensors_that_are_not_where_they_should_be(change: Change) -> None:
    header, body = split(WHOLE)
    change(header)
    assert "not a vaedensity model" in rejection(joined(header, body))


# Bounds of the network


IMAGE_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "expand.0/weight": lambda a: np.full_like(a, 32767),  # beyond 2^24 in sum
    "stem/bias": lambda a: a + (1 << 24),
    "stem/shift": lambda a: np.full_like(a, 21),
    "decoder.0.0.first/weight": lambda a: a.astype(np.int32),
    "prior_heads.0.0/weight": lambda a: a[:, :-1],
    "start": lambda a: a + (1 << 20),
    "latent_in.0/weight": lambda a: np.where(np.arange(a.size).reshape(a.shape), 0, -32768).astype(np.int16),
    "latent_in.1/shift": lambda a: np.full_like(a, -4),  # sums of maps
}
SERIES_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blocks.0.convolution/weight": lambda a: np.full_like(a, 32767),
    "value_table/weight": lambda a: np.full_like(a, -128),
    "latent_in/bias": lambda a: a + (1 << 24),
    "head/shift": lambda a: np.full_like(a, -5),
    "head/weight": lambda a: a[:-1],
    "start": lambda a: a.astype(np.int16),
    "context_tables.0/shift": lambda a: np.full_like(a, -4),  # sums of maps
}


@pytest.mark.parametrize("kind", ["copying", "gumbel"])
def test_bounds_of_the_network_are_proved(kind: str) -> None:
    model = parse_model(model_file(kind), PATH)
    network = SeriesNetwork if model.is_series else Network
    changes = SERIES_CHANGES if model.is_series else IMAGE_CHANGES
    network(model)
    for name, change in changes.items():
        changed = model.tensors | {name: change(model.tensors[name])}
        if name == "latent_in.1/shift":
            changed["latent_in.1/weight"] = np.full_like(changed["latent_in.1/weight"], 3000)
        if name == "context_tables.0/shift":
            changed["context_tables.0/bias"] = np.full_like(changed["context_tables.0/bias"], 1 << 23)
        with pytest.raises(ValueError, match=r"sums|shift|types|shapes|start"):
            network(replace(model, tensors=changed))
    with pytest.raises(ValueError, match="left over"):
        network(replace(model, tensors=model.tensors | {"more/bias": model.tensors["start"]}))


def test_a_network_that_is_not_usable_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def altered(data: bytes, path: Path) -> Model:
        model = parse_model(data, path)
        return replace(model, tensors=model.tensors | {"stem/bias": model.tensors["stem/bias"] + (1 << 24)})

    monkeypatch.setattr("vaedensity.numpy_decoder.engine.parse_model", altered)
    with pytest.raises(ModelError, match=r"^a.vdz: its integer network is not usable \(layer stem: .*\); fit again$"):
        parse_decoder(WHOLE, "copying", Path("a.vdz"))
