"""data/: a folder with whatever is in it, in and out."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import trees
from trees import COLOUR, GREY, always, encoded, grow, harvest, never, packed, webp

from vaedensity.data import restore, tree
from vaedensity.data.restore_metadata import check_restore_metadata
from vaedensity.data.tree import scan
from vaedensity.data.tree_meta import check_tree
from vaedensity.data.tree_write import write_tree
from vaedensity.errors import UsageError

PLAIN = {"a.txt": b"text", "b/c/deep.bin": bytes(range(256)), "b/empty": b"", "empty folder/": b"", "z": b"last"}
IMAGES = {
    "grey/0.png": encoded(GREY, "PNG"),
    "grey/1.PNG": encoded(GREY[::-1], "PNG", pnginfo=trees.texts(), icc_profile=trees.ICC, exif=trees.exif()),
    "colour.png": encoded(COLOUR, "PNG", dpi=(72, 72)),
    "two.png": encoded(GREY, "PNG", "1"),
    "same size.bmp": encoded(COLOUR, "BMP"),
    "meta.webp": webp(COLOUR, exif=trees.exif(), icc_profile=trees.ICC, xmp=b"<x/>"),
    "scan.tif": encoded(GREY, "TIFF", tiffinfo={270: "what it shows"}, dpi=(300, 300)),
    "photo.jpg": encoded(COLOUR, "JPEG"),
    "broken.png": b"\x89PNG\r\n\x1a\n and so on",
    "not an image.png": b"",
}


def mixed(folder: Path) -> Path:
    """All that a folder can hold."""
    grow(folder, PLAIN | IMAGES)
    with open(os.path.join(os.fsencode(folder), trees.UNDECODABLE), "wb") as f:
        f.write(b"bytes of a name")
    grow(folder, {"back\\slash:colon": b"1", "new\nline": b"2", "b/ \u00fc\u4e2d": b"3", "-rf": b"4"})
    os.symlink("a.txt", folder / "to file")
    os.symlink("b/c", folder / "to folder")
    os.symlink("../a.txt", folder / "b" / "up")
    os.symlink("nowhere", folder / "dangling")
    os.symlink(b"caf\xe9", os.fsencode(folder / "b" / "c" / "odd"))
    (folder / "a.txt").chmod(0o640)
    (folder / "b" / "empty").chmod(0o4755)
    (folder / "z").chmod(0o400)
    (folder / "empty folder").chmod(0o500)
    for number, place in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(place, ns=(0, 1_600_000_000_123_456_789 - number * 10**15), follow_symlinks=False)
    os.utime(folder, ns=(5, -1_000_000_007))
    folder.chmod(0o750)
    return folder


def forget(found: dict, *places: int) -> dict:
    return {name: tuple(v for k, v in enumerate(values) if k not in places) for name, values in found.items()}


@pytest.mark.parametrize("all_bytes", [True, False])
def test_a_mixed_folder_comes_back_byte_for_byte(tmp_path: Path, all_bytes: bool) -> None:
    folder = mixed(tmp_path / "in")
    collection = scan(folder, all_bytes=all_bytes).collection(never)
    meta, arrays = packed(collection)
    assert list(arrays) == ["bytes"] and meta["images"] == [] and "i" not in meta["types"]
    assert write_tree(meta, arrays, tmp_path / "out") == []
    found, expected = harvest(tmp_path / "out"), harvest(folder)
    kind, *rest = expected[b"b/empty"]
    assert kind == oct(0o104755)
    expected[b"b/empty"] = (oct(0o100755), *rest)  # setuid is dropped
    assert found == expected


def test_a_mixed_folder_comes_back_pixel_for_pixel(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "in")
    found = scan(folder)
    assert {key: array.shape for key, array in found.groups.items()} == {
        ("RGB", 6, 10): (3, 6, 10, 3),
        ("L", 9, 11): (3, 9, 11),
        ("1", 9, 11): (1, 9, 11),
    }
    meta, arrays = packed(found.collection(always))
    assert set(arrays) == {"bytes", "images 10x6 RGB", "images 11x9 L", "images 11x9 1"}
    check_tree(meta, arrays)
    assert write_tree(meta, arrays, tmp_path / "out") == []
    out, expected = harvest(tmp_path / "out"), harvest(folder)
    assert {k: v[:2] for k, v in out.items() if k != b"b/empty"} == {
        k: v[:2] for k, v in expected.items() if k != b"b/empty"
    }
    pixels = {os.fsencode(e) for e, t in zip(meta["entries"], meta["types"]) if t == "i"}
    assert pixels == {os.fsencode(name) for name in IMAGES} - {b"photo.jpg", b"broken.png", b"not an image.png"}
    for name, (_, _, content) in expected.items():
        if name in pixels:
            assert np.array_equal(trees.pixels_of(out[name][2]), trees.pixels_of(content))
        else:
            assert out[name][2] == content


def test_groups_decide_one_by_one(tmp_path: Path) -> None:
    grow(tmp_path / "in", IMAGES)
    found = scan(tmp_path / "in")
    asked = {}
    collection = found.collection(lambda key, images: asked.setdefault(key, images) is None or key[0] == "L")
    assert {key: asked[key] is found.groups[key] for key in found.groups} == dict.fromkeys(found.groups, True)
    assert set(collection.arrays) == {"bytes", "images 11x9 L"}
    assert "groups" not in collection.meta and collection.meta["types"].count("i") == 3
    write_tree(collection.meta, collection.arrays, tmp_path / "out")
    out = harvest(tmp_path / "out")
    for name in ("colour.png", "two.png", "meta.webp", "same size.bmp"):
        assert out[name.encode()][2] == IMAGES[name]


def test_group_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    found = scan(grow(tmp_path / "in", IMAGES))
    names = {("L", 9, 11): ("grey/0.png", "grey/1.PNG", "scan.tif"), ("1", 9, 11): ("two.png",)}
    for key, files in names.items():
        assert found.group_bytes(key) == sum(len(IMAGES[name]) for name in files)


def test_metadata_says_no_more_than_it_needs(tmp_path: Path) -> None:
    files = {"d/0.png": encoded(GREY, "PNG"), "d/1.png": encoded(255 - GREY, "PNG")}
    collection = scan(grow(tmp_path / "in", files), keep_times=False).collection(always)
    assert list(collection.arrays) == ["images 11x9 L"]
    assert np.array_equal(collection.arrays["images 11x9 L"], [GREY, 255 - GREY])
    assert collection.source == str(tmp_path / "in")
    rights = collection.meta.pop("rights")
    assert len(rights) == 4
    assert collection.meta == {
        "kind": "tree",
        "name": "in",
        "entries": ["d", "d/0.png", "d/1.png"],
        "types": "dii",
        "bytes": [],
        "images": [{"array": "images 11x9 L", "mode": "L"}],
        "sizes": [],
        "links": [],
    }
    os.utime(tmp_path / "in", ns=(0, 10))
    for number, name in enumerate(("d", "d/0.png", "d/1.png")):
        os.utime(tmp_path / "in" / name, ns=(0, 100 - 30 * number))
    assert scan(tmp_path / "in").collection(always).meta["times"] == [10, 90, -30, -30]


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir(0o711)
    meta, arrays = packed(scan(tmp_path / "in").collection(always))
    assert arrays == {} and meta["entries"] == [] and meta["types"] == "" and meta["bytes"] == meta["images"] == []
    check_restore_metadata([meta], [])
    assert restore.write_collection(meta | {"name": "out"}, {}, tmp_path) == tmp_path / "out"
    assert harvest(tmp_path / "out") == harvest(tmp_path / "in")


def test_without_times(tmp_path: Path) -> None:
    collection = scan(mixed(tmp_path / "in"), keep_times=False).collection(never)
    write_tree(collection.meta, collection.arrays, tmp_path / "out")
    found, expected = forget(harvest(tmp_path / "out"), 0), forget(harvest(tmp_path / "in"), 0)
    assert forget(found, 0) == forget(expected, 0) and found[b"z"] != expected[b"z"]


def test_links_are_stored_and_never_followed(tmp_path: Path) -> None:
    grow(tmp_path, {"outside/secret": b"secret"})
    folder = grow(tmp_path / "in", {"x": b"1"})
    for name, target in {
        "abs": str(tmp_path / "outside"),
        "up": "../outside/secret",
        "loop": "loop",
        "here": ".",
    }.items():
        os.symlink(target, folder / name)
    meta, arrays = packed(scan(folder).collection(never))
    assert dict(zip([n for n, t in zip(meta["entries"], meta["types"]) if t == "l"], meta["links"])) == {
        "abs": str(tmp_path / "outside"),
        "here": ".",
        "loop": "loop",
        "up": "../outside/secret",
    }
    assert bytes(arrays["bytes"]) == b"1"
    assert [r for r, t in zip(meta["rights"][1:], meta["types"]) if t == "l"] == [0] * 4
    with pytest.raises(UsageError, match=r"^.*/in: abs is a link; expected files and folders only$"):
        scan(folder, links="refuse")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    os.symlink(grow(tmp_path / "real", {"x": b"1"}), tmp_path / "link")
    (tmp_path / "real").chmod(0o751)
    meta = scan(tmp_path / "link", links="refuse").collection(never).meta
    assert meta["name"] == "link" and meta["entries"] == ["x"] and meta["rights"][0] == 0o751


@pytest.mark.parametrize(
    ("given", "name"), [("in", "in"), ("in/", "in"), ("in/sub/..", "in"), (".", "home"), ("/", "folder")]
)
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, name: str) -> None:
    home = grow(tmp_path / "home", {"in/sub/": b""})
    monkeypatch.chdir(home)
    assert tree._name_of(os.fsencode(given)) == name


def test_a_folder_with_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"\xff:\\")
    os.mkdir(folder)
    meta, arrays = packed(scan(grow(Path(os.fsdecode(folder)), {"x": b"1"})).collection(never))
    assert meta["name"] == "\udcff:\\"
    check_restore_metadata([meta], ["bytes"])
    (tmp_path / "stage").mkdir()
    path = restore.write_collection(meta, arrays, tmp_path / "stage")
    assert os.listdir(os.fsencode(tmp_path / "stage")) == [b"\xff:\\"] and (path / "x").read_bytes() == b"1"


# Refusals


def test_what_no_archive_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    (tmp_path / "d").mkdir()
    os.mkfifo("d/fifo")
    with pytest.raises(UsageError, match=r"d: fifo is a pipe, which no archive can hold; take it out of the folder$"):
        scan(Path("d"))
    os.unlink("d/fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("d/so\ncket")
        with pytest.raises(UsageError, match=r"d: 'so\\ncket' is a socket, [^\n]*$"):
            scan(Path("d"))
    os.unlink("d/so\ncket")
    assert scan(Path("d")).entries == []


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=rf"/{name}: "):
        scan(tmp_path / name)


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may read anything, the system's refusal is a made-up one."""
    folder = grow(tmp_path / "in", {"deep/closed": b"1", "deep/open": b"2", "shut/": b""})
    really = os.open

    def opens(place: bytes, flags: int, mode: int = 0o777, **where: int) -> int:
        if os.path.basename(place) in shut:
            raise PermissionError(13, "Permission denied", place)
        return really(place, flags, mode, **where)

    monkeypatch.setattr(os, "open", opens)
    for line in ("deep/closed", "shut"):
        shut = [os.path.basename(line).encode()]
        with pytest.raises(UsageError, match=rf"/in: {line} cannot be read \(Permission denied\)$"):
            scan(folder).collection(never)


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone", "link", "pipe"])
def test_a_file_that_changes_is_refused(tmp_path: Path, change: str) -> None:
    folder = grow(tmp_path / "in", {"x": b"123"})
    found = scan(folder)
    place = folder / "x"
    place.unlink()
    if change == "link":
        grow(tmp_path, {"other": b"123"})
        os.symlink(tmp_path / "other", place)
    elif change == "pipe":
        os.mkfifo(place)
    elif change != "gone":
        place.write_bytes({"longer": b"1234", "shorter": b"12", "other": b"321"}[change])
        os.utime(place, ns=(0, 5))  # a clock may be too coarse to tell
    with pytest.raises(UsageError, match=r"/in: x (changed while it was read|cannot be read)"):
        found.collection(never)


def test_times_beyond_any_file_system_are_cut(tmp_path: Path) -> None:
    state = os.stat_result((0o100644, 0, 0, 0, 0, 0, 7, 0, 0, 0), {"st_mtime_ns": 10**21})
    assert tree._entry("x", state).time == 10**21
    state = os.stat_result((0o100644, 0, 0, 0, 0, 0, 7, 0, 0, 0), {"st_mtime_ns": 10**30})
    assert tree._entry("x", state).time == 10**9 * 2**63 - 1
