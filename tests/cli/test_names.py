"""Names of files that are odd: in archives, in rows, in records, in what is said."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rejections import NO_TRAINING, USAGE, Done

from vaedensity.data import tree_write
from vaedensity.data.tree_names import escaped, fits_system, unescaped

pytestmark = [
    pytest.mark.usefixtures("no_released"),
    pytest.mark.skipif(os.name == "nt", reason="names that Windows cannot hold"),
]
NOT_UTF8 = os.fsdecode(b"caf\xe9")
NAMES = ["a:b", "a\\b", "c:x", "\\\\host\\a", NOT_UTF8, "new\nline", "\x1b[2Jx", "-rf", " ", "CON", "x.", "\u202ex",
         "n" * 251, "\u00e9" * 125, "caf\\xe9", "..."]  # fmt: skip


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize("kind", ["", ".npy", ".npz"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_comes_back(name: str, kind: str, engine: str, tmp_path: Path, done: Done) -> None:
    path = tmp_path / (name + kind)
    if kind == ".npz":
        np.savez(path, x=np.arange(5))
    elif kind:
        np.save(path, np.arange(5))
    else:
        path.write_bytes(b"text")
    record = done("compress", path, "-o", tmp_path / "a.vdz")
    assert record["items"]
    done("list", tmp_path / "a.vdz")
    assert invoke("list", tmp_path / "a.vdz").exit_code == invoke("info", tmp_path / "a.vdz").exit_code == 0
    record = done("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out", "--engine", engine)
    (restored,) = record["restored"]
    restored.encode()
    assert unescaped(restored) == str(tmp_path / "out" / path.name)
    assert os.listdir(tmp_path / "out") == [path.name]
    if not kind:
        assert (tmp_path / "out" / path.name).read_bytes() == b"text"


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_and_what_is_in_it_may_have_any_name(name: str, tmp_path: Path, done: Done) -> None:
    (tmp_path / name / name).mkdir(parents=True)
    (tmp_path / name / name / name).write_bytes(b"x")
    done("compress", tmp_path / name, "-o", tmp_path / "a.vdz")
    result = invoke("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out")
    assert result.exit_code == 0 and "\n\n" not in result.stdout and "\x1b" not in result.stdout
    result.stdout.encode()
    assert (tmp_path / "out" / name / name / name).read_bytes() == b"x"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_are_utf8_and_tell_names_apart(
    kind: str, model: Path, tmp_path: Path, digits: np.ndarray, done: Done
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    names = sorted(f"x{name}.png" for name in NAMES if len(os.fsencode(name)) < 250)
    for name, digit in zip(names, digits):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(digit).save(tmp_path / "p" / name, "PNG")
    out = tmp_path / f"rows.{kind}"
    done("score", model, tmp_path / "p", "-k", "1", "-o", out)
    if kind == "csv":
        with open(out, encoding="utf-8", newline="") as f:
            found = [row["name"] for row in csv.DictReader(f)]
    elif kind == "jsonl":
        found = [json.loads(line)["name"] for line in out.read_text("utf-8").splitlines()]
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(out)["name"].to_pylist()
    for name in found:
        name.encode()
    assert len(found) == len(names) and {unescaped(name) for name in found} == set(names)
    assert r"xcaf\xe9.png" in found and r"xcaf\\xe9.png" in found and "xa\\b.png" in found


def test_records_and_messages_are_utf8(model: Path, few: Path, tmp_path: Path) -> None:
    odd = tmp_path / f"{NOT_UTF8}.safetensors"
    shutil.copy(model, odd)
    out = tmp_path / NOT_UTF8
    for line in (
        ("compress", few, "-o", tmp_path / "a.vdz", "-m", odd),
        ("decompress", tmp_path / "a.vdz", "-o", out, "-m", odd),
        ("fit", few, "-o", tmp_path / f"new-{NOT_UTF8}.safetensors", *NO_TRAINING),
        ("compress", few, "-o", tmp_path / "b.vdz", "-m", tmp_path / f"new-{NOT_UTF8}.safetensors", "--embed-model"),
        ("decompress", tmp_path / "b.vdz", "-o", tmp_path / "new"),
        ("info", odd),
        ("list", tmp_path / "a.vdz"),
    ):
        result = invoke(*line, "--json")
        assert result.exit_code == 0, (line, result.output)
        result.stdout_bytes.decode("utf-8")
        json.dumps(json.loads(result.stdout), ensure_ascii=False).encode("utf-8")
        result.stderr_bytes.decode("utf-8")
    result = invoke("decompress", tmp_path / "a.vdz", "-o", out, "-m", odd)
    assert result.exit_code == USAGE
    result.stderr_bytes.decode("utf-8")


def test_names_that_this_system_cannot_hold_are_rejected_when_they_are_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Done
) -> None:
    (tmp_path / "a:b").write_bytes(b"x")
    done("compress", tmp_path / "a:b", "-o", tmp_path / "a.vdz")
    monkeypatch.setattr(tree_write, "fits_system", lambda name: fits_system(name, windows=True))
    done("test", tmp_path / "a.vdz")
    result = invoke("decompress", tmp_path / "a.vdz", "-o", tmp_path / "out")
    assert result.exit_code == USAGE and "a:b, which this system cannot hold" in result.stderr
    assert not (tmp_path / "out").exists()


@given(st.binary(max_size=20) | st.text("\\x89aefé", max_size=12).map(str.encode))
def test_escapes_are_undone(data: bytes) -> None:
    name = data.decode("utf-8", "surrogateescape")
    assert unescaped(escaped(name)) == name
    escaped(name).encode("utf-8")


@given(st.lists(st.binary(max_size=6), max_size=6))
def test_escaped_names_differ(names: list[bytes]) -> None:
    assert len({escaped(name.decode("utf-8", "surrogateescape")) for name in names}) == len(set(names))
