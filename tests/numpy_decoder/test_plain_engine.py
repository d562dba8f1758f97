"""`vaedensity decompress --engine numpy`: without torch, with the same refusals, and nothing left behind."""

import lzma
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import goldens
import numpy as np
import pytest

from vaedensity.numpy_decoder.container import Directory

USAGE, DAMAGED, MODEL = 2, 3, 4
WITHOUT = """
import sys
for name in ("torch", "torchvision", "numba", "constriction", "safetensors", "scipy", "sklearn"):
    sys.modules[name] = None
from vaedensity.cli.main import main
main(sys.argv[1:])
"""


def without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which none of the larger libraries can be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", ["centre-first-v3", "sequence-v4"])
def test_a_golden_is_restored_without_torch(name: str, tmp_path: Path) -> None:
    archive = goldens.with_note(name, tmp_path / "golden.vdz")
    done = without_torch(
        "decompress", archive, "--engine", "numpy", "-m", goldens.model(name), "-o", tmp_path / "new" / "folder"
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "new" / "folder" / "golden.npz") as f:
        assert goldens.same({key: f[key] for key in f.files}, goldens.arrays(name))


def test_help_and_list_need_no_torch(tmp_path: Path) -> None:
    archive = goldens.with_note("grey-v1", tmp_path / "golden.vdz")
    assert "decompress" in without_torch("--help").stdout
    assert "--engine" in without_torch("decompress", "--help").stdout
    assert "\ngolden.npz " in without_torch("list", archive).stdout


@pytest.mark.parametrize("name", ["two-valued-v1", "grey-v1"])
def test_both_engines_say_the_same(name: str, done: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    archive = goldens.with_note(name, tmp_path / "golden.vdz")
    records, files = [], []
    for engine in ("torch", "numpy"):
        out = tmp_path / "out"
        records.append(done("decompress", archive, "-o", out, "-f", "-m", goldens.model(name), "--engine", engine))
        files.append((out / "golden.npz").read_bytes())
        assert records[-1].pop("seconds") >= 0
    assert records[0] == records[1] and files[0] == files[1]


@pytest.mark.usefixtures("no_released")
def test_both_engines_restore_what_this_version_packs(
    model: Path, digits: np.ndarray, done: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Folders with anything in them, types of several bytes, images that the model inside codes."""
    (tmp_path / "box" / "in").mkdir(parents=True)
    (tmp_path / "box" / "in" / "a.txt").write_bytes(b"one and another " * 400)
    (tmp_path / "box" / "b").write_bytes(bytes(range(256)) * 9)
    np.save(tmp_path / "waves.npy", np.arange(40_000, dtype="<i4").reshape(-1, 8) ** 2)
    np.save(tmp_path / "digits.npy", digits[:120])
    sources = [tmp_path / name for name in ("box", "waves.npy", "digits.npy")]
    done("compress", *sources, "-o", tmp_path / "x.vdz", "-m", model, "--embed-model")
    with open(tmp_path / "x.vdz", "rb") as file:
        directory = Directory(file, tmp_path / "x.vdz")
    coders = {block.coder for block in directory.blocks}
    assert directory.version == 5 and directory.inside is not None and coders & {3} and max(coders) >= 16
    records, found = [], []
    for engine in ("torch", "numpy"):
        out = tmp_path / "out"
        records.append(done("decompress", tmp_path / "x.vdz", "-o", out, "-f", "--engine", engine))
        files = sorted(path for path in out.rglob("*") if path.is_file())
        found.append({str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files})
        assert records[-1].pop("seconds") >= 0
    assert records[0] == records[1]
    assert sorted(found[0]) == ["box/b", "box/in/a.txt", "digits.npy", "waves.npy"]
    assert {name: data for name, (data, _) in found[0].items()} == {name: data for name, (data, _) in found[1].items()}
    assert found[0]["box/b"] == found[1]["box/b"]
    assert all(found[1][path.name][0] == path.read_bytes() for path in sources[1:])


@pytest.mark.usefixtures("no_released")
def test_refusals(refused: Callable[..., str], tmp_path: Path) -> None:
    archive = goldens.with_note("two-valued-v1", tmp_path / "golden.vdz")
    plain = ("-o", tmp_path / "new", "--engine", "numpy")
    model = ("-m", goldens.model("two-valued-v1"))
    assert "made with model" in refused(MODEL, "decompress", archive, *plain, "-m", goldens.model("grey-v1"))
    assert "nor a released one" in refused(MODEL, "decompress", archive, *plain)
    assert "cannot be read" in refused(USAGE, "decompress", tmp_path / "gone.vdz", *plain)
    assert "--threads" in refused(USAGE, "decompress", archive, *plain, *model, "--threads", "2")
    assert "meta" in refused(DAMAGED, "decompress", goldens.archive("two-valued-v1"), *plain, *model)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "golden.npz").write_bytes(b"mine")
    there = ("-o", tmp_path / "old", "--engine", "numpy", *model)
    assert "exists" in refused(USAGE, "decompress", archive, *there)
    whole = archive.read_bytes()
    for at in (0, 8, 30, len(whole) - 60, len(whole) - 1):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        assert "golden.vdz" in refused(DAMAGED, "decompress", archive, *there, "-f")


@pytest.mark.parametrize(
    "change",
    [
        {"meta": {"name": "../x.npy"}},
        {"meta": {"name": "/x.npy"}},
        {"meta": {"kind": "pickle"}},
        {"entry": {"shape": [4, 4]}},
        {"entry": {"shape": [4, -3]}},
        {"entry": {"dtype": "|O"}},
        {"entry": {"dtype": "u1"}},
        {"entry": {"dtype": [["a", "|u1"]]}},
        {"entry": {"blocks": 2}},
        {"entry": {"layout": "NHW"}},
        {"entry": {"layout": "NT"}},
        {"sha256": "00"},
        {"blocks": [(0, 3, bytes(9))]},
        {"blocks": [(0, 4, bytes(11))]},
        {"blocks": [(3, 4, bytes(12))]},
        {"blocks": [(16, 4, bytes(12))]},
        {"blocks": [(22, 4, bytes(12))]},
        {"blocks": [(1, 4, b"\x03\x00")]},
        {"blocks": [(2, 4, b"\x00")]},
        {"model": {"sha256": 1, "name": "x"}},
        {"model": {"sha256": "1", "name": "x", "particles": 0}},
    ],
    ids=str,
)
def test_archives_that_make_no_sense(
    change: dict[str, Any], hostile: Callable[..., Path], refused: Callable[..., str]
) -> None:
    path = hostile(**change)
    refused(DAMAGED, "decompress", path, "-o", path.parent, "--engine", "numpy")


def test_fallback_blocks(
    hostile: Callable[..., Path], done: Callable[..., dict[str, Any]], refused: Callable[..., str]
) -> None:
    raw, filters = bytes(range(12)), [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 24}]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    coded = [raw, deflater.compress(raw) + deflater.flush(), lzma.compress(raw, lzma.FORMAT_RAW, filters=filters)]
    for coder, payload in enumerate(coded):
        path = hostile(blocks=[(coder, 4, payload)])
        out = path.parent / "out"
        done("decompress", path, "-o", out, "-f", "--engine", "numpy")
        assert np.load(out / "x.npy").tobytes() == raw
        for bad in (payload + b"\0", payload[:-1], b""):
            refused(DAMAGED, "decompress", hostile(blocks=[(coder, 4, bad)]), "-o", out, "-f", "--engine", "numpy")
