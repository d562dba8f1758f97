"""How commands read their data: what is left out is said, what can be taken otherwise is said, kinds are inferred."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke
from PIL import Image
from rejections import NO_TRAINING, USAGE, Refused, saved

JUNK = {
    ".DS_Store": b"\0\0\0\1Bud1",
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "README.txt": b"Scans of 1998",
    "deep/desktop.ini": b"[.ShellClassInfo]",
    "__MACOSX/._0.png": b"\0\5\x16\7",
    ".thumbnails/0.png": b"\x89PNG",
    "no suffix": b"",
}


def with_junk(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    for name, data in JUNK.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{i}{suffix}")
    (folder / "link.txt").symlink_to("nowhere")
    return folder


def commands(model: Path, folder: Path, out: Path) -> dict[str, tuple[object, ...]]:
    return {
        "fit": ("fit", folder, "-o", out / "new.safetensors", *NO_TRAINING),
        "score": ("score", model, folder, "-k", "25", "-o", out / "new.csv"),
        "bench": ("bench", folder, "-m", model, "--rivals", "zlib"),
    }


@pytest.mark.parametrize("command", ["fit", "score", "bench"])
def test_files_that_are_no_images_are_left_out_and_counted(
    command: str, model: Path, digits: np.ndarray, tmp_path: Path, refused: Refused
) -> None:
    run = commands(model, with_junk(tmp_path / "p", digits[:6]), tmp_path)[command]
    line = refused(USAGE, *run, "--strict")
    assert "8 files are no images (.DS_Store, " in line and "expected .png" in line
    result = invoke("-v", *run)
    assert result.exit_code == 0, result.output
    assert "files that are no images, left out: 8" in result.stderr
    left_out = {said.partition(": ")[2] for said in result.stderr.splitlines() if said.startswith("left out: ")}
    assert left_out == {*JUNK, "link.txt"}
    if command == "score":
        rows = (tmp_path / "new.csv").read_text().splitlines()
        assert [row.split(",")[1] for row in rows[1:]] == [f"{i}.png" for i in range(6)]


def test_reference_data_are_read_with_the_same_care(model: Path, digits: np.ndarray, tmp_path: Path) -> None:
    normal = with_junk(tmp_path / "normal", digits[6:12])
    np.save(tmp_path / "x.npy", digits[:3])
    result = invoke("score", model, tmp_path / "x.npy", "-k", "2", "--anomaly", "typicality", "--reference", normal)
    assert result.exit_code == 0 and "normal: files that are no images, left out: 8" in result.stderr


def test_jpeg_images_are_fitted_and_scored(model: Path, digits: np.ndarray, tmp_path: Path) -> None:
    for i, pixels in enumerate(digits[:6]):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(np.full_like(pixels, i)).save(tmp_path / "p" / f"{i}.jpg", quality=100)
    result = invoke("score", model, tmp_path / "p", "-k", "2")
    assert result.exit_code == 0 and "6 items" in result.stdout, result.output
    result = invoke("fit", tmp_path / "p", "-o", tmp_path / "m.safetensors", *NO_TRAINING)
    assert result.exit_code == 0, result.output


def test_a_folder_without_images_and_one_image_alone(refused: Refused, model: Path, few: Path) -> None:
    folder = few.parent / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    assert "1 files are no images (a.txt)" in refused(USAGE, "score", model, folder)
    Image.fromarray(np.load(few)[0]).save(few.parent / "one.png")
    for command in (("score", model, few.parent / "one.png"), ("fit", few.parent / "one.png", "-o", few.parent / "m")):
        assert "is one image; expected a folder of images" in refused(USAGE, *command)


@pytest.mark.parametrize(
    ("data", "words", "kind"),
    [
        ("metas.txt", "read as 3 pieces of 64 bytes; the last 8 bytes are left out", "sequence"),
        ("logs", "read as 6 pieces of 64 bytes", "sequence"),
        ("series.npy", "read as 9 series of 8 values; if this is one grey image, pass x[None]", "sequence"),
        ("images.npy", "read as 9 grey images of 8x8", "image"),
        ("one.npy", "read as 8 grey images of 8x3; if this is one RGB image, pass x[None]", "image"),
        ("pictures", "read as 9 grey images of 8x8", "image"),
    ],
)
def test_fit_finds_the_kind_of_its_data_and_says_so(
    data: str, words: str, kind: str, digits: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "metas.txt").write_bytes(bytes(range(200)))
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    for name in ("a.log", "deep/b.log"):
        (tmp_path / "logs" / name).write_bytes(bytes(range(192)))
    saved(tmp_path / "series.npy", digits[:9, 0])
    saved(tmp_path / "images.npy", digits[:9])
    saved(tmp_path / "one.npy", digits[:8, :, :3])
    with_junk(tmp_path / "pictures", digits[:9])
    out = tmp_path / "m.safetensors"
    result = invoke("fit", tmp_path / data, "-o", out, *NO_TRAINING, "--json")
    assert result.exit_code == 0, result.output
    assert sum(words in line for line in result.stderr.splitlines()) == 1
    assert words == f"read as {json.loads(result.stdout)['read_as']}"
    described = json.loads(invoke("info", out, "--json").stdout)
    assert ("length" in json.dumps(described)) == (kind == "sequence")


def test_the_kind_that_is_asked_for_is_taken(digits: np.ndarray, tmp_path: Path, refused: Refused, few: Path) -> None:
    rows = saved(tmp_path / "rows.npy", digits[:9, 0])
    new = ("-o", tmp_path / "m.safetensors", *NO_TRAINING)
    assert "expected (N,H,W)" in refused(USAGE, "fit", rows, *new, "--kind", "image")
    assert "expected series (N,T)" in refused(USAGE, "fit", few, *new, "--kind", "sequence")


def test_score_says_how_an_array_of_doubtful_shape_is_read(refused: Refused, model: Path, tmp_path: Path) -> None:
    spec = saved(tmp_path / "one.npy", np.zeros((8, 8, 3), np.uint8))
    result = invoke("score", model, spec)
    assert result.exit_code == USAGE
    assert "read as 8 grey images of 8x3; if this is one RGB image, pass x[None]" in result.stderr


def test_a_time_needs_its_unit(few: Path) -> None:
    result = invoke("fit", few, "-o", few.parent / "m.safetensors", "--budget", "3")
    assert result.exit_code == USAGE and "a time with its unit, 3s for seconds or 3m for minutes" in result.stderr
    assert [path.name for path in few.parent.iterdir()] == ["few.npy"]


def test_images_larger_than_a_model_takes_are_told_so_in_plain_words(refused: Refused, tmp_path: Path) -> None:
    spec = saved(tmp_path / "big.npy", np.zeros((2, 600, 600), np.uint8))
    line = refused(USAGE, "fit", spec, "-o", tmp_path / "m.safetensors", *NO_TRAINING)
    assert "images of 600x600, a model takes up to 512x512" in line and "{" not in line
    spec = saved(tmp_path / "long.npy", np.zeros((2, 1 << 17), np.uint8))
    line = refused(USAGE, "fit", spec, "-o", tmp_path / "m.safetensors", *NO_TRAINING)
    assert "series of 131072 values, a model takes up to 65536" in line and "{" not in line


@pytest.mark.parametrize("data", ["12-bit", "hounsfield"])
def test_advice_for_deeper_images_does_not_wrap(data: str, refused: Refused, model: Path, tmp_path: Path) -> None:
    low, dtype = (0, np.uint16) if data == "12-bit" else (-1024, np.int16)
    spec = saved(tmp_path / "deep.npy", (np.arange(4096) + low).astype(dtype).reshape(1, 64, 64))
    for command in (("score", model, spec), ("fit", spec, "-o", tmp_path / "m.safetensors", *NO_TRAINING)):
        line = refused(USAGE, *command)
        assert "// 16).astype(np.uint8) makes 16 values one" in line and f"{low}..{4095 + low}" in line


def test_compress_keeps_and_says_what_it_does_not_understand(tmp_path: Path) -> None:
    with open(tmp_path / "x.npy", "wb") as f:
        for array in (np.arange(3), np.arange(4), np.arange(5)):
            np.save(f, array)
    result = invoke("compress", tmp_path / "x.npy", "-o", tmp_path / "a.vdz")
    assert result.exit_code == 0 and "more bytes follow the array); kept byte for byte" in result.stderr
    assert invoke("decompress", tmp_path / "a.vdz", "-o", tmp_path / "back").exit_code == 0
    assert (tmp_path / "back" / "x.npy").read_bytes() == (tmp_path / "x.npy").read_bytes()


def test_of_several_arrays_the_one_that_is_read_is_named(model: Path, digits: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=digits[:5], x_test=digits[5:9], y=np.arange(5))
    result = invoke("score", model, tmp_path / "d.npz", "-k", "2")
    assert "5 items" in result.stdout and "d.npz: read x_train alone; it holds x_train, x_test, y" in result.stderr
    assert "alone" not in invoke("score", model, f"{tmp_path}/d.npz:x_test", "-k", "2").stderr
