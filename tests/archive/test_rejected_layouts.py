"""Files whose checksums are right and whose parts contradict each other, or that change while they are read."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import blocks_of, pack, patched, same, unpack
from model_cases import Items, network

from vaedensity.api.models import model_for
from vaedensity.archive.block import DEFLATE, RAW, Block
from vaedensity.archive.block_header import BlockHeader, scan
from vaedensity.archive.container import FOOTER, MOST_STREAM, Writer
from vaedensity.archive.reader import ArchiveFile
from vaedensity.errors import DamagedArchive, ModelError, VaedensityError

NOISE = np.frombuffer(np.random.default_rng(0).bytes(600), np.uint8)


def test_blocks_that_changed_places(tmp_path: Path) -> None:
    path = tmp_path / "a.vdz"
    pack(path, {"x": NOISE}, None, 100)
    data, (first, second) = bytearray(path.read_bytes()), blocks_of(path)[0][2:4]
    assert first.size == second.size
    own = bytes(data[first.begin :][: first.size])
    data[first.begin : second.begin] = data[second.begin : second.begin + second.size]
    data[second.begin : second.begin + second.size] = own
    path.write_bytes(data)
    with pytest.raises(DamagedArchive, match=r"block 2 of 6 is damaged .its block header says other than the index"):
        unpack(path)


def test_an_index_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.vdz"
    pack(path, {"x": NOISE})
    begin, end = blocks_of(path)[2], path.read_bytes()[-FOOTER.size :]
    os.truncate(path, begin + MOST_STREAM + 1)  # takes no room on the disk
    with open(path, "ab") as f:
        f.write(FOOTER.pack(0, MOST_STREAM + 1, 0, FOOTER.unpack(end)[-1]))
    with pytest.raises(DamagedArchive, match=f"an index of {MOST_STREAM + 1} bytes"):
        unpack(path)


def test_a_block_that_goes_on_beyond_the_end_of_its_file() -> None:
    header = BlockHeader(0, 0, 1, RAW, 100, 0, 0).pack(b"")
    assert list(scan(io.BytesIO(header + bytes(40)), 0, len(header) + 100, b"")) == []


def test_files_without_a_place_of_their_own_to_read_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where there is no pread."""
    pack(tmp_path / "a.vdz", {"x": NOISE}, None, 100)
    monkeypatch.delattr(os, "pread")
    assert same(unpack(tmp_path / "a.vdz")["x"], NOISE)


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    path = tmp_path / "a.vdz"
    pack(path, {"x": NOISE}, None, 100)
    with ArchiveFile(path) as archive:
        os.truncate(path, archive.blocks[3].begin + 20)
        archive.payload(2)
        for index in (3, 4):
            with pytest.raises(DamagedArchive, match=f"block {index} of"):
                archive.payload(index)


def no_memory(*arguments: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("allocate", [None, no_memory])
def test_arrays_for_which_there_is_no_memory(allocate: Callable[..., Any] | None, tmp_path: Path) -> None:
    path, count = tmp_path / "a.vdz", 1 << 48
    with open(path, "wb") as f:
        writer = Writer(f, {"arrays": [{"name": "x", "dtype": "|u1", "shape": [count]}], "restore": []})
        writer.add(0, 0, count, DEFLATE, b"\x03\0", 0)
        writer.finish([bytes(32)])
    with pytest.raises(VaedensityError, match=f"array x needs {count} bytes, more than there is"):
        unpack(path, allocate=allocate)


def test_a_model_of_no_bytes(tmp_path: Path) -> None:
    path, drawn = tmp_path / "a.vdz", Items("dot", 3, "noise", 0)
    with patched(archive__model_blocks__WORTH_ASKING=float("inf")):
        pack(path, {"x": drawn.make()}, network("dot")[0], inside=b"")
    with ArchiveFile(path) as archive, pytest.raises(ModelError):
        model_for(archive, None)


def test_a_name_that_the_model_would_have(tmp_path: Path) -> None:
    path, drawn = tmp_path / "a.vdz", Items("dot", 3, "noise", 0)
    model, inside = network("dot")
    arrays = {"model": drawn.make(), "0/model": NOISE}
    with patched(archive__model_blocks__WORTH_ASKING=float("inf")):
        pack(path, arrays, model, inside=inside)
    with ArchiveFile(path) as archive:
        own = model_for(archive, None)
        assert own is not None and own.sha256 == model.sha256
    back = unpack(path, own)
    assert list(back) == list(arrays) and all(same(back[name], array) for name, array in arrays.items())


def test_items_of_another_shape_than_the_model_has(tmp_path: Path) -> None:
    path, drawn = tmp_path / "a.vdz", Items("dot", 3, "noise", 0)
    model, _ = network("dot")
    with patched(archive__model_blocks__WORTH_ASKING=float("inf")):
        pack(path, {"x": drawn.make()}, model)
    with ArchiveFile(path) as archive:
        record, digests, (payload, checksum) = archive.record, archive.digests, archive.payload(0)
        block: Block = archive.blocks[0]
    record["arrays"][0]["shape"] = [3, 1, 2]
    with open(path, "wb") as f:
        writer = Writer(f, record)
        writer.add(0, 0, 3, block.codec, payload, checksum)
        writer.finish(digests)
    with pytest.raises(DamagedArchive, match="another item shape than its model"):
        unpack(path, model)
