"""data/: folders of images, array files, names of data sets, and putting things back."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaedensity.data import restore
from vaedensity.data.array_files import load_npy, load_npz, save_npz
from vaedensity.data.collection import Collection, LoadOptions
from vaedensity.data.folder import load_folder
from vaedensity.data.image_files import WRITERS, save_image
from vaedensity.data.load import load, load_array, main_array
from vaedensity.data.named import load_named
from vaedensity.data.staging import Move, move_into_place
from vaedensity.errors import DamagedArchive, UsageError, VaedensityError

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def picture(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image = image.convert(mode) if mode else image
    image.save(path, lossless=True) if path.suffix == ".webp" else image.save(path)


def put(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    for i, pixels in enumerate(images):
        picture(folder / f"{i}{suffix}", pixels)
    return folder


# Folders


@pytest.mark.parametrize(("images", "mode"), [(GREY, "L"), (RGB, "RGB")])
def test_load_folder_of_png(tmp_path: Path, images: np.ndarray, mode: str) -> None:
    found = load_folder(put(tmp_path / "pictures", images))
    assert np.array_equal(found.arrays["images"], images)
    assert found.arrays["images"].dtype == np.uint8
    assert found.meta == {"kind": "folder", "name": "pictures", "mode": mode, "files": [f"{i}.png" for i in range(6)]}
    assert found.item_names == found.meta["files"]


def test_load_folder_with_subfolders_sorts_by_relative_name(tmp_path: Path) -> None:
    picture(tmp_path / "b" / "0.png", GREY[0])
    picture(tmp_path / "a" / "deep" / "1.png", GREY[1])
    picture(tmp_path / "c.png", GREY[2])
    found = load_folder(tmp_path)
    assert found.meta["files"] == ["a/deep/1.png", "b/0.png", "c.png"]
    assert np.array_equal(found.arrays["images"], GREY[[1, 0, 2]])


def test_load_folder_of_bilevel_images_gives_zeros_and_ones(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", GREY[0] > 128)
    found = load_folder(tmp_path)
    assert found.meta["mode"] == "1"
    assert np.array_equal(found.arrays["images"][0], (GREY[0] > 128).astype(np.uint8))


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(s, m) for s in WRITERS for m in ("L", "RGB", "1") if not (s == ".webp" and m != "RGB")],
)
def test_every_format_gives_its_pixels_and_mode_back(tmp_path: Path, suffix: str, mode: str) -> None:
    pixels = RGB[0] if mode == "RGB" else (GREY[0] > 99).astype(np.uint8) if mode == "1" else GREY[0]
    with open(tmp_path / f"x{suffix}", "wb") as f:
        save_image(f, pixels, mode, suffix)
    found = load_folder(tmp_path)
    assert found.meta["mode"] == mode
    assert np.array_equal(found.arrays["images"][0], pixels)


def sixteen_bit(path: Path) -> None:
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(path)


def two_frames(path: Path) -> None:
    Image.fromarray(GREY[0]).save(path, format="PNG", save_all=True, append_images=[Image.fromarray(GREY[1])])


def transparent(path: Path) -> None:
    Image.fromarray(GREY[0]).save(path, transparency=3)


@pytest.mark.parametrize(
    "make",
    [
        sixteen_bit,
        two_frames,
        transparent,
        lambda path: picture(path, GREY[0], "P"),
        lambda path: picture(path, RGB[0], "RGBA"),
        lambda path: picture(path, GREY[0], "LA"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"GIF"),
    ],
)
def test_images_that_would_lose_something_are_refused_by_name(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "odd.png")
    with pytest.raises(UsageError, match=r"odd\.png"):
        load_folder(tmp_path)


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on what it finds
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp"])
def test_altered_image_files_are_read_or_refused_but_never_crash(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / f"x{suffix}", RGB[0])
    whole = (tmp_path / f"x{suffix}").read_bytes()
    rng, refusals = np.random.default_rng(3), 0
    for _ in range(150):
        altered = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, min(len(whole), 200), 2):
            if at < len(altered):
                altered[at] = rng.integers(256)
        (tmp_path / f"x{suffix}").write_bytes(altered)
        try:
            found = load_folder(tmp_path)
        except UsageError as error:
            assert f"x{suffix}" in str(error)
            refusals += 1
        else:
            assert len(found.arrays["images"]) == 1
    assert refusals > 10


# .npy and .npz


@pytest.mark.parametrize(
    "array",
    [
        GREY,
        np.asfortranarray(RGB),
        np.array(3.5),
        np.zeros((0, 4)),
        np.array(["a", "bc"]),
        np.array(["2020-01-01"], "M8[D]"),
    ],
)
def test_load_npy(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "some.npy", array)
    found = load_npy(tmp_path / "some.npy")
    assert list(found.arrays) == ["some"] and found.meta == {"kind": "npy", "name": "some.npy"}
    assert found.arrays["some"].dtype == array.dtype and found.arrays["some"].shape == array.shape
    assert np.array_equal(found.arrays["some"], array)


def test_load_npz_whole_and_one_member(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", images=GREY, labels=np.arange(6))
    whole = load_npz(tmp_path / "two.npz", None)
    assert list(whole.arrays) == ["images", "labels"] and whole.meta == {"kind": "npz", "name": "two.npz"}
    one = load_npz(tmp_path / "two.npz", "labels")
    assert list(one.arrays) == ["labels"] and one.meta == {"kind": "npy", "name": "two-labels.npy"}
    assert load(f"{tmp_path}/two.npz:labels").arrays["labels"].tolist() == list(range(6))


@pytest.mark.parametrize("member", ["a/b", "../../up", "a\\b", "c:d"])
def test_a_member_with_an_odd_name_restores_to_one_plain_file(tmp_path: Path, member: str) -> None:
    with open(tmp_path / "f.npz", "wb") as f:
        save_npz(f, {member: GREY})
    found = load_npz(tmp_path / "f.npz", member)
    assert restore.safe_name(found.meta["name"]).parts == (found.meta["name"],)


def npy_bytes(array: np.ndarray) -> bytes:
    f = io.BytesIO()
    np.save(f, array)
    return f.getvalue()


def zip_bytes(**members: bytes) -> bytes:
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z:
        for name, data in members.items():
            z.writestr(name, data)
    return f.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.npy", b""),
        ("random.npy", bytes(range(200))),
        ("cut.npy", npy_bytes(GREY)[:100]),
        ("short.npy", npy_bytes(GREY)[:-1]),
        ("header.npy", npy_bytes(GREY)[:40] + b"'" + npy_bytes(GREY)[41:]),
        ("huge.npy", npy_bytes(GREY).replace(b"(6, 5, 7)", b"(9" + b"9" * 30 + b",)")),
        ("zip.npy", zip_bytes(x=npy_bytes(GREY))),
        ("empty.npz", b""),
        ("single.npz", npy_bytes(GREY)),
        ("random.npz", bytes(range(200))),
        ("nothing.npz", zip_bytes()),
        ("text.npz", zip_bytes(**{"x.npy": npy_bytes(GREY), "readme.txt": b"hello"})),
        ("cut.npz", zip_bytes(**{"x.npy": npy_bytes(GREY)[:-9]})),
    ],
)
def test_array_files_that_are_none_are_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError) as refusal:
        load_array(str(tmp_path / name))
    assert name in str(refusal.value) and "\n" not in str(refusal.value)
    kept = load(str(tmp_path / name))
    assert kept.meta == {"kind": "file", "name": name} and np.asarray(kept.arrays["bytes"]).tobytes() == data
    assert name in kept.remark and "byte for byte" in kept.remark


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_altered_array_files_are_read_or_refused_but_never_crash(tmp_path: Path, kind: str) -> None:
    path, f = tmp_path / ("x.npy" if kind == "npy" else "x.npz"), io.BytesIO()
    if kind == "npy":
        np.save(f, GREY)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(f, x=GREY, y=np.arange(4))
    whole, rng, refusals = f.getvalue(), np.random.default_rng(4), 0
    for _ in range(300):
        altered = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            altered[at] = rng.integers(256)
        altered[rng.integers(min(len(whole), 128))] ^= 0x21
        path.write_bytes(altered)
        try:
            _, found = load_array(str(path))
        except (UsageError, MemoryError):  # the command line turns both into one line
            refusals += 1
        else:
            assert isinstance(found, np.ndarray)
    assert refusals > 10


def test_main_array_prefers_the_only_one_then_the_usual_names() -> None:
    def pick(*names: str) -> str:
        arrays = {name: np.array(name) for name in names}
        return str(main_array(Collection("f.npz", arrays, {}), LoadOptions()))

    assert pick("odd") == "odd"
    assert pick("labels", "images") == "images"
    assert pick("x_test", "y", "x_train") == "x_train"
    with pytest.raises(UsageError, match=r"a .*b .*f\.npz:NAME"):
        pick("a", "b")


def test_save_npz_takes_names_that_numpy_would_not(tmp_path: Path) -> None:
    with open(tmp_path / "x.npz", "wb") as f:
        save_npz(f, {"file": GREY, "a/b": np.array(4), "": np.zeros(0)})
    with np.load(tmp_path / "x.npz") as back:
        assert set(back.files) == {"file", "a/b", ""}
        assert np.array_equal(back["file"], GREY) and back["a/b"] == 4 and back[""].shape == (0,)


# Names


def test_load_named_digits_splits(digits: np.ndarray) -> None:
    parts = [load_named(f"digits{split}", LoadOptions()) for split in ("", ":train", ":test")]
    assert [list(p.arrays) for p in parts] == [["digits"], ["digits-train"], ["digits-test"]]
    assert np.array_equal(parts[0].arrays["digits"], digits) and digits.shape == (1797, 8, 8) and digits.max() == 16
    both = np.concatenate([parts[1].arrays["digits-train"], parts[2].arrays["digits-test"]])
    assert np.array_equal(both, digits)


def test_what_lies_on_disk_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "digits", GREY)
    assert np.array_equal(load("digits").arrays["images"], GREY)


@pytest.mark.parametrize("spec", ["", "nothing", "digits:valid", "mnist:extra", "missing.npy", "missing.npz:x"])
def test_unknown_names_are_refused(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, GREY)  # an empty name must not mean the current folder
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        load(spec)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "usps", "svhn", "stl10:unlabeled"])
def test_a_data_set_that_is_not_there_is_named_with_what_to_pass(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="pass data_root=FOLDER, or download=True"):
        load(name, LoadOptions(data_root=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_damaged_data_set_files_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\x05 cut off")
    with pytest.raises(VaedensityError, match="mnist"):
        load("mnist", LoadOptions(data_root=str(tmp_path)))


def test_a_library_that_torchvision_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*args: object, **kwargs: object) -> None:
        raise ModuleNotFoundError("No module named 'scipy'")

    monkeypatch.setattr("torchvision.datasets.SVHN", lacking)
    with pytest.raises(VaedensityError, match="scipy"):
        load("svhn")


# Restoring


@pytest.mark.parametrize("name", ["a", "a.npy", "a/b/c.png", ".hidden", "..a", "a..", "with space", "\u00e9", "./a"])
def test_safe_names(name: str) -> None:
    path = restore.safe_name(name)
    assert not path.is_absolute() and ".." not in path.parts


@pytest.mark.parametrize("name", ["", ".", "/", "/a", "..", "../a", "a/../b", "a/..", "a\0"])
def test_unsafe_names(name: str) -> None:
    with pytest.raises(DamagedArchive, match="leave the target folder"):
        restore.safe_name(name)


def entry(kind: str = "npy", name: str = "x.npy", arrays: Any = None, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "arrays": {"x": "x"} if arrays is None else arrays} | more


def test_check_note_takes_what_compress_writes() -> None:
    folder = entry("folder", "pictures", {"images": "images"}, mode="L", files=["a/0.png", "a/1.png", "b.png"])
    several = entry("npz", "z.npz", {"1/x": "x", "y": "y"})
    assert restore.check_restore_metadata([entry(), folder, several], ["x", "images", "1/x", "y"]) is None
    assert restore.check_restore_metadata([], []) is None


@pytest.mark.parametrize(
    "metas",
    [
        [],
        [entry(), entry()],
        [entry(), entry(arrays={"y": "y"}, name="y.npy")],
        [entry(kind="tar")],
        [entry(kind="folder")],
        [entry(files=["a.png"])],
        [entry(name="../x.npy")],
        [entry(name=5)],
        [entry(arrays=["x"])],
        [entry(arrays={"y": "x"})],
        [entry(arrays={"x": 5})],
        [entry(arrays={"x": "a\0b"})],
        [entry("folder", "f", files=["/etc/a.png"])],
        [entry("folder", "f", files=["a.png", "a.png"])],
        [entry("folder", "f", files=["a.png", "./a.png"])],
        [entry("folder", "f", files=["a.png", "a.png/b.png"])],
        [entry("folder", "f", files=None)],
        ["x"],
        [None],
    ],
)
def test_check_note_refuses_what_cannot_be_meant(metas: list[Any]) -> None:
    with pytest.raises(DamagedArchive):
        restore.check_restore_metadata(metas, ["x"])


@pytest.mark.parametrize("second", ["x.npy", "./x.npy", "x.npy/y.npy"])
def test_check_note_refuses_outputs_in_each_others_way(second: str) -> None:
    with pytest.raises(DamagedArchive):
        restore.check_restore_metadata([entry(), entry(name=second, arrays={"y": "y"})], ["x", "y"])


def test_staging_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), restore.staging(tmp_path / "new" / "deep") as stage:
        (stage / "half").write_bytes(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_staging_keeps_the_folder_that_was_there_or_was_filled(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with restore.staging(tmp_path / "old"):
        pass
    with restore.staging(tmp_path / "new") as stage:
        (stage / "x").write_bytes(b"x")
        move_into_place([Move(stage / "x", tmp_path / "new" / "x")])
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["new", "new/x", "old"]


def test_two_restorations_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    with restore.staging(tmp_path) as first:
        (first / "x").write_bytes(b"1")
        with restore.staging(tmp_path) as second:
            (second / "x").write_bytes(b"2")
        assert (first / "x").read_bytes() == b"1"


@pytest.mark.parametrize("was", ["file", "folder"])
@pytest.mark.parametrize("new", ["file", "folder"])
def test_move_into_place_replaces_whatever_was_there(tmp_path: Path, was: str, new: str) -> None:
    target = tmp_path / "target"
    if was == "file":
        target.write_bytes(b"old")
    else:
        target.mkdir()
        (target / "old").write_bytes(b"old")
    with restore.staging(tmp_path) as stage:
        if new == "file":
            (stage / "target").write_bytes(b"new")
        else:
            (stage / "target").mkdir()
            (stage / "target" / "new").write_bytes(b"new")
        move_into_place([Move(stage / "target", target)])
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
    assert target.read_bytes() == b"new" if new == "file" else [p.name for p in target.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("images", "changes"),
    [
        (GREY[0].astype(np.float32)[None], {}),
        (GREY[:2], {}),
        (GREY[:1], {"mode": "RGB"}),
        (RGB[:1], {}),
        (GREY[:1], {"mode": "CMYK"}),
        (GREY[:1], {"mode": ["L"]}),
        (GREY[:1, :, :0], {}),
        (GREY[0, 0], {}),
        (np.array(5, np.uint8), {}),
        (GREY[:1], {"files": ["0.exe"]}),
        (GREY[:1], {"files": "0"}),
    ],
)
def test_write_collection_refuses_arrays_that_are_not_the_noted_images(
    tmp_path: Path, images: np.ndarray, changes: dict[str, Any]
) -> None:
    meta = entry("folder", "f", mode="L", files=["0.png"]) | changes
    with pytest.raises(DamagedArchive):
        restore.write_collection(meta, {"x": images}, tmp_path)


def test_write_collection_of_each_kind(tmp_path: Path) -> None:
    kept = {"x": GREY, "y": np.array(2.5)}
    assert restore.write_collection(entry(), kept, tmp_path) == tmp_path / "x.npy"
    assert np.array_equal(np.load(tmp_path / "x.npy"), GREY)
    restore.write_collection(entry("npz", "z.npz", {"x": "pictures", "y": "factor"}), kept, tmp_path)
    with np.load(tmp_path / "z.npz") as back:
        assert np.array_equal(back["pictures"], GREY) and back["factor"] == 2.5
    names = [f"d/{i}.bmp" for i in range(6)]
    restore.write_collection(entry("folder", "f", mode="L", files=names), kept, tmp_path)
    back = load_folder(tmp_path / "f")
    assert back.meta["files"] == names and np.array_equal(back.arrays["images"], GREY)
