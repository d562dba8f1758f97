"""data/: trees made again: links, permissions, what is lost, how arrays are read."""

import os
import stat
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import cases
from trees import COLOUR, GREY, always, encoded, grow, harvest, never, packed, texts

from vaedensity.data import restore, tree_contents, tree_names, tree_write
from vaedensity.data.long_paths import LongPaths, remove_tree
from vaedensity.data.staging import Move, move_into_place, staging
from vaedensity.data.tree import scan
from vaedensity.data.tree_contents import Pool
from vaedensity.data.tree_meta import check_tree_meta
from vaedensity.data.tree_write import require_restorable, write_tree
from vaedensity.errors import UsageError, VaedensityError

IN = {
    "sound": [
        "f",
        "./f",
        "d/e",
        "d/../f",
        "d/e/../../f",
        "nowhere",
        "nowhere/deep",
        ".",
        "d//e/",
        "here",
        "here/f",
        "here/here",
    ],
    "d/e/sound": ["../..", "../../f", "../e/../../d/e", "..", "../../nowhere", "../../here/f"],
}
OUT = {
    "bad": ["/etc/passwd", "/", "..", "../t", "../t/f", "d/../../t", "d/e/../../../x", "here/..",
            "nowhere/../..", "nowhere/..", "nowhere/d/..", "here/here/../x", "./..", "f/../.."],
    "d/e/bad": ["../../..", "../../../t/f", "../../here/../x", "/"],
}  # fmt: skip


def linked(**links: str) -> dict[str, Any]:
    """restore metadata of links in a folder with a file, folders and a link to itself; ``_`` of names is ``/``."""
    names = {name.replace("_", "/"): target for name, target in links.items()} | {"here": "."}
    meta = {
        "kind": "tree",
        "name": "t",
        "entries": ["d", "d/e", "f", *names],
        "types": "ddf" + "l" * len(names),
        "bytes": [],
        "images": [],
        "sizes": [0],
        "links": [*names.values()],
        "arrays": {},
    }
    check_tree_meta(meta)
    return meta


def pairs(links: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, target) for name, targets in links.items() for target in targets]


# Links


@pytest.mark.parametrize(("name", "target"), pairs(IN))
def test_links_inside_are_made(tmp_path: Path, name: str, target: str) -> None:
    meta = linked(**{name.replace("/", "_"): target})
    assert restore.targets([meta], tmp_path, False, "inside") == [tmp_path / "t"]
    assert write_tree(meta, {}, tmp_path / "t") == []
    assert os.readlink(tmp_path / "t" / name) == target
    assert Path(os.path.realpath(tmp_path / "t" / name)).is_relative_to(tmp_path / "t")


@pytest.mark.parametrize(("name", "target"), pairs(OUT))
def test_links_out_are_refused_made_or_left_out(tmp_path: Path, name: str, target: str) -> None:
    meta = linked(**{name.replace("/", "_"): target})
    line = rf"^t: {name} is a link that may lead out of the folder, to {target}; pass links=any .*links=none [^\n]*$"
    for refusing in (
        lambda: write_tree(meta, {}, tmp_path / "t"),
        lambda: restore.targets([meta], tmp_path, False, "inside"),
        lambda: restore.write_collection(meta, {}, tmp_path),
    ):
        with pytest.raises(UsageError, match=line):
            refusing()
    assert list(tmp_path.iterdir()) == []
    write_tree(meta, {}, tmp_path / "any", "any")
    assert os.readlink(tmp_path / "any" / name) == target and os.path.islink(tmp_path / "any" / "here")
    write_tree(meta, {}, tmp_path / "none", "none")
    assert not os.path.lexists(tmp_path / "none" / name) and not os.path.lexists(tmp_path / "none" / "here")
    assert (tmp_path / "none" / "d/e").is_dir() and (tmp_path / "none" / "f").is_file()


def test_choices_of_links(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="links some: expected inside, any, none"):
        write_tree(linked(), {}, tmp_path / "t", "some")


def test_many_links_are_checked_quickly() -> None:
    up = "d/../" * 800
    meta = linked(**{f"l{n}": up + "d" for n in range(2000)})
    require_restorable(meta)
    with pytest.raises(UsageError, match="l1999"):
        require_restorable(linked(**{f"l{n}": up + (".." if n == 1999 else "d") for n in range(2000)}))


