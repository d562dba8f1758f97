"""The smaller is kept: pixels or files, model or fallback codec, one particle or several; the summary says so."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import invoke
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import encoded, grow, harvest

from vaedensity.archive.reader import ArchiveFile

pytestmark = pytest.mark.usefixtures("no_released")
Done = Callable[..., dict[str, Any]]
RNG = np.random.default_rng(7)
FIXED_BYTES, SHARE, ENTRY_BYTES = 1024, 1.001, 40  # the promise, and what an archive says of a file beside its name
QUIET = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def scans(count: int) -> list[np.ndarray]:
    """Pages of two values and of letters, whose pixels take more room in a fallback codec than in a PNG file."""
    letters = RNG.integers(0, 2, (60, 8, 8)).astype(np.uint8) * 255
    return [np.block([[letters[k] for k in row] for row in RNG.integers(0, 60, (20, 12))]) for _ in range(count)]


def lines(*arguments: object) -> list[str]:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def promised(files: dict[str, bytes]) -> float:
    """The most that an archive of a folder may take."""
    names = sum(len(name) + ENTRY_BYTES for name in files)
    return SHARE * sum(map(len, files.values())) + FIXED_BYTES + names


def drawn(kind: str, size: tuple[int, int], seed: int) -> bytes:
    """An image file of one of many kinds."""
    rng = np.random.default_rng(seed)
    grey = {
        "noise": rng.integers(0, 256, size),
        "flat": np.full(size, seed % 256),
        "slope": np.add.outer(np.arange(size[0]), np.arange(size[1])) % 256,
        "two": 255 * (rng.random(size) < 0.1),
    }[kind.split()[0]].astype(np.uint8)
    mode, form = kind.split()[1:3]
    options = {"compression": kind.split()[3]} if form == "TIFF" else {"lossless": True} if form == "WEBP" else {}
    return encoded(grey, form, mode, **options)


KINDS = [
    f"{content} {mode} {form}"
    for content in ("noise", "flat", "slope", "two")
    for mode in ("1", "L", "RGB")
    for form in ("PNG", "BMP", "PPM", "WEBP", "TIFF raw", "TIFF tiff_lzw", "TIFF packbits", "TIFF group4", "TIFF jpeg")
    if (form != "WEBP" or mode == "RGB")
    and ("group4" not in form or mode == "1")
    and ("jpeg" not in form or mode != "1")
]
SUFFIX = {"PNG": ".png", "BMP": ".bmp", "PPM": ".ppm", "WEBP": ".webp", "TIFF": ".tif"}


@QUIET
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.sampled_from([(1, 1), (8, 8), (17, 5), (40, 64)]), st.integers(1, 9)),
        max_size=5,
    ),
    st.integers(0, 1 << 20),
    st.sampled_from([None, "model", "add"]),
)
def test_no_archive_of_a_folder_is_larger_than_its_files(
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[tuple[str, tuple[int, int], int]],
    seed: int,
    how: str | None,
) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    files = {"meta.txt": b"n" * (seed % 50)}
    for number, (kind, size, count) in enumerate(groups):
        for i in range(count):
            files[f"{number}-{i}{SUFFIX[kind.split()[2]]}"] = drawn(kind, size, seed + i)
    grow(folder / "in", files)
    archive, options = folder / "a.vdz", ["-m", model] if how == "model" else []
    if how == "add":
        invoke("compress", saved(folder / "x.npy", np.arange(3)), "-o", archive)
        record = json.loads(invoke("add", archive, folder / "in", "--json").stdout)
        assert record["bytes_added"] <= promised(files)
    else:
        result = invoke("compress", folder / "in", "-o", archive, "--json", *options)
        if how == "model" and result.exit_code == 2:
            assert "codes items [1, 8, 8]" in result.stderr and not archive.exists()
            return
        record = json.loads(result.stdout)
        assert record["bytes_out"] == archive.stat().st_size <= promised(files)
    assert record["bytes_in"] == sum(map(len, files.values())) and record["files"] == len(files)
    back = invoke("decompress", archive, "-o", folder / "out", *options)
    assert back.exit_code == 0, back.output
    changed = 0
    for name, data in files.items():
        restored = (folder / "out" / "in" / name).read_bytes()
        changed += restored != data
        if not name.endswith(".txt"):
            with Image.open(io.BytesIO(restored)) as new, Image.open(io.BytesIO(data)) as old:
                assert (
                    new.tobytes() == old.tobytes()
                    and new.mode == old.mode
                    and new.info.get("compression") == old.info.get("compression")
                )
    assert changed <= record["files_of_same_pixels"]


def test_pixels_that_take_more_than_files_are_not_taken(tmp_path: Path, done: Done) -> None:
    files = {f"{i}.png": encoded(page, "PNG", "1", optimize=True) for i, page in enumerate(scans(12))}
    grow(tmp_path / "scans", files)
    before = harvest(tmp_path / "scans")
    record = done("compress", tmp_path / "scans", "-o", tmp_path / "a.vdz")
    assert record["files_of_same_pixels"] == 0 and record["bytes_out"] <= promised(files)
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out")
    assert harvest(tmp_path / "out" / "scans") == before


def test_a_model_that_makes_images_larger_than_their_files_is_not_used(
    model: Path, tmp_path: Path, digits: np.ndarray, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path / "icons", {f"{i}.png": encoded(image, "PNG") for i, image in enumerate(digits[:60])})
    before = harvest(tmp_path / "icons")
    monkeypatch.setattr("vaedensity.api.settle.GROUP_BYTES", 1 << 20)  # as if the files were as much smaller
    record = done("compress", tmp_path / "icons", "-o", tmp_path / "a.vdz", "-m", model)
    assert (record["model"], record["model_items"], record["model_tried_items"]) == (None, 0, 60)
    assert record["files_of_same_pixels"] == 0
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out")  # without the model
    assert harvest(tmp_path / "out" / "icons") == before
    said = lines("compress", tmp_path / "icons", "-o", tmp_path / "a.vdz", "-m", model, "-f")
    assert any(f"model {model.stem} did not help" in line and "0 of 60 items" in line for line in said)


def test_an_array_is_left_to_the_fallback_codec_that_makes_it_smaller(
    model: Path, digits: np.ndarray, tmp_path: Path, done: Done
) -> None:
    """The model still codes the other one."""
    again = np.tile(digits[:20], (10, 1, 1))
    np.savez(tmp_path / "x.npz", again=again, digits=digits[:100])
    record = done("compress", tmp_path / "x.npz", "-o", tmp_path / "a.vdz", "-m", model)
    assert (record["model_items"], record["model_tried_items"]) == (100, 300)
    with ArchiveFile(tmp_path / "a.vdz") as archive:
        by_model = {a.name: {archive.blocks[k].codec.by_model for k in a.blocks} for a in archive.arrays}
    assert by_model["again"] == {False} and by_model["digits"] == {True}
    assert record["bytes_with_model"] > record["bytes_out"]
    said = lines("compress", tmp_path / "x.npz", "-o", tmp_path / "a.vdz", "-m", model, "-f")
    assert f"model {model.stem}: 200 of 300 items take less without it" in said
    done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out", "-m", model)
    assert np.array_equal(np.load(tmp_path / "out" / "x.npz")["again"], again)


@pytest.mark.parametrize("count", [1, 3, 12, 40])
@pytest.mark.parametrize("options", [(), ("--particles", 2)])
def test_more_effort_is_never_larger(
    options: tuple[object, ...], count: int, model: Path, digits: np.ndarray, tmp_path: Path, done: Done
) -> None:
    x = saved(tmp_path / "x.npy", digits[:count])
    plain = done("compress", x, "-o", tmp_path / "plain.vdz")["bytes_out"]
    with_one = done("compress", x, "-o", tmp_path / "one.vdz", "-m", model)["bytes_out"]
    record = done("compress", x, "-o", tmp_path / "a.vdz", "-m", model, *options)
    assert record["bytes_out"] == (tmp_path / "a.vdz").stat().st_size <= with_one <= plain
    done("test", tmp_path / "a.vdz", "-m", model)


def test_a_model_inside_that_does_not_pay_is_said(model: Path, digits: np.ndarray, tmp_path: Path) -> None:
    x = saved(tmp_path / "x.npy", digits[:80])
    said = lines("compress", x, "-o", tmp_path / "a.vdz", "-m", model, "--embed-model")
    assert any("does not pay" in line for line in said) and any(line.startswith("not smaller: ") for line in said)
    same = saved(tmp_path / "same.npy", np.tile(digits[:1], (200, 1, 1)))
    said = lines("compress", same, "-o", tmp_path / "b.vdz", "-m", model, "--embed-model")
    assert (tmp_path / "b.vdz").stat().st_size < 1000  # no block needs the model, and so it is not there


def test_sizes_are_of_what_lay_on_disk(digits: np.ndarray, tmp_path: Path, done: Done) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=digits[:300], y=np.zeros((400, 30)))
    record = done("compress", tmp_path / "x.npz", "-o", tmp_path / "a.vdz")
    assert record["bytes_in"] == (tmp_path / "x.npz").stat().st_size < record["bytes_raw"] == 300 * 64 + 400 * 240
    grow(tmp_path / "f", {f"{i}.png": encoded(image, "PNG") for i, image in enumerate(digits[:50])})
    on_disk = sum(p.stat().st_size for p in (tmp_path / "f").iterdir())
    both = done("compress", tmp_path / "x.npz", tmp_path / "f", "digits:test", "-o", tmp_path / "b.vdz")
    assert both["bytes_in"] == record["bytes_in"] + on_disk + 297 * 64 and both["bytes_in_from"] == "files and arrays"
    (first, *rest) = lines("compress", tmp_path / "f", "-o", tmp_path / "c.vdz")
    size = (tmp_path / "c.vdz").stat().st_size
    assert (
        f"{on_disk / 1024:.1f} KiB of files (3.1 KiB as arrays) -> " in first
        and f"({100 * size / on_disk:.1f} %)" in first
    )
    assert (
        "50 of 50 files will come back with the same pixels and metadata, not the same bytes (--bytes keeps those)"
        in rest
    )
    added = lines("add", tmp_path / "c.vdz", tmp_path / "x.npz")
    assert f"{record['bytes_in'] / 1024:.1f} KiB of files" in added[0]


def test_other_files_are_not_shared_out_among_the_values_of_images(
    digits: np.ndarray, tmp_path: Path, done: Done
) -> None:
    files = {f"{i}.png": encoded(image, "PNG") for i, image in enumerate(digits[:40])}
    grow(tmp_path / "f", files)
    assert 0 < done("compress", tmp_path / "f", "-o", tmp_path / "a.vdz")["bits_per_dim"] < 8
    grow(tmp_path / "f", {"more.bin": RNG.bytes(5000)})
    assert done("compress", tmp_path / "f", "-o", tmp_path / "b.vdz")["bits_per_dim"] is None


def test_an_archive_that_is_not_smaller_says_so(tmp_path: Path) -> None:
    noise = saved(tmp_path / "x.npy", RNG.integers(0, 256, 5000, dtype=np.uint8))
    said = lines("compress", noise, "-o", tmp_path / "a.vdz")
    assert said[-1] == f"not smaller: {(tmp_path / 'a.vdz').stat().st_size} bytes for 5128 bytes of files"
