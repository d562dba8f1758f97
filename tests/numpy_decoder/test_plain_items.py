"""`decompress --engine numpy` with --item, --range and --links: as by the other engine, reading no more than it needs."""

from collections.abc import Callable
from pathlib import Path

import engines
import framed
import goldens
import numpy as np
import pytest
from test_plain_engine import without_torch

from vaedensity.numpy_decoder.container import Directory

USAGE, DAMAGED = 2, 3
MODEL = ("-m", goldens.model(engines.GOLDEN))
pytestmark = pytest.mark.usefixtures("no_released")


def digits(path: Path, *damaged: int) -> tuple[Path, np.ndarray]:
    """Four chains of 40 items; some of them damaged."""
    parts, images = engines.chains(4)
    parts = [engines.bad_payload(part) if k in damaged else part for k, part in enumerate(parts)]
    meta = {"kind": "npy", "name": "x.npy", "arrays": {"images": "images"}}
    return engines.save(path / "a.vdz", {"images": images}, parts, [meta]), images


def test_items_of_an_array(tmp_path: Path) -> None:
    path, images = digits(tmp_path)
    for options, places in {
        ("--item", 0): [0],
        ("--item", 159, "--item", 3, "--item", 159): [159, 3],
        ("--range", "38:42"): [38, 39, 40, 41],
        ("--range", ":1", "--range", "119:121", "--item", 80): [80, 0, 119, 120],
        ("--range", ":"): list(range(160)),
    }.items():
        found = engines.by_both(path, tmp_path / "out", *MODEL, *options)
        assert found.status == 0 and found.record is not None and found.record["items"] == len(places)
        assert np.array_equal(np.load(tmp_path / "out" / "x.npy"), images[places])


