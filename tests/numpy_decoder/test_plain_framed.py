"""The second reader on archives of version 5: what they hold comes back, whatever the order and the coders of blocks."""

import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import framed
import goldens
import numpy as np
import pytest

from vaedensity.errors import DamagedArchive, ModelError
from vaedensity.numpy_decoder import chains
from vaedensity.numpy_decoder.archive import find_model, read, read_arrays
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.distributions import Gaussian
from vaedensity.numpy_decoder.model_file import read_model
from vaedensity.numpy_decoder.record import Block
from vaedensity.numpy_decoder.stacks import Stacks
from vaedensity.numpy_decoder.symbols import Digits

RNG = np.random.default_rng(5)
ARRAYS = {
    "shorts": RNG.integers(0, 300, (7, 2)).astype("<u2"),
    "bytes": RNG.integers(0, 9, (5, 3), np.uint8),
    "scalar": np.array(2.5, ">f8"),
    "nothing": np.empty((0, 4), "<f4"),
    "texts": np.array(["one", "eleven", "a"], "<U6"),
    "truths": RNG.integers(0, 2, (2, 2, 2)).astype(bool),
}


def mixed() -> list[framed.Part]:
    """Blocks of every fallback codec, those of an array apart from each other."""
    shorts = framed.cut(0, ARRAYS["shorts"], (3, 2), (2, 1), (1, 3), (0, 1))
    few = framed.cut(1, ARRAYS["bytes"], (2, 4), (1, 1))
    scalar = framed.cut(2, ARRAYS["scalar"], (3, 1))
    texts = framed.cut(4, ARRAYS["texts"], (3, 2), (0, 1))
    truths = framed.cut(5, ARRAYS["truths"], (0, 2))
    columns = (few[:1], shorts[:1], texts[:1], scalar, shorts[1:3], truths, few[1:], texts[1:], shorts[3:])
    return [part for column in columns for part in column]


def save(path: Path, text: Any, parts: list[framed.Part], sha256: bytes, **changes: Any) -> Path:
    path.write_bytes(framed.written(text, parts, sha256, **changes))
    return path


def test_every_fallback_coder_and_blocks_in_any_order(tmp_path: Path) -> None:
    assert {part.coder for part in mixed()} == {0, 1, 2, 3}
    path = save(tmp_path / "a.vdz", framed.record(ARRAYS), mixed(), framed.digest(ARRAYS))
    found = read_arrays(path)
    assert list(found) == list(ARRAYS) and goldens.same(found, ARRAYS)


def test_byte_planes_by_example(tmp_path: Path) -> None:
    array = np.array([[0x0102, 0x0304], [0x0506, 0x0708]], ">u2")
    payload = framed.coded(2, bytes([1, 3, 5, 7, 2, 4, 6, 8]))
    part = framed.Part(0, 0, 2, 3, bytes(range(1, 9)), payload)
    path = save(tmp_path / "a.vdz", framed.record({"x": array}), [part], framed.digest({"x": array}))
    assert goldens.same(read_arrays(path), {"x": array})


def test_fields_of_other_versions_are_ignored(tmp_path: Path) -> None:
    text = framed.record(ARRAYS, sha256="00", requires=[])
    text["arrays"][0] |= {"blocks": 99, "colour": "blue"}
    path = save(tmp_path / "a.vdz", text, mixed(), framed.digest(ARRAYS))
    assert goldens.same(read_arrays(path), ARRAYS)
    early = goldens.with_record("grey-v1", tmp_path / "b.vdz", requires=["tapes"])
    assert goldens.same(read_arrays(early, str(goldens.model("grey-v1"))), goldens.arrays("grey-v1"))


