"""Damage stays local: --keep-going restores what is whole, repair makes an index anew."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import invoke, small_blocks
from PIL import Image
from rejections import DAMAGED, USAGE, Done, Refused

from vaedensity.archive.container import read_contents
from vaedensity.archive.reader import ArchiveFile

ROWS = 700


@pytest.fixture(scope="module")
def packed(digits: np.ndarray, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Digits in several blocks by the model, an array of halves in one fallback block, and a folder."""
    folder = tmp_path_factory.mktemp("packed")
    np.savez(folder / "both.npz", digits=digits[:ROWS], halves=np.arange(500, dtype="<f2"))
    (folder / "f").mkdir()
    for i in range(5):
        (folder / "f" / f"{i}.txt").write_text(f"{i} " * 300)
    with small_blocks():
        result = invoke("compress", folder / "both.npz", folder / "f", "-o", folder / "a.vdz", "-m", model, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["model_items"] == ROWS
    with ArchiveFile(folder / "a.vdz") as archive:
        assert len(archive.arrays[0].blocks) > 3
    return folder / "a.vdz", digits[:ROWS]


def damaged(path: Path, out: Path, block: int) -> tuple[Path, slice]:
    """A copy with one bit of a block's payload turned, and which items that block holds."""
    with ArchiveFile(path) as archive:
        at = archive.blocks[block]
    data = bytearray(path.read_bytes())
    data[at.begin + at.size - 3] ^= 8
    out.write_bytes(data)
    return out, slice(at.first, at.first + at.items)


def lost_items(result: Result) -> list[tuple[str, int, int]]:
    return [(one["array"], one["first"], one["end"]) for one in json.loads(result.stdout)["lost"]]


@pytest.mark.parametrize(("block", "engine"), [(0, "torch"), (2, "torch"), (2, "numpy")])
def test_one_damaged_block_costs_its_own_items(
    packed: tuple[Path, np.ndarray], model: Path, tmp_path: Path, block: int, engine: str, refused: Refused
) -> None:
    path, lost = damaged(packed[0], tmp_path / "b.vdz", block)
    how = ("-m", model, "--engine", engine)
    line = refused(DAMAGED, "decompress", path, "-o", tmp_path / "no", *how)
    assert f"block {block} of" in line and "keep going" in line
    result = invoke("decompress", path, "-o", tmp_path / "out", *how, "--keep-going", "--threads", 1, "--json")
    assert result.exit_code == DAMAGED and lost_items(result) == [("digits", lost.start, lost.stop)]
    assert result.stderr.count("\n") == 2 and f"items {lost.start} to {lost.stop - 1} of digits" in result.stderr
    with np.load(tmp_path / "out" / "both.npz") as back:
        expected = packed[1].copy()
        expected[lost] = 0
        assert np.array_equal(back["digits"], expected) and np.array_equal(back["halves"], np.arange(500, dtype="<f2"))
    assert (tmp_path / "out" / "f" / "3.txt").read_text() == "3 " * 300


def test_an_archive_without_damage_loses_nothing(packed: tuple[Path, np.ndarray], model: Path, tmp_path: Path) -> None:
    result = invoke("decompress", packed[0], "-o", tmp_path / "out", "-m", model, "--keep-going", "--json")
    assert result.exit_code == 0 and lost_items(result) == [] and json.loads(result.stdout)["left_out"] == []


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_files_that_a_damaged_block_touches_are_left_out(
    packed: tuple[Path, np.ndarray], model: Path, tmp_path: Path, engine: str
) -> None:
    with ArchiveFile(packed[0]) as archive:
        pool = next(array for array in archive.arrays if array.name == "bytes")
    path, _ = damaged(packed[0], tmp_path / "b.vdz", pool.blocks[0])
    how = ("-m", model, "--engine", engine, "--lockstep", 2)
    result = invoke("decompress", path, "-o", tmp_path / "out", *how, "--keep-going", "--json")
    assert result.exit_code == DAMAGED
    assert json.loads(result.stdout)["left_out"] == [f"{i}.txt" for i in range(5)]
    assert list((tmp_path / "out" / "f").iterdir()) == []
    with np.load(tmp_path / "out" / "both.npz") as back:
        assert np.array_equal(back["digits"], packed[1])


@pytest.mark.parametrize("share", [0.4, 0.9, 0.999])
def test_a_cut_off_archive_is_repaired(
    packed: tuple[Path, np.ndarray], model: Path, tmp_path: Path, share: float, refused: Refused
) -> None:
    whole = packed[0].read_bytes()
    (tmp_path / "cut.vdz").write_bytes(whole[: int(share * len(whole))])
    assert "vaedensity repair" in refused(DAMAGED, "list", tmp_path / "cut.vdz")
    result = invoke("repair", tmp_path / "cut.vdz", "-o", tmp_path / "new.vdz", "--json")
    record = json.loads(result.stdout)
    with ArchiveFile(packed[0]) as archive:
        ends = [block.begin + block.size for block in archive.blocks]
        left = [block for block, end in zip(archive.blocks, ends) if end <= int(share * len(whole))]
    assert record["blocks"] == len(left) and record["index_lost"] and not record["whole"]
    assert result.exit_code == (DAMAGED if record["lost"] else 0)
    back = invoke("decompress", tmp_path / "new.vdz", "-o", tmp_path / "out", "-m", model, "--keep-going", "--json")
    assert back.exit_code == result.exit_code
    kept = sum(block.items for block in left if block.array == 0)
    with np.load(tmp_path / "out" / "both.npz") as found:
        assert np.array_equal(found["digits"][:kept], packed[1][:kept]) and not found["digits"][kept:].any()


def test_a_lost_index_costs_nothing(packed: tuple[Path, np.ndarray], model: Path, tmp_path: Path) -> None:
    data = bytearray(packed[0].read_bytes())
    data[-40:] = bytes(40)
    (tmp_path / "b.vdz").write_bytes(data)
    assert invoke("repair", tmp_path / "b.vdz", "-o", tmp_path / "new.vdz").exit_code == 0
    assert invoke("test", tmp_path / "new.vdz", "-m", model).exit_code == 0
    result = invoke("decompress", tmp_path / "new.vdz", "-o", tmp_path / "out", "-m", model)
    assert result.exit_code == 0
    with np.load(tmp_path / "out" / "both.npz") as back:
        assert np.array_equal(back["digits"], packed[1])


def test_damaged_block_headers_are_passed_over(
    packed: tuple[Path, np.ndarray], model: Path, tmp_path: Path, refused: Refused
) -> None:
    with ArchiveFile(packed[0]) as archive:
        first, second = archive.blocks[1], archive.blocks[2]
    data = bytearray(packed[0].read_bytes())
    data[first.begin] ^= 1
    data[second.begin + 4] ^= 1
    (tmp_path / "b.vdz").write_bytes(data)
    assert "block 1 of" in refused(DAMAGED, "test", tmp_path / "b.vdz", "-m", model)
    result = invoke("repair", tmp_path / "b.vdz", "-o", tmp_path / "new.vdz", "--json")
    assert result.exit_code == DAMAGED
    assert lost_items(result) == [("digits", first.first, second.first + second.items)]
    with open(tmp_path / "new.vdz", "rb") as f, open(packed[0], "rb") as old:
        assert read_contents(f, "new").digests == read_contents(old, "old").digests
    assert "lost before the archive was repaired" in refused(DAMAGED, "test", tmp_path / "new.vdz", "-m", model)
    twice = invoke("repair", tmp_path / "new.vdz", "-o", tmp_path / "again.vdz", "--json")
    assert lost_items(twice) == lost_items(result)


def test_blocks_of_an_archive_in_the_archive_are_not_taken_for_its_own(tmp_path: Path, done: Done) -> None:
    """The inner one's blocks lie as they are in the outer one's, and fit its array as well."""
    rng = np.random.default_rng(0)
    (tmp_path / "a").write_bytes(rng.bytes(9000))
    done("compress", tmp_path / "a", "-o", tmp_path / "b")
    done("compress", tmp_path / "b", "-o", tmp_path / "c.vdz")
    data = bytearray((tmp_path / "c.vdz").read_bytes())
    inner = (tmp_path / "b").read_bytes()
    assert inner in data
    with ArchiveFile(tmp_path / "c.vdz") as archive:
        data[archive.blocks[0].begin + 6] ^= 1
    (tmp_path / "d.vdz").write_bytes(data[:-40])
    result = invoke("repair", tmp_path / "d.vdz", "-o", tmp_path / "e.vdz", "--json")
    assert result.exit_code == DAMAGED and lost_items(result) == [("bytes", 0, len(inner))]


def test_a_whole_archive_is_left_alone(packed: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    result = invoke("repair", packed[0], "-o", tmp_path / "new.vdz", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["whole"] and not (tmp_path / "new.vdz").exists()


def test_what_cannot_be_repaired(packed: tuple[Path, np.ndarray], tmp_path: Path, refused: Refused) -> None:
    data = bytearray(packed[0].read_bytes())
    data[30] ^= 1
    (tmp_path / "header.vdz").write_bytes(data)
    assert "the header's checksum" in refused(DAMAGED, "repair", tmp_path / "header.vdz", "-o", tmp_path / "new.vdz")
    assert "exists" in refused(USAGE, "repair", packed[0], "-o", tmp_path / "header.vdz")
    refused(USAGE, "repair", tmp_path / "none.vdz", "-o", tmp_path / "new.vdz")


def test_another_machine_is_told_that_it_disagrees(
    packed: tuple[Path, np.ndarray], model: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that differs by one unit, as arithmetic of another kind would make it."""
    from vaedensity.coding import pixel_table

    table = pixel_table.MixtureTable.cumulative
    monkeypatch.setenv("VAEDENSITY_ENGINE", "constriction")

    from vaedensity.coding import stacks_choice

    stacks_choice.fastest_stacks.cache_clear()

    def otherwise(self: Any, boundary: Any) -> Any:
        mass = table(self, boundary).clone()
        mass[..., 3:7] = (mass[..., 3:7] + 1).clamp(max=1 << 24)
        return mass

    monkeypatch.setattr(pixel_table.MixtureTable, "cumulative", otherwise)
    try:
        line = refused(DAMAGED, "decompress", packed[0], "-o", tmp_path / "out", "-m", model)
        result = invoke("decompress", packed[0], "-o", tmp_path / "some", "-m", model, "--keep-going", "--json")
    finally:
        monkeypatch.undo()
        stacks_choice.fastest_stacks.cache_clear()
    assert "block 0: this machine disagrees" in line
    assert result.exit_code == DAMAGED and sum(end - first for _, first, end in lost_items(result)) == ROWS
    with np.load(tmp_path / "some" / "both.npz") as back:
        assert np.array_equal(back["halves"], np.arange(500, dtype="<f2"))


def test_images_of_a_folder_that_are_lost_are_left_out(
    digits: np.ndarray, model: Path, tmp_path: Path, done: Done
) -> None:
    (tmp_path / "f").mkdir()
    for i in range(900):
        Image.fromarray(digits[i]).save(tmp_path / "f" / f"{i:04}.png")
    with small_blocks():
        done("compress", tmp_path / "f", "-o", tmp_path / "a.vdz", "-m", model)
    with ArchiveFile(tmp_path / "a.vdz") as archive:
        images = next(array for array in archive.arrays if array.layout)
    path, lost = damaged(tmp_path / "a.vdz", tmp_path / "b.vdz", images.blocks[1])
    result = invoke("decompress", path, "-o", tmp_path / "out", "-m", model, "--keep-going", "--json")
    assert result.exit_code == DAMAGED
    names = [f"{i:04}.png" for i in range(900)]
    assert json.loads(result.stdout)["left_out"] == names[lost]
    assert sorted(os.listdir(tmp_path / "out" / "f")) == names[: lost.start] + names[lost.stop :]
