"""`decompress --engine numpy --keep-going`: the same files, the same losses as by the other engine."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import engines
import framed
import goldens
import numpy as np
import pytest

from vaedensity.numpy_decoder.archive import read
from vaedensity.numpy_decoder.container import Directory
from vaedensity.numpy_decoder.lost import Losses
from vaedensity.numpy_decoder.model_file import read_model

DAMAGED = 3
MODEL = ("-m", goldens.model(engines.GOLDEN))
NAMES = ["a", "in/b", "c", "d"]
SIZES = [5, 9, 0, 6]
DAMAGES: dict[str, Callable[[framed.Part], framed.Part]] = {
    "payload": engines.bad_payload,
    "words": engines.bad_words,
    "lost": engines.lost,
    "items": lambda part: replace(part, said={"items_checksum": 7}),
}
pytestmark = pytest.mark.usefixtures("no_released")


def archive(path: Path, *damages: tuple[int, str]) -> tuple[Path, dict[str, np.ndarray]]:
    """Chains, shorts of two fallback blocks and three files, blocks of these mixed; some of them damaged."""
    parts, images = engines.chains(4)
    arrays = {
        "images": images,
        "shorts": np.arange(30, dtype=">u2").reshape(15, 2) * 700,
        "files": np.arange(20, dtype=np.uint8),
    }
    shorts = framed.cut(1, arrays["shorts"], (3, 10), (0, 5))
    files = framed.cut(2, arrays["files"], (0, 6), (2, 6), (0, 8))
    parts = [parts[0], shorts[0], files[0], *parts[1:3], files[1], shorts[1], parts[3], files[2]]
    for k, how in damages:
        parts[k] = DAMAGES[how](parts[k])
    collections = [
        {"kind": "npz", "name": "both.npz", "arrays": {"images": "images", "shorts": "shorts"}},
        {"kind": "files", "name": "f", "arrays": {"files": "bytes"}, "files": NAMES, "sizes": SIZES},
    ]
    return engines.save(path / "a.vdz", arrays, parts, collections), arrays


def restored(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "both.npz") as f:
        return {name: f[name] for name in f.files}


def test_what_is_whole_loses_nothing(tmp_path: Path) -> None:
    path, arrays = archive(tmp_path)
    found = engines.by_both(path, tmp_path / "out", *MODEL, "--keep-going")
    assert found.status == 0 and found.record is not None and found.lines == []
    assert (found.record["lost"], found.record["left_out"]) == ([], [])
    assert goldens.same(restored(tmp_path / "out"), {name: arrays[name] for name in ("images", "shorts")})
    assert "lost" not in (engines.by("numpy", path, tmp_path / "out", *MODEL).record or {"lost": 0})


@pytest.mark.parametrize("how", ["payload", "lost"])
@pytest.mark.parametrize("k", range(9))
def test_each_damaged_block_costs_its_own_items(k: int, how: str, tmp_path: Path) -> None:
    path, arrays = archive(tmp_path, (k, how))
    found = engines.by_both(path, tmp_path / "out", *MODEL, "--keep-going")
    assert found.status == DAMAGED and found.record is not None
    (lost,) = found.record["lost"]
    back = restored(tmp_path / "out")
    for name in ("images", "shorts"):
        expected = arrays[name].copy()
        if lost["array"] == name:
            expected[lost["first"] : lost["end"]] = 0
        assert goldens.same({name: back[name]}, {name: expected})
    touched = {0: ["f/a", "f/in/b"], 6: ["f/in/b"], 12: ["f/in/b", "f/d"]} if lost["array"] == "files" else {}
    assert found.record["left_out"] == touched.get(lost["first"], [])
    kept = {f"f/{name}" for name in NAMES} - set(found.record["left_out"])
    assert {name for name, data in found.files.items() if isinstance(data, bytes)} == kept | {"both.npz"}
    assert found.lines[0].startswith(
        f"lost: items {lost['first']} to {lost['end'] - 1} of {lost['array']} (block {k} of 9"
    )
    assert len(found.lines) == 2 + len(found.record["left_out"])


def test_a_damaged_chain_does_not_take_its_neighbours_with_it(tmp_path: Path) -> None:
    """Four chains of one lockstep, of which two decode to something else though their bytes are as written."""
    path, arrays = archive(tmp_path, (3, "words"), (7, "words"))
    for options in ((), ("--lockstep", 1), ("--lockstep", 3)):
        torch, numpy = (
            engines.by(engine, path, tmp_path / "out", *MODEL, "--keep-going", *options)
            for engine in ("torch", "numpy")
        )
        assert (numpy.status, numpy.files) == (torch.status, torch.files) and numpy.status == DAMAGED
        assert numpy.record is not None and torch.record is not None
        ranges = [
            [(one["array"], one["first"], one["end"]) for one in found["lost"]]
            for found in (torch.record, numpy.record)
        ]
        assert ranges[0] == ranges[1] == [("images", 40, 80), ("images", 120, 160)]
        assert [one["reason"].split(",")[0] for one in numpy.record["lost"]] == [
            "block 3: this machine disagrees: its bytes are as written",
            "block 7: this machine disagrees: its bytes are as written",
        ]
        expected = arrays["images"].copy()
        expected[40:80] = expected[120:160] = 0
        assert np.array_equal(restored(tmp_path / "out")["images"], expected)


@pytest.mark.parametrize("k", [1, 6, 7])
def test_items_of_another_checksum_are_zeros_too(k: int, tmp_path: Path) -> None:
    """They were decoded, and nothing of them can be trusted."""
    path, arrays = archive(tmp_path, (k, "items"))
    torch, numpy = (engines.by(engine, path, tmp_path / "out", *MODEL, "--keep-going") for engine in ("torch", "numpy"))
    assert (numpy.status, numpy.files) == (torch.status, torch.files) and numpy.status == DAMAGED
    assert numpy.record is not None and numpy.record["lost"][0]["reason"].startswith(
        f"block {k}: this machine disagrees"
    )
    lost, back = numpy.record["lost"][0], restored(tmp_path / "out")
    assert not back[lost["array"]][lost["first"] : lost["end"]].any()
    assert back[lost["array"]].any() and arrays[lost["array"]][lost["first"] : lost["end"]].any()


def test_the_block_that_is_named_is_the_damaged_one(tmp_path: Path, refused: Callable[..., str]) -> None:
    path, _ = archive(tmp_path, (4, "words"))
    line = refused(DAMAGED, "decompress", path, "-o", tmp_path / "out", *MODEL, "--engine", "numpy")
    assert f"{path}: block 4: this machine disagrees" in line


def test_losses_are_listed_in_order(tmp_path: Path) -> None:
    path, _ = archive(tmp_path, (0, "words"), (3, "lost"), (4, "words"), (6, "payload"), (7, "payload"))
    firsts = {}
    for engine in ("torch", "numpy"):
        record = engines.by(engine, path, tmp_path / "out", *MODEL, "--keep-going").record
        assert record is not None
        firsts[engine] = [(one["array"], one["first"]) for one in record["lost"]]
    images = [("images", first) for first in (0, 40, 80, 120)]
    assert firsts["torch"] == firsts["numpy"] == [*images, ("shorts", 10)]


def test_without_it_a_damaged_block_is_refused_and_the_option_named(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    for how in ("payload", "lost"):
        path, _ = archive(tmp_path, (6, how))
        line = refused(DAMAGED, "decompress", path, "-o", tmp_path / "out", *MODEL, "--engine", "numpy")
        assert (
            "block 6" in line and line.endswith("keep going to restore the other blocks")
        ) or "to restore the others" in line


def test_early_versions(tmp_path: Path) -> None:
    """One SHA-256 is over all arrays: where items are lost there is nothing that it could be compared with."""
    path = goldens.with_note("grey-v1", tmp_path / "a.vdz")
    with open(path, "rb") as file:
        directory = Directory(file, path)
        block = next(b for b in directory.blocks if directory.arrays[b.array].name == "labels")
    data = bytearray(path.read_bytes())
    data[block.begin] ^= 1
    path.write_bytes(data)
    found = engines.by_both(path, tmp_path / "out", "-m", goldens.model("grey-v1"), "--keep-going")
    assert found.status == DAMAGED and found.record is not None
    assert [(one["array"], one["first"], one["end"]) for one in found.record["lost"]] == [("labels", 0, 23)]
    with np.load(tmp_path / "out" / "golden.npz") as f:
        expected = goldens.arrays("grey-v1") | {"labels": np.zeros(23, ">i2")}
        assert goldens.same({name: f[name] for name in f.files}, expected)


def test_a_bad_digest_takes_no_other_array_with_it(tmp_path: Path) -> None:
    path, arrays = archive(tmp_path, (1, "payload"))
    wrong = framed.digest(arrays | {"files": np.zeros(20, np.uint8)})
    model, losses = read_model(goldens.model(engines.GOLDEN)), Losses(allowed=True)
    with open(path, "rb") as file:
        directory = Directory(file, path)
        right, directory.digests[2] = directory.digests[2], wrong[64:96].hex()
        both = Losses(allowed=True)
        back = read(directory, model, losses=both)
        assert [(one.array, one.first, one.end) for one in both.found] == [("shorts", 0, 10), ("files", 0, 20)]
        assert "array files does not have the SHA-256" in both.found[1].reason
        assert not back["files"].any()
        directory.digests[1:3] = [directory.digests[2], right]  # of what is lost, any will do
        read(directory, model, losses=losses)
    assert [one.array for one in losses.found] == ["shorts"]


def test_trees(tmp_path: Path) -> None:
    """The golden with a folder of anything: its images lost, then its bytes."""
    source = goldens.archive("tree-v5")
    with open(source, "rb") as file:
        directory = Directory(file, source)
        places = [(block.begin + block.length - 2, block.array) for block in directory.blocks]
    left_out = []
    for at, _ in places:
        data = bytearray(source.read_bytes())
        data[at] ^= 1
        (tmp_path / "t.vdz").write_bytes(data)
        found = engines.by_both(
            tmp_path / "t.vdz", tmp_path / "out", "-m", goldens.model("tree-v5"), "--keep-going", "--links", "none"
        )
        assert found.status == DAMAGED and found.record is not None and found.record["left_out"]
        left_out.append(found.record["left_out"])
    assert left_out[0] != left_out[1]


def test_what_is_not_of_a_block_is_still_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    path, _ = archive(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-24] + struct.pack("<Q", 1) + whole[-16:])
    line = refused(DAMAGED, "decompress", path, "-o", tmp_path / "out", *MODEL, "--keep-going", "--engine", "numpy")
    assert f"{path}: the end of the archive" in line