def test_a_digest_that_is_not_known_is_not_asked_for(tmp_path: Path) -> None:
    known = framed.digest(ARRAYS)
    for digests in (bytes(32 * len(ARRAYS)), known[:32] + bytes(32) + known[64:]):
        assert goldens.same(read_arrays(save(tmp_path / "a.vdz", framed.record(ARRAYS), mixed(), digests)), ARRAYS)
    for k, name in enumerate(ARRAYS):
        other = known[: 32 * k] + bytes(31) + b"\1" + known[32 * k + 32 :]
        path = save(tmp_path / "a.vdz", framed.record(ARRAYS), mixed(), other)
        assert message(path) == (
            f"{path}: array {name} does not have the SHA-256 of the original; keep going to restore the others"
        )


@pytest.mark.parametrize("name", goldens.EARLY)
def test_blocks_of_a_golden_decode_from_frames(name: str, tmp_path: Path) -> None:
    text, parts, sha256 = framed.of_golden(name)
    assert any(part.coder >= 16 for part in parts)
    extra = np.arange(40, dtype="<u4")
    text["arrays"].append(framed.entry("extra", extra))
    more = framed.cut(len(text["arrays"]) - 1, extra, (3, 30), (0, 10))
    parts = [more[0], *parts, more[1]]
    arrays = {**{e["name"]: goldens.arrays(name)[e["name"]] for e in text["arrays"][:-1]}, "extra": extra}
    path = save(tmp_path / "a.vdz", text, parts, framed.digest(arrays))
    assert framed.digest(arrays) != sha256
    assert goldens.same(read_arrays(path, str(goldens.model(name))), arrays)


def message(path: Path, model: Path | None = None) -> str:
    with pytest.raises(DamagedArchive) as caught:
        read_arrays(path, model and str(model))
    return str(caught.value)


@pytest.mark.parametrize("k", range(9))
def test_items_with_another_checksum_name_their_block(k: int, tmp_path: Path) -> None:
    parts = mixed()
    parts = framed.altered(parts, k, said={"items_checksum": zlib.crc32(parts[k].raw) ^ 1})
    path = save(tmp_path / "a.vdz", framed.record(ARRAYS), parts, framed.digest(ARRAYS))
    told = f"{path}: block {k}: this machine disagrees: its bytes are as written, but decode to other items"
    assert message(path).startswith(told)


@pytest.mark.parametrize("name", ["grey-v1", "sequence-v4"])
def test_items_of_a_model_with_another_checksum_name_their_block(name: str, tmp_path: Path) -> None:
    text, parts, sha256 = framed.of_golden(name)
    k = next(i for i, part in enumerate(parts) if part.coder >= 16)
    path = save(tmp_path / "a.vdz", text, framed.altered(parts, k, said={"items_checksum": 7}), sha256)
    assert f": block {k}: this machine disagrees: " in message(path, goldens.model(name))


