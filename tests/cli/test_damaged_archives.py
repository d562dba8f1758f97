"""Archives that were damaged, or made to do harm: refused with one line, and nothing restored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from early import EarlyWriter
from refusals import DAMAGED, USAGE, Done, Refused

from vaedensity.archive import fallback
from vaedensity.archive.container import read_contents
from vaedensity.cli.main import main

pytestmark = pytest.mark.usefixtures("no_released")


@pytest.fixture
def archive(few: Path, done: Done) -> Path:
    done("compress", few, "-o", few.parent / "good.vdz")
    few.unlink()
    return few.parent / "good.vdz"


def refuse_archive(refused: Refused, path: Path, *options: object) -> set[str]:
    """What decompress (into a new and an old folder) and test say of a damaged archive."""
    return {
        refused(DAMAGED, "decompress", path, "-o", path.parent / "new" / "folder", *options),
        refused(DAMAGED, "decompress", path, "-o", path.parent, "-f", *options),
        refused(DAMAGED, "test", path, *options),
    }


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "text": lambda b: b"hello" * 40,
    "first-byte": lambda b: b"\x88" + b[1:],
    "text-mode-transfer": lambda b: b.replace(b"\r\n", b"\n"),
    "other-version": lambda b: b[:8] + b"\x02\x00" + b[10:],
    "half": lambda b: b[: len(b) // 2],
    "last-byte-cut": lambda b: b[:-1],
    "byte-appended": lambda b: b + b"\0",
    "block-altered": lambda b: b[:20] + bytes([b[20] ^ 1]) + b[21:],
    "directory-altered": lambda b: b[:-40] + bytes([b[-40] ^ 1]) + b[-39:],
    "tail-altered": lambda b: b[:-24] + b"\xff" * 8 + b[-16:],
    "byte-missing": lambda b: b[:30] + b[31:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_archives(damage: str, refused: Refused, archive: Path) -> None:
    archive.write_bytes(DAMAGE[damage](archive.read_bytes()))
    assert all("good.vdz" in line for line in refuse_archive(refused, archive))


@pytest.mark.parametrize("at", range(8))
def test_a_flipped_bit_anywhere_in_a_model_archive(
    at: int, refused: Refused, model: Path, model_archive: Path, tmp_path: Path
) -> None:
    whole = bytearray(model_archive.read_bytes())
    whole[at * (len(whole) - 1) // 7] ^= 1 << at
    (tmp_path / "flipped.vdz").write_bytes(whole)
    assert len(refuse_archive(refused, tmp_path / "flipped.vdz", "-m", model)) >= 1


def test_test_names_each_damaged_archive_and_goes_on(refused: Refused, archive: Path) -> None:
    bad = archive.with_name("bad.vdz")
    bad.write_bytes(archive.read_bytes()[:-1])
    result = CliRunner().invoke(main, ["test", str(bad), str(archive), str(bad)])
    assert result.exit_code == DAMAGED and result.stderr.count("bad.vdz") == 2 and "ok" in result.stdout


def test_archives_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    for command in ("decompress", "test", "list"):
        assert "cannot be read" in refused(USAGE, command, tmp_path / "gone.vdz")
        assert "a folder, expected an archive" in refused(USAGE, command, tmp_path)


def test_the_hostile_writer_can_write_a_good_archive(hostile: Callable[..., Path], tmp_path: Path, done: Done) -> None:
    done("decompress", hostile(), "-o", tmp_path / "out")
    assert np.load(tmp_path / "out" / "x.npy").tolist() == np.arange(12).reshape(4, 3).tolist()


UNSAFE = [
    "../x.npy",
    "/tmp/x.npy",
    "a/../../x.npy",
    "..",
    ".",
    "",
    "x\0.npy",
    "\ud800",
    5,
    None,
    ["x"],
]


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_would_leave_the_folder(name: Any, refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(meta={"name": name}))


@pytest.mark.parametrize("name", ["../0.png", "/tmp/0.png", "a/../../0.png", "", 5])
def test_file_names_that_would_leave_the_folder(name: Any, refused: Refused, hostile: Callable[..., Path]) -> None:
    meta = {"kind": "folder", "name": "p", "mode": "L", "files": [name]}
    refuse_archive(
        refused, hostile(meta=meta, entry={"shape": [1, 4, 3]}, blocks=[(fallback.RAW, 1, bytes(range(12)))])
    )


@pytest.mark.parametrize(
    "meta",
    [
        {"kind": "tar"},
        {"kind": None},
        {"kind": "folder"},
        {"kind": "folder", "files": "abcd", "mode": "L"},
        {"files": ["a.png"]},
        {"arrays": ["x"]},
        {"arrays": {}},
        {"arrays": {"y": "y"}},
        {"arrays": {"x": 5}},
        {"arrays": {"x": "a\0b"}},
        {"arrays": {"x": "\ud800"}, "kind": "npz"},
        {"arrays": "x"},
        {"kind": "file", "arrays": {}},
        {"kind": "file", "files": ["a"]},
        {"kind": "file", "sizes": [12]},
        {"kind": "files"},
        {"kind": "files", "files": ["a"]},
        {"kind": "files", "files": ["a"], "sizes": [12, 0]},
        {"kind": "files", "files": ["a"], "sizes": [-12]},
        {"kind": "files", "files": ["a"], "sizes": [12.0]},
        {"kind": "files", "files": ["a"], "sizes": "c"},
        {"kind": "files", "files": ["../a"], "sizes": [12]},
        {"kind": "files", "files": ["a", "a/b"], "sizes": [6, 6]},
    ],
)
def test_notes_that_are_wrong(meta: dict[str, Any], refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(meta=meta))


@pytest.mark.parametrize(
    "meta", [{}, {"collections": 5}, {"collections": [5]}, {"collections": {"a": 1}}, [], "x", None]
)
def test_notes_of_the_wrong_kind(meta: Any, refused: Refused, hostile: Callable[..., Path]) -> None:
    path = hostile()
    assert path.exists()

    def rewrite(**changes: Any) -> Path:
        return hostile(**changes)

    for command in ("decompress", "test"):
        refused(DAMAGED, command, rewrite_note(rewrite, meta))


def rewrite_note(hostile: Callable[..., Path], meta: Any) -> Path:
    """The hostile archive with its whole meta replaced."""
    path = hostile()
    with open(path, "rb") as f:
        record = read_contents(f, "x").record
    with open(path, "wb") as f:
        writer = EarlyWriter(f, 1)
        writer.add(0, 4, bytes(range(12)))
        writer.finish(record | {"meta": meta})
    return path


@pytest.mark.parametrize("files", [["0.png"], ["0.png"] * 4, ["a.png", "a.png/b.png", "c.png", "d.png"], ["0.exe"] * 4])
def test_folders_whose_files_do_not_fit(files: list[str], refused: Refused, hostile: Callable[..., Path]) -> None:
    meta = {"kind": "folder", "name": "p", "mode": "L", "files": files}
    path = hostile(meta=meta, entry={"shape": [4, 1, 3]})
    refused(DAMAGED, "decompress", path, "-o", path.parent / "out")


@pytest.mark.parametrize(
    ("entry", "mode"),
    [
        ({"shape": [4, 3]}, "L"),
        ({"shape": [4, 1, 3]}, "RGB"),
        ({"shape": [4, 1, 1, 3]}, "L"),
        ({"shape": [4, 1, 3], "dtype": "|i1"}, "L"),
        ({"shape": [4, 1, 3]}, "P"),
        ({"shape": [4, 1, 3]}, {"L": 1}),
    ],
)
def test_folders_whose_arrays_are_no_images(
    entry: dict[str, Any], mode: Any, refused: Refused, hostile: Callable[..., Path]
) -> None:
    meta = {"kind": "folder", "name": "p", "mode": mode, "files": [f"{i}.png" for i in range(4)]}
    path = hostile(meta=meta, entry=entry)
    refused(DAMAGED, "decompress", path, "-o", path.parent / "out")


@pytest.mark.parametrize(
    ("meta", "entry"),
    [
        ({"kind": "file"}, {"dtype": "|i1"}),
        ({"kind": "files", "files": ["a"], "sizes": [12]}, {"dtype": "|b1"}),
        ({"kind": "files", "files": ["a", "b"], "sizes": [12, 1]}, {}),
        ({"kind": "files", "files": ["a", "b"], "sizes": [5, 6]}, {}),
    ],
)
def test_files_that_their_arrays_do_not_make(
    meta: dict[str, Any], entry: dict[str, Any], refused: Refused, hostile: Callable[..., Path]
) -> None:
    path = hostile(meta=meta, entry=entry)
    assert "do not fit its bytes" in refused(DAMAGED, "decompress", path, "-o", path.parent / "out")


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [5, 3]},
        {"shape": [4, 4]},
        {"shape": [2, 2, 3]},
        {"shape": [-4, -3]},
        {"shape": [4.0, 3]},
        {"shape": [True, 12]},
        {"shape": 12},
        {"shape": "43"},
        {"shape": None},
        {"shape": [1] * 40},
        {"shape": [4, 2**60]},
        {"shape": [2**62, 2**62]},
        {"dtype": "O"},
        {"dtype": "|O8"},
        {"dtype": "f4,O"},
        {"dtype": "<f8"},
        {"dtype": "nonsense"},
        {"dtype": ["<f8"]},
        {"dtype": None},
        {"name": 5},
        {"name": "y"},
        {"blocks": 0},
        {"blocks": 2},
        {"blocks": -1},
        {"blocks": "1"},
        {"layout": "NHW"},
        {"layout": "XYZ"},
        {"layout": 5},
    ],
)
def test_arrays_described_wrongly(entry: dict[str, Any], refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(entry=entry))


@pytest.mark.parametrize("dtype", [",", "(1,", "4)O"])
def test_dtype_texts_that_numpy_cannot_parse(dtype: str, refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(entry={"dtype": dtype}))


@pytest.mark.parametrize("shape", [[2**47], [1, 2**47], [2**40, 1]])
def test_arrays_larger_than_memory_are_refused_before_anything_is_written(
    shape: list[int], hostile: Callable[..., Path], tmp_path: Path, unchanged: Callable[..., Any]
) -> None:
    path = hostile(entry={"shape": shape}, blocks=[(fallback.RAW, shape[0], bytes(12))])
    with unchanged(tmp_path):
        result = CliRunner().invoke(main, ["decompress", str(path), "-o", str(tmp_path / "out")])
    assert result.exit_code == USAGE and "--max-output" in result.stderr
    assert result.stderr.startswith("vaedensity: ") and result.stderr.count("\n") == 1


def bomb() -> bytes:
    """A megabyte of zeros in few bytes."""
    coder, payload = fallback.encode(bytes(1 << 20))
    assert coder != fallback.RAW and len(payload) < 2000
    return payload


DATA = bytes(range(12))
BLOCKS: dict[str, list[tuple[int, int, bytes]]] = {
    "none": [],
    "too-few-items": [(fallback.RAW, 3, DATA[:9])],
    "too-many-items": [(fallback.RAW, 5, DATA + bytes(3))],
    "two-for-one": [(fallback.RAW, 2, DATA[:6]), (fallback.RAW, 2, DATA[6:])],
    "short": [(fallback.RAW, 4, DATA[:-1])],
    "long": [(fallback.RAW, 4, DATA + b"\0")],
    "other-data": [(fallback.RAW, 4, DATA[::-1])],
    "no-deflate": [(fallback.DEFLATE, 4, DATA)],
    "no-lzma": [(fallback.LZMA2, 4, DATA)],
    "bomb": [(fallback.encode(bytes(1 << 20))[0], 4, bomb())],
    "unknown-coder": [(200, 4, DATA)],
    "model-coder-without-model": [(16, 4, DATA)],
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_that_do_not_add_up(kind: str, refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(blocks=BLOCKS[kind]))


def test_a_block_beyond_the_arrays(refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(arrays=[]))


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "00"},
        {"sha256": 5},
        {"arrays": 5},
        {"arrays": ["x"]},
        {"model": "x"},
        {"model": {"name": 5}},
        {"model": {"name": "x", "sha256": "00", "particles": 0}},
        {"model": {"name": "x", "sha256": "00", "particles": 257}},
        {"model": {"name": "x", "sha256": "00", "particles": 2.0}},
        {"model": {"name": "x", "sha256": "00", "particles": True}},
    ],
)
def test_records_that_are_wrong(changes: dict[str, Any], refused: Refused, hostile: Callable[..., Path]) -> None:
    refuse_archive(refused, hostile(**changes))


@pytest.mark.parametrize("coder", [17, 18, 19, 20, 21])
def test_coders_newer_than_the_version(coder: int, refused: Refused, model: Path, hostile: Callable[..., Path]) -> None:
    path = hostile(
        entry={"shape": [2, 8, 8], "layout": "NHW"},
        blocks=[(coder, 2, b"\1\0\2" + b"\0" * (coder % 2))],
        model={"sha256": "00", "name": "m"} | ({"particles": 2} if coder % 2 else {}),
    )
    for command in (("list", path), ("test", path, "-m", model)):
        assert f"coder {coder} in format version 1" in refused(DAMAGED, *command)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\1\0\4", b"\1\0\1" + bytes(40), b"\xff" * 60, b"\1\1\1abcdefgh"])
def test_model_blocks_of_nonsense(payload: bytes, refused: Refused, model: Path, hostile: Callable[..., Path]) -> None:
    from vaedensity.model.checkpoint import load_model

    path = hostile(
        entry={"shape": [2, 8, 8], "layout": "NHW"},
        blocks=[(16, 2, payload)],
        model={"sha256": load_model(model).sha256, "name": "m"},
    )
    refuse_archive(refused, path, "-m", model)


@pytest.mark.parametrize(
    "changes",
    [
        {"entry": {"shape": 5}},
        {"entry": {"shape": ["x"]}},
        {"entry": {"shape": None}},
        {"meta": {"files": 5}},
        {"model": "x"},
        {"model": {"name": "x"}},
        {"model": []},
        {"arrays": 5},
        {"arrays": ["x"]},
        {"meta": {"name": "../x"}, "arrays": None},
    ],
)
@pytest.mark.parametrize("command", ["list", "info"])
def test_list_and_info_of_archives_that_make_no_sense(
    changes: dict[str, Any], command: str, refused: Refused, hostile: Callable[..., Path]
) -> None:
    assert "hostile.vdz" in refused(DAMAGED, command, hostile(**changes))
