"""The second reader decodes every golden archive, and refuses every altered one."""

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import goldens
import numpy as np
import pytest

from vaedensity.archive import decoding
from vaedensity.archive.reader import Archive
from vaedensity.coding.quantise import coding_model
from vaedensity.errors import DamagedArchive, ModelError
from vaedensity.model.checkpoint import load_model
from vaedensity.numpy_decoder import stacks
from vaedensity.numpy_decoder.archive import read, read_arrays
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.model_file import Model, read_model
from vaedensity.numpy_decoder.network import Network
from vaedensity.numpy_decoder.record import Block


@pytest.mark.parametrize("name", goldens.NAMES)
def test_both_readers_decode_a_golden(name: str) -> None:
    expected = goldens.arrays(name)
    assert goldens.same(read_arrays(goldens.archive(name), str(goldens.model(name))), expected)
    with Archive(goldens.archive(name)) as archive:
        model = coding_model(load_model(goldens.model(name)), name)
        assert goldens.same(decoding.read_arrays(archive, model), expected)


@pytest.mark.parametrize("name", ["centre-first-v3", "ends-first-v3", "two-valued-v1", "coupled-ends-first-v3"])
def test_chains_in_lockstep_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "MANY", 1)
    found = read_arrays(goldens.archive(name), str(goldens.model(name)))
    assert goldens.same(found, goldens.arrays(name))


@cache
def model_of(name: str) -> Model:
    return read_model(goldens.model(name))


def refused(data: bytes, name: str) -> bool:
    """Whether an altered golden is refused as damaged, by whatever check."""
    try:
        read(Directory(io.BytesIO(data), Path("altered.vdz")), model_of(name))
    except DamagedArchive as error:
        assert str(error).startswith("altered.vdz: ") and "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("name", ["two-valued-v1", "grey-v1"])
def test_truncations_are_refused(name: str) -> None:
    whole = goldens.archive(name).read_bytes()
    assert all(refused(whole[:n], name) for n in [*range(40), *range(40, len(whole), 41), len(whole) - 1])
    assert refused(whole + b"\0", name)


@pytest.mark.parametrize("name", ["two-valued-v1", "centre-first-v3"])
def test_flipped_bits_are_refused(name: str) -> None:
    whole = goldens.archive(name).read_bytes()
    for at in [*range(12), *range(12, len(whole), 61), *range(len(whole) - 24, len(whole))]:
        altered = bytearray(whole)
        altered[at] ^= 1 << at % 8
        assert refused(bytes(altered), name), at


def test_words_that_pass_their_checksum_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CRC-32 the stack's end, impossible symbols or the SHA-256 show what was altered."""

    def unchecked(directory: Directory, block: Block) -> tuple[bytes, int | None]:
        directory.file.seek(block.begin)
        return directory.file.read(block.length), None

    monkeypatch.setattr(Directory, "payload", unchecked)
    for name in ("two-valued-v1", "ends-first-v3"):
        whole = goldens.archive(name).read_bytes()
        for at in (12, 15, 16, 150):
            altered = bytearray(whole)
            altered[at] ^= 4
            assert refused(bytes(altered), name), (name, at)


@pytest.mark.usefixtures("no_released")
def test_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="made with model grey-v1"):
        read_arrays(goldens.archive("grey-v1"), str(goldens.model("two-valued-v1")))
    with pytest.raises(ModelError, match="no such file"):
        read_arrays(goldens.archive("grey-v1"), "nobody's")
    with pytest.raises(ModelError, match="nor a released one"):
        read_arrays(goldens.archive("grey-v1"))


@pytest.mark.parametrize("cut", [0, 7, 8, 400, 100_000, -1])
def test_files_that_are_no_models_are_refused(cut: int, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(goldens.model("grey-v1").read_bytes()[:cut])
    with pytest.raises(ModelError, match="not a vaedensity model"):
        read_arrays(goldens.archive("grey-v1"), str(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("name", goldens.NAMES)
def test_network_hashes_are_those_of_the_other_reader(name: str) -> None:
    assert read_model(goldens.model(name)).sha256 == load_model(goldens.model(name)).sha256


CHANGES = {
    "expand.0/weight": lambda a: np.full_like(a, 32767),  # beyond 2^24 in sum
    "stem/bias": lambda a: a + (1 << 24),
    "stem/shift": lambda a: np.full_like(a, 21),
    "decoder.0.0.first/weight": lambda a: a.astype(np.int32),
    "prior_heads.0.0/weight": lambda a: a[:, :-1],
    "start": lambda a: a + (1 << 20),
    "latent_in.1/shift": lambda a: np.full_like(a, -4),  # sums of maps
}


@pytest.mark.parametrize("tensor", CHANGES)
def test_bounds_of_the_network_are_proved(tensor: str) -> None:
    model = read_model(goldens.model("grey-v1"))
    Network(model)
    changed = model.tensors | {tensor: CHANGES[tensor](model.tensors[tensor])}
    if tensor.startswith("latent_in"):
        changed["latent_in.1/weight"] = np.full_like(changed["latent_in.1/weight"], 3000)
    with pytest.raises(ValueError):
        Network(replace(model, tensors=changed))
    with pytest.raises(ValueError, match="left over"):
        Network(replace(model, tensors=model.tensors | {"more/bias": model.tensors["stem/bias"]}))