def test_a_machine_that_computes_other_probabilities_disagrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the stack ends elsewhere or a symbol is impossible, the reader says the same as of other items."""
    text, parts, sha256 = framed.of_golden("grey-v1")
    path, model = save(tmp_path / "a.vdz", text, parts, sha256), goldens.model("grey-v1")
    true = Gaussian.cumulative
    for mistake in (1, -3):
        monkeypatch.setattr(
            Gaussian,
            "cumulative",
            lambda distribution, b, m=mistake: true(
                Gaussian(distribution.mean + m, distribution.log2_scale, distribution.n), b
            ),
        )
        assert re.search(r"block \d+: this machine disagrees: its bytes are as written, but ", message(path, model))
    monkeypatch.setattr(Gaussian, "cumulative", true)
    assert goldens.same(read_arrays(path, str(model)), goldens.arrays("grey-v1"))

    def beyond(*_: object) -> None:
        raise ValueError("a symbol is beyond the last")

    monkeypatch.setattr(Digits, "pop", beyond)
    assert re.search(r"block \d+: this machine disagrees: .*a symbol is beyond the last", message(path, model))
    assert "disagrees" not in message(goldens.archive("grey-v1"), model)


def test_lost_items_are_refused_by_name(tmp_path: Path) -> None:
    parts = mixed()
    where = [i for i, part in enumerate(parts) if part.array == 0]
    for k in where[1:3]:
        parts = framed.altered(parts, k, coder=15, raw=b"", payload=b"")
    path = save(tmp_path / "a.vdz", framed.record(ARRAYS), parts, framed.digest(ARRAYS))
    assert f"{path}: block {where[1]} is lost, items 2 to 2 of array shorts and 1 more block" in message(path)


class TestModelInside:
    @pytest.mark.parametrize("name", ["grey-v1", "coupled-seven-v2", "sequence-v4"])
    def test_it_is_used(self, name: str, tmp_path: Path, no_released: None) -> None:
        path = save(tmp_path / "a.vdz", *framed.with_model(name, coders=(3, 2, 1, 0)))
        assert goldens.same(read_arrays(path), goldens.arrays(name))

    def test_another_file_takes_its_place(self, tmp_path: Path, no_released: None) -> None:
        path = save(tmp_path / "a.vdz", *framed.with_model("grey-v1", goldens.model("two-valued-v1")))
        assert goldens.same(read_arrays(path, str(goldens.model("grey-v1"))), goldens.arrays("grey-v1"))
        with pytest.raises(ModelError, match=r"made with model grey-v1 .*found another one inside"):
            read_arrays(path)
        path = save(tmp_path / "a.vdz", *framed.with_model("grey-v1"))
        with pytest.raises(ModelError, match=r"made with model grey-v1 .*found two-valued-v1"):
            read_arrays(path, str(goldens.model("two-valued-v1")))

    def test_it_is_not_restored(
        self, tmp_path: Path, no_released: None, done: Callable[..., dict[str, Any]], refused: Callable[..., str]
    ) -> None:
        text, parts, sha256 = framed.with_model("grey-v1")
        path = save(tmp_path / "a.vdz", text, parts, sha256)
        result = done("decompress", path, "-o", tmp_path / "out", "--engine", "numpy")
        with np.load(tmp_path / "out" / "all.npz") as f:
            assert goldens.same({key: f[key] for key in f.files}, goldens.arrays("grey-v1"))
        assert result["bytes_out"] == sum(array.nbytes for array in goldens.arrays("grey-v1").values())
        assert result["items"] == sum(len(np.atleast_1d(array)) for array in goldens.arrays("grey-v1").values())
        text["meta"]["collections"][0]["arrays"]["model"] = "model"
        save(path, text, parts, sha256)
        assert "meta" in refused(3, "decompress", path, "-o", tmp_path / "new", "--engine", "numpy")

    def test_it_has_a_digest_of_its_own(self, tmp_path: Path, no_released: None) -> None:
        text, parts, digests = framed.with_model("grey-v1")
        path = save(tmp_path / "a.vdz", text, parts, digests[:-32] + bytes(31) + b"\1")
        for model in (None, goldens.model("grey-v1")):
            assert "array model does not have the SHA-256 of the original" in message(path, model)

    @pytest.mark.parametrize("whole", [b"", b"12345678" * 3, (1 << 40).to_bytes(8, "little")], ids=len)
    def test_what_is_no_model_is_refused(self, whole: bytes, tmp_path: Path, no_released: None) -> None:
        (tmp_path / "m").write_bytes(whole)
        path = save(tmp_path / "a.vdz", *framed.with_model("grey-v1", tmp_path / "m", coders=(0,) if whole else ()))
        with pytest.raises(ModelError, match="the model inside is not a vaedensity model"):
            read_arrays(path)

    def test_damage_to_it_is_damage(self, tmp_path: Path, no_released: None) -> None:
        text, parts, sha256 = framed.with_model("grey-v1")
        path = save(tmp_path / "a.vdz", text, framed.altered(parts, 0, said={"checksum": 1}), sha256)
        for model in (None, goldens.model("grey-v1")):
            assert "block 0 of " in message(path, model)
        path = save(tmp_path / "a.vdz", text, framed.altered(parts, 0, coder=15, raw=b"", payload=b""), sha256)
        for model in (None, goldens.model("grey-v1")):
            assert "block 0 is lost" in message(path, model)


def test_a_long_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    whole = goldens.model("grey-v1").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    for header in (1 << 22, (1 << 22) + 1):
        path = tmp_path / "m.safetensors"
        path.write_bytes(header.to_bytes(8, "little") + whole[8 : 8 + size].ljust(header) + whole[8 + size :])
        if header == 1 << 22:
            assert read_model(path).sha256 == read_model(goldens.model("grey-v1")).sha256
        else:
            with pytest.raises(ModelError, match="beyond the limit of 4194304"):
                read_model(path)


@pytest.mark.parametrize("bits", ["-1", "65", "NaN", "true", "null", '"1"'])
def test_cards_say_how_many_bits_an_item_takes(bits: str, tmp_path: Path) -> None:
    whole = goldens.model("grey-v1").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    facts = json.loads(header["__metadata__"]["vaedensity"])
    facts["card"]["integer_bits_per_dim"] = "HERE"
    header["__metadata__"]["vaedensity"] = json.dumps(facts).replace('"HERE"', bits)
    text = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
    with pytest.raises(ModelError, match="integer_bits_per_dim on its card"):
        read_model(tmp_path / "m.safetensors")


def test_bits_left_over_are_refused_though_the_items_have_their_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An altered word and the checksum of what it decodes to: only the end of the stack is not as it should be."""
    text, parts, _ = framed.of_golden("two-valued-v1")
    k = next(i for i, part in enumerate(parts) if part.coder >= 16)
    payload = parts[k].payload
    parts = framed.altered(parts, k, payload=payload[:40] + bytes([payload[40] ^ 1]) + payload[41:])
    digests, model = bytes(32 * len(text["arrays"])), goldens.model("two-valued-v1")
    found: dict[int, int] = {}

    def meta(_: Any, block: Block, items: np.ndarray, checksum: int | None) -> None:
        found[block.index] = zlib.crc32(items.tobytes())

    with monkeypatch.context() as patch:
        patch.setattr(Stacks, "left_over", lambda self: [])
        patch.setattr(chains, "require_checksum", meta)
        read_arrays(save(tmp_path / "a.vdz", text, parts, digests), str(model))
    assert found[k] != zlib.crc32(parts[k].raw)
    parts = framed.altered(parts, k, said={"items_checksum": found[k]})
    told = f"block {k}: this machine disagrees: its bytes are as written, but do not decode (bits are left over"
    assert told in message(save(tmp_path / "a.vdz", text, parts, digests), model)


def test_no_altered_bit_and_no_truncation_passes() -> None:
    arrays = {"a": np.arange(6, dtype="<u2").reshape(3, 2), "b": np.arange(4, dtype=np.uint8)}
    a, b = framed.cut(0, arrays["a"], (3, 1), (0, 2)), framed.cut(1, arrays["b"], (1, 4))
    whole = framed.written(framed.record(arrays), [a[0], *b, a[1]], framed.digest(arrays))

    def passes(data: bytes) -> bool:
        directory = Directory(io.BytesIO(data), Path("altered.vdz"))
        return goldens.same(read(directory, find_model(directory, None)), arrays)

    assert passes(whole)
    refused = 0
    for data in [*(flipped(whole, bit) for bit in range(8 * len(whole))), *(whole[:n] for n in range(len(whole)))]:
        with pytest.raises(DamagedArchive, match=r"^altered\.vdz: [^\n]+$"):
            passes(data)
        refused += 1
    assert refused == 9 * len(whole) and len(whole) > 250


def flipped(whole: bytes, bit: int) -> bytes:
    return whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]