def test_only_blocks_that_are_needed_are_read(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = digits(tmp_path, 1)
    read, payload = [], Directory.payload
    monkeypatch.setattr(Directory, "payload", lambda self, block: (read.append(block.index), payload(self, block))[1])
    found = engines.by_both(path, tmp_path / "out", *MODEL, "--item", 80, "--range", "118:122", "--item", 100)
    assert found.status == 0 and read == [2, 3]
    assert np.array_equal(np.load(tmp_path / "out" / "x.npy"), images[[80, 100, 118, 119, 120, 121]])
    line = refused(DAMAGED, "decompress", path, "-o", tmp_path / "no", *MODEL, "--item", 40, "--engine", "numpy")
    assert f"{path}: block 1 of 4 is damaged" in line


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">U3", ">M8[s]", "|S4", "|S0"])
def test_items_keep_their_byte_order(dtype: str, tmp_path: Path) -> None:
    x = np.ndarray((6, 2), dtype)
    if x.nbytes:
        x[...] = np.arange(12).reshape(6, 2).astype(dtype)
    parts = framed.cut(0, x, (3 if x.itemsize > 1 else 0, 2), (0, 4)) if x.nbytes else []
    meta = {"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}}
    path = engines.save(tmp_path / "a.vdz", {"x": x}, parts, [meta])
    found = engines.by_both(path, tmp_path / "out", "--item", 5, "--item", 0, "--range", "1:3")
    assert found.status == 0
    back = np.load(tmp_path / "out" / "x.npy")
    assert back.dtype.itemsize == x.itemsize and len(back) == 4
    assert not x.nbytes or back.tobytes() == x[[5, 0, 1, 2]].tobytes()


def test_images_of_a_folder_by_name(tmp_path: Path) -> None:
    images = np.arange(3 * 20, dtype=np.uint8).reshape(3, 4, 5)
    meta = {"kind": "folder", "name": "p", "arrays": {"x": "x"}, "mode": "L", "files": ["a.png", "b/c.bmp", "7.png"]}
    path = engines.save(tmp_path / "a.vdz", {"x": images}, framed.cut(0, images, (1, 1), (0, 2)), [meta])
    found = engines.by_both(path, tmp_path / "out", "--item", "b/c.bmp", "--item", "7.png")
    assert found.status == 0 and {"p/b/c.bmp", "p/7.png", "p", "p/b"} == set(found.files)


def test_files_and_images_of_a_tree(tmp_path: Path) -> None:
    path, model = goldens.archive("tree-v5"), ("-m", goldens.model("tree-v5"))
    with open(path, "rb") as file:
        (meta,) = Directory(file, path).meta["collections"]
    names = [name for name, kind in zip(meta["entries"], meta["types"]) if kind in "fi"]
    files = [name for name, kind in zip(meta["entries"], meta["types"]) if kind == "f"]
    images = [name for name, kind in zip(meta["entries"], meta["types"]) if kind == "i"]
    for some in ([files[0]], [images[-1], images[0]], [files[-1], images[3], files[0]]):
        found = engines.by_both(path, tmp_path / "out", *model, *[x for name in some for x in ("--item", name)])
        assert found.status == 0 and found.record is not None and found.record["items"] == len(some)
        assert {f"{meta['name']}/{name}" for name in some} <= set(found.files)
    assert engines.by_both(path, tmp_path / "out", *model, "--range", f"1:{len(names)}").status == 0


def test_a_pool_of_several_arrays(tmp_path: Path) -> None:
    """Files that begin in one array, of rows of several bytes, and end in the next."""
    arrays = {"p": np.arange(12, dtype=np.uint8).reshape(4, 3), "q": np.arange(12, 20, dtype=np.uint8)}
    parts = [*framed.cut(0, arrays["p"], (0, 1), (0, 3)), *framed.cut(1, arrays["q"], (0, 6), (0, 2))]
    meta = {
        "kind": "tree", "name": "t", "arrays": {"p": "p", "q": "q"}, "bytes": ["p", "q"], "images": [], "links": [],
        "entries": ["a", "b", "c", "d"], "types": "ffff", "sizes": [4, 10, 0, 6],
    }  # fmt: skip
    path = engines.save(tmp_path / "a.vdz", arrays, parts, [meta])
    for name, data in {"a": range(4), "b": range(4, 14), "c": range(0), "d": range(14, 20)}.items():
        found = engines.by_both(path, tmp_path / "out", "--item", name)
        assert found.files == {"t": None, f"t/{name}": bytes(data)}


def test_an_empty_tree_holds_no_items(tmp_path: Path, refused: Callable[..., str]) -> None:
    meta = {"kind": "tree", "name": "t", "arrays": {}, "bytes": [], "images": [], "links": [], "entries": []}
    path = engines.save(tmp_path / "a.vdz", {}, [], [meta | {"types": "", "sizes": []}])
    for engine in ("torch", "numpy"):
        line = refused(USAGE, "decompress", path, "-o", tmp_path / "out", "--item", 0, "--engine", engine)
        assert f"item 0: {path} holds no items" in line


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--item", "160"), "items 0 to 159"),
        (("--item", "x.png"), "items 0 to 159"),
        (("--range", "5"), "FIRST:END"),
        (("--range", "5:5"), "0:160"),
        (("--item", "0", "--lockstep", "1"), "leave out"),
        (("--item", "0", "--keep-going"), "leave out"),
        (("--item", "0", "--threads", "1"), "--threads is of the engine torch"),
    ],
)
def test_refusals(options: tuple[str, ...], told: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    path, _ = digits(tmp_path)
    line = refused(USAGE, "decompress", path, "-o", tmp_path / "out", *MODEL, "--engine", "numpy", *options)
    assert told in line


def test_items_of_several_arrays_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    arrays = {"a": np.arange(3, dtype=np.uint8), "b": np.arange(3, dtype=np.uint8)}
    metas = [{"kind": "npy", "name": f"{name}.npy", "arrays": {name: name}} for name in arrays]
    parts = [*framed.cut(0, arrays["a"], (0, 3)), *framed.cut(1, arrays["b"], (0, 3))]
    path = engines.save(tmp_path / "a.vdz", arrays, parts, metas)
    for engine in ("torch", "numpy"):
        line = refused(USAGE, "decompress", path, "-o", tmp_path / "out", "--item", 0, "--engine", engine)
        assert "npy a.npy, npy b.npy" in line


def test_lost_items_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    x = np.arange(6, dtype=np.uint8)
    parts = framed.cut(0, x, (0, 3), (0, 3))
    meta = {"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}}
    path = engines.save(tmp_path / "a.vdz", {"x": x}, [parts[0], engines.lost(parts[1])], [meta])
    assert engines.by_both(path, tmp_path / "out", "--item", 2).status == 0
    assert "items 3 to 5 of array x" in refused(DAMAGED, "decompress", path, "--item", 3, "--engine", "numpy")


def test_without_torch(tmp_path: Path) -> None:
    path, images = digits(tmp_path, 1)
    some = without_torch("decompress", path, "--engine", "numpy", *MODEL, "-o", tmp_path / "a", "--range", "0:2")
    assert some.returncode == 0 and np.array_equal(np.load(tmp_path / "a" / "x.npy"), images[:2]), some.stderr
    rest = ("-o", tmp_path / "b", "--keep-going", "--memory", "1G", "--max-output", "1G", "--links", "any")
    done = without_torch("decompress", path, "--engine", "numpy", *MODEL, *rest)
    assert done.returncode == DAMAGED and "items 40 to 79 of images" in done.stderr
    assert np.array_equal(np.load(tmp_path / "b" / "x.npy")[80:], images[80:])


class TestLinks:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        arrays = {"p": np.arange(4, dtype=np.uint8)}
        meta = {
            "kind": "tree", "name": "t", "arrays": {"p": "p"}, "bytes": ["p"], "images": [], "entries": ["a", "in", "out"],
            "types": "fll", "sizes": [4], "links": ["a", "../../x"],
        }  # fmt: skip
        return engines.save(tmp_path / "a.vdz", arrays, framed.cut(0, arrays["p"], (0, 4)), [meta])

    def test_choices(self, path: Path, tmp_path: Path) -> None:
        files = {"t": None, "t/a": bytes(range(4))}
        assert engines.by_both(path, tmp_path / "out", "--links", "none").files == files
        made = files | {"t/in": "a", "t/out": "../../x"}
        assert engines.by_both(path, tmp_path / "out", "--links", "any").files == made

    def test_links_that_lead_out_are_refused(self, path: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
        for options in ((), ("--links", "inside")):
            lines = [
                refused(USAGE, "decompress", path, "-o", tmp_path / "out", "--engine", engine, *options)
                for engine in ("torch", "numpy")
            ]
            assert lines[0] == lines[1] and "--links any" in lines[0]