def test_links_keep_their_times_and_never_pass_theirs_on(tmp_path: Path) -> None:
    grow(tmp_path, {"outside": b"untouched"})
    os.utime(tmp_path / "outside", ns=(1, 2))
    (tmp_path / "outside").chmod(0o604)
    before = harvest(tmp_path)[b"outside"]
    meta = linked(l="../outside") | {"times": [7 * 10**9, *[10**9] * 5], "rights": [0o700, 0o700, 0o700, 0o600, 0, 0]}
    write_tree(meta, {}, tmp_path / "t", "any")
    assert harvest(tmp_path)[b"outside"] == before
    assert os.lstat(tmp_path / "t" / "l").st_mtime_ns == 11 * 10**9


# Permissions


def as_nobody(work: Any) -> None:
    """Run ``work()`` without root's permission to do everything, in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_folder_that_must_not_be_written_to_is_filled_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.chdir(tmp_path / "open")
    meta = {
        "kind": "tree", "name": "t", "arrays": {"p": "p"}, "bytes": ["p"], "images": [],
        "sizes": [2, 1], "links": ["x"],
        "entries": ["shut", "shut/in", "shut/in/f", "shut/l", "x", "void", "void/in"], "types": "ddflfdd",
        "rights": [0o500, 0o500, 0o500, 0o400, 0, 0o7666, 0o600, 0o711], "times": [10**18, *[1] * 7],
    }  # fmt: skip

    def work() -> None:
        write_tree(meta, {"p": np.frombuffer(b"abc", np.uint8)}, Path("t"))
        assert os.access("t/shut", os.R_OK) and not os.access("t/shut", os.W_OK) and not os.access("t/void", os.X_OK)
        with staging(Path("goal")) as stage:
            staged = restore.write_collection(meta, {"p": np.frombuffer(b"xyz", np.uint8)}, stage)
            move_into_place([Move(staged, Path("goal/t"))])
        assert os.listdir("goal") == ["t"] and Path("goal/t/x").read_bytes() == b"z"
        for place in ("t", "goal/t"):
            os.chmod(os.path.join(place, "void"), 0o700)

    as_nobody(work)
    for place in ("t", "goal/t"):
        found = harvest(Path(place))
        assert [found[n][:2] for n in (b".", b"shut", b"shut/in", b"shut/in/f", b"x", b"void/in")] == [
            ("0o40500", 10**18),
            ("0o40500", 10**18 + 1),
            ("0o40500", 10**18 + 2),
            ("0o100400", 10**18 + 3),
            ("0o100666", 10**18 + 5),
            ("0o40711", 10**18 + 7),
        ]


def test_what_is_being_made_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = grow(tmp_path / "in", {"d/f": b"1"})
    for name, rights in (("", 0o755), ("d", 0o755), ("d/f", 0o600)):
        (folder / name).chmod(rights)
    meta, arrays = packed(scan(folder).collection(never))
    seen = []
    really = tree_write._NewFolder.fill

    def fill(self: Any, name: str, content: Any) -> None:
        seen.append(os.stat(self.paths.root).st_mode & 0o777)
        really(self, name, content)

    monkeypatch.setattr(tree_write._NewFolder, "fill", fill)
    write_tree(meta, arrays, tmp_path / "out")
    assert seen == [0o700] and harvest(tmp_path / "out") == harvest(folder)


# Refusals


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_nothing_that_exists_is_touched(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "t"
    {"file": place.touch, "folder": place.mkdir, "link": lambda: place.symlink_to("elsewhere")}[kind]()
    before = harvest(tmp_path)
    with pytest.raises(VaedensityError, match=r"^cannot write t: File exists$"):
        write_tree(linked(), {}, place)
    assert harvest(tmp_path) == before


def test_files_are_new(tmp_path: Path) -> None:
    """As where two names are one to the file system."""
    grow(tmp_path / "t", {"f": b"1"})
    with LongPaths(os.fsencode(tmp_path / "t")) as paths, pytest.raises(FileExistsError):
        tree_write._NewFolder(paths, linked()).fill("f", iter([np.zeros(1, np.uint8)]))
    assert (tmp_path / "t/f").read_bytes() == b"1"


def test_a_full_disk_is_told_with_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, name: str, content: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tree_write._NewFolder, "fill", full)
    with pytest.raises(VaedensityError, match=r"^cannot write f: No space left on device$"):
        write_tree(linked(), {}, tmp_path / "t")


@pytest.mark.parametrize(
    "name", ["a:b", "a\\b", "CON", "con.txt", "a/nul/b", "x.", "x ", "a?", "\udcff", "lpt\xb9", "a\nb", "COM1 .x"]
)
def test_names_that_windows_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert tree_names.fits_system(name, windows=False) and not tree_names.fits_system(name, windows=True)
    monkeypatch.setattr(tree_write, "fits_system", lambda n: tree_names.fits_system(n, windows=True))
    meta = linked() | {"entries": ["d", "d/e", name.replace("/", "-") if "nul" not in name else "nul", "here"]}
    with pytest.raises(UsageError, match="which this system cannot hold"):
        write_tree(meta, {}, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "console", "com.1", "x.y", ".hidden", "\u00fc/\u4e2d", "../../x", "nulls"])
def test_names_that_windows_can_hold(name: str) -> None:
    assert tree_names.fits_system(name, windows=True)


# How arrays are read, and what is lost


class OnDisk:
    """What :func:`write_tree` asks of an array, and how much of it was read at once."""

    def __init__(self, array: np.ndarray, refused: tuple[int, ...] = ()):
        self._array, self.dtype, self.shape, self.refused = array, array.dtype, array.shape, refused
        self.reads: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: slice) -> np.ndarray:
        assert isinstance(rows, slice) and rows.step is None and 0 <= rows.start < rows.stop <= len(self)
        assert not set(range(rows.start, rows.stop)) & set(self.refused), "lost items are not to be read"
        self.reads.append((rows.start, rows.stop))
        part = self._array[rows].view()
        part.flags.writeable = False
        return part


def test_arrays_are_read_image_by_image_and_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"0.png": encoded(GREY, "PNG", pnginfo=texts()), "1.png": encoded(GREY[::-1], "PNG"), "a": bytes(250)}
    files |= {"b": os.urandom(99), "c": b"", "d": b"x"}
    meta, arrays = packed(scan(grow(tmp_path / "in", files)).collection(always))
    monkeypatch.setattr(tree_contents, "PIECE", 64)
    disk = {name: OnDisk(array) for name, array in arrays.items()}
    assert write_tree(meta, disk, tmp_path / "out") == []
    images, data = disk["images 11x9 L"].reads, disk["bytes"].reads
    assert images == [(0, 1), (1, 2)]
    assert [b for b, _ in data] == [0, *(e for _, e in data[:-1])] and data[-1][1] == len(arrays["bytes"])
    assert max(e - b for b, e in data) == 64
    write_tree(meta, arrays, tmp_path / "again")
    assert harvest(tmp_path / "out") == harvest(tmp_path / "again")
    assert harvest(tmp_path / "out")[b"b"] == harvest(tmp_path / "in")[b"b"]


def test_files_that_need_lost_items_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = encoded(COLOUR, "PNG", pnginfo=texts())
    files = {
        "0.png": meta,
        "1.png": encoded(COLOUR[::-1], "PNG"),
        "2.png": meta,
        "a": b"1234567",
        "d/b": b"89",
        "e": b"",
    }
    folder = grow(tmp_path / "in", files)
    os.symlink("a", folder / "l")
    meta, arrays = packed(scan(folder).collection(always))
    extra = meta["extras"][0]
    assert meta["extras"] == [extra, 0, extra] and len(arrays["bytes"]) == 2 * extra + 9
    for number, (ranges, gone) in enumerate(
        [
            ({"images 10x6 RGB": [(1, 2)]}, ["1.png"]),
            ({"images 10x6 RGB": [(2, 9), (0, 1)]}, ["0.png", "2.png"]),
            ({"bytes": [(extra - 1, extra)]}, ["0.png"]),
            ({"bytes": [(extra, extra + 1)], "images 10x6 RGB": [(1, 1)]}, ["2.png"]),
            ({"bytes": [(2 * extra, 2 * extra + 1)]}, ["a"]),
            ({"bytes": [(2 * extra + 6, 2 * extra + 8), (0, 1)]}, ["0.png", "a", "d/b"]),
            ({"bytes": [(0, len(arrays["bytes"]))]}, ["0.png", "2.png", "a", "d/b"]),
            ({"bytes": []}, []),
        ]
    ):
        disk = {k: OnDisk(a, tuple(i for b, e in ranges.get(k, ()) for i in range(b, e))) for k, a in arrays.items()}
        assert write_tree(meta, disk, tmp_path / f"{number}", lost=ranges) == gone
        out, whole = harvest(tmp_path / f"{number}"), harvest(folder)
        assert set(whole) - set(out) == {os.fsencode(name) for name in gone} and set(out) <= set(whole)
        assert all(out[k] == whole[k] for k in (b"a", b"d/b", b"e", b"l", b"d") if k in out)
    left: list[str] = []
    restore.write_collection(meta | {"name": "last"}, arrays, tmp_path, {"bytes": [(0, 1)]}, left)
    assert left == ["0.png"] and not (tmp_path / "last/0.png").exists() and (tmp_path / "last/2.png").exists()


@cases(100)
@given(st.data())
def test_a_pool_is_its_bytes(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=4))
    sizes = [rows * width for rows, width in shapes]
    whole = np.arange(sum(sizes), dtype=np.uint8)
    parts = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    lost = {
        k: [
            tuple(sorted(data.draw(st.tuples(st.integers(0, 14), st.integers(0, 14)))))
            for _ in range(data.draw(st.integers(0, 2)))
        ]
        for k in range(len(shapes))
    }
    gone, begin, arrays = set(), 0, []
    for k, ((rows, width), part) in enumerate(zip(shapes, parts)):
        refused = tuple(i for b, e in lost[k] for i in range(b, min(e, rows)))
        gone |= {begin + i * width + j for i in refused for j in range(width)}
        arrays.append(OnDisk(part.reshape(rows, width), refused))
        begin += rows * width
    old, tree_contents.PIECE = tree_contents.PIECE, data.draw(st.integers(1, 20))
    try:
        found, at = Pool(arrays, lost), 0
        while True:
            size = data.draw(st.integers(0, len(whole) - at))
            pieces = found.take(size)
            expected = not gone & set(range(at, at + size))
            assert (pieces is not None) == expected
            if pieces is not None and data.draw(st.booleans()):
                assert b"".join(piece.tobytes() for piece in pieces) == whole[at : at + size].tobytes()
            at += size
            if at == len(whole):
                break
    finally:
        tree_contents.PIECE = old


PARTS = st.binary(min_size=1, max_size=3).filter(lambda b: not set(b) & {0, 47} and b not in (b".", b"..")) | st.just(
    b"n" * 255
)
SECONDS = st.integers(-(2**31), 2**33) | st.sampled_from([0, -1, 2**31, 15_000_000_000])


@cases(15)
@given(st.data())
def test_folders_of_any_shape_come_back(data: st.DataObject) -> None:
    """Deep and wide, with names of any bytes, links to anywhere, all permissions, times of any year."""
    with tempfile.TemporaryDirectory() as home:
        root = os.path.join(os.fsencode(home), b"in")
        os.mkdir(root)
        with LongPaths(root) as paths:
            folders, made = [b""], []
            for _ in range(data.draw(st.integers(0, 12))):
                parent = data.draw(st.sampled_from(folders))
                names = data.draw(st.lists(PARTS, min_size=1, max_size=20))
                kind = data.draw(st.sampled_from("dfl"))
                for depth, part in enumerate(names):
                    name = os.path.join(parent, part)
                    path, where = paths.at(name)
                    if name in made:
                        break
                    if depth < len(names) - 1 or kind == "d":
                        os.mkdir(path, **where)
                        folders.append(name)
                    elif kind == "f":
                        with open(name, "wb", opener=paths.opener) as f:
                            f.write(data.draw(st.binary(max_size=9)))
                    else:
                        os.symlink(data.draw(PARTS), path, **where)
                    made.append(name)
                    parent = name
            for name in reversed(made):
                path, where = paths.at(name)
                time = data.draw(SECONDS) * 10**9 + data.draw(st.integers(0, 10**9 - 1))
                if not stat.S_ISLNK(paths.state(name).st_mode):
                    os.chmod(path, data.draw(st.sampled_from([0o700, 0o755, 0o500, 0o777, 0o711])), **where)
                os.utime(path, ns=(0, time), follow_symlinks=False, **where)
        meta, arrays = packed(scan(Path(os.fsdecode(root))).collection(never))
        remarks: list[str] = []
        check_tree_meta(meta)
        assert write_tree(meta, arrays, Path(home, "out"), "any", remarks=remarks) == [] == remarks
        out = os.path.join(os.fsencode(home), b"out")
        with LongPaths(root) as old, LongPaths(out) as new:
            found, expected = (
                {
                    name: (state.st_mode, state.st_mtime_ns, stat.S_ISDIR(state.st_mode) or state.st_size)
                    for name, state in one.walk(lambda name, error: None)
                }
                for one in (new, old)
            )
        assert found == expected and len(found) == len(made)
        for place in (root, out):
            remove_tree(Path(os.fsdecode(place)))
