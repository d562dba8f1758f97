"""What an archive may claim: limits of its record before anything is made of it, of its output and of memory."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engines
import framed
import goldens
import numpy as np
import pytest

from vaedensity.archive.reader import Archive
from vaedensity.errors import DamagedArchive
from vaedensity.numpy_decoder import record
from vaedensity.numpy_decoder.container import Directory

USAGE, FAILURE = 2, 1
ARRAYS = {"x": np.arange(12, dtype=np.uint8)}
PARTS = framed.cut(0, ARRAYS["x"], (0, 4), (0, 8))


def written(text: Any, parts: list[framed.Part] = PARTS) -> bytes:
    return framed.written(text, parts, framed.digest(ARRAYS))


def described(**changes: Any) -> dict[str, Any]:
    text = framed.record(ARRAYS)
    text["arrays"][0] |= changes
    return text


def refusal(data: bytes, folder: Path) -> str:
    """What this reader says of ``data``, which both must refuse."""
    (folder / "x.vdz").write_bytes(data)
    with pytest.raises(DamagedArchive):
        Archive(folder / "x.vdz")
    with pytest.raises(DamagedArchive) as caught:
        Directory(io.BytesIO(data), Path("x.vdz"))
    line = str(caught.value)
    assert line.startswith("x.vdz: the opening or the closing makes no sense (") and "\n" not in line
    return line


def accepted(data: bytes, folder: Path) -> Directory:
    (folder / "x.vdz").write_bytes(data)
    with Archive(folder / "x.vdz"):
        return Directory(io.BytesIO(data), folder / "x.vdz")


def nested(levels: int, kind: type) -> Any:
    part: Any = kind()
    for _ in range(levels - 1):
        part = [part] if kind is list else {"a": part}
    return part


class TestRecord:
    @pytest.mark.parametrize("kind", [list, dict])
    def test_depth(self, kind: type, tmp_path: Path) -> None:
        assert accepted(written(described() | {"more": nested(31, kind)}), tmp_path).arrays
        for levels in (32, 33, 500):
            line = refusal(written(described() | {"more": nested(levels, kind)}), tmp_path)
            assert "more than 32 lists and objects of the record lie in each other" in line

    def test_depth_beyond_the_parser(self, tmp_path: Path) -> None:
        text = json.dumps(described()).encode()
        deep = text[:-1] + b', "more": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        assert "more than 32 lists and objects" in refusal(written(deep), tmp_path)

    def test_many_shallow_parts_are_walked(self, tmp_path: Path) -> None:
        more = [[{"a": []}, {}] for _ in range(1000)]
        assert accepted(written(described() | {"more": more}), tmp_path).arrays

    def test_brackets(self, tmp_path: Path) -> None:
        text = json.dumps(described()).encode()
        own = text.count(b"[") + text.count(b"{")
        for count, told in ((1 << 24, None), ((1 << 24) + 1, "16777217 brackets, expected at most 16777216")):
            # within a text they are counted too, and take no memory
            data = written(
                text[:-1] + b', "more": "' + b"[{" * ((count - own) // 2) + b"[" * ((count - own) % 2) + b'"}'
            )
            if told is None:
                assert accepted(data, tmp_path).arrays
            else:
                assert told in refusal(data, tmp_path)

    def test_arrays(self, tmp_path: Path) -> None:
        text = json.dumps(described() | {"arrays": [{}] * ((1 << 20) + 1)}).encode()
        assert "1048577 arrays, expected at most 1048576" in refusal(written(text), tmp_path)


class TestArray:
    @pytest.mark.parametrize(
        "dtype",
        ["u1", "uint8", "|O", "i4,i4", "(2,)u1", "<f3", "=u2", "|u1 ", "<U" + "9" * 13, "<U999999999999", "<i\u0664",
         "<M8[", "<M8[generic]", "<M7[s]", "|b1[s]", "<M8[99999999999s]", "", None, 1, ["|u1"], [["a", "|u1"]], {"a": 1}],
    )  # fmt: skip
    def test_types_that_are_not_plain(self, dtype: Any, tmp_path: Path) -> None:
        assert "array x: dtype " in refusal(written(described(dtype=dtype)), tmp_path)

    def test_numpy_sees_only_what_a_pattern_lets_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []

        class Watched:
            dtype = staticmethod(lambda text: seen.append(text) or np.dtype(text))

        monkeypatch.setattr(record, "np", Watched)
        for dtype in ("|u1", "i4,i4", "(9,9)u1", "{'names': []}", "<U" + "1" * 4000, "<f3", ["|u1"]):
            try:
                record.Entry({"name": "x", "dtype": dtype, "shape": [1]}, 5)
            except ValueError:
                continue
        assert seen == ["|u1", "<f3"]

    @pytest.mark.parametrize("dtype", ["|V0", "|S0", "<U0"])
    def test_elements_of_no_bytes_count_as_one(self, dtype: str, tmp_path: Path) -> None:
        for shape in ([1 << 60], [1 << 20, 1 << 20, 1 << 20], [0, 1 << 50]):
            line = refusal(written(described(dtype=dtype, shape=shape), []), tmp_path)
            assert f"shape {shape} is beyond the limit of 281474976710656 bytes" in line
        directory = accepted(written(described(dtype=dtype, shape=[3, 2]), []), tmp_path)
        assert (directory.arrays[0].nbytes, directory.arrays[0].rows) == (0, 3)
        line = refusal(written(described(dtype=dtype, shape=[12])), tmp_path)
        assert "array x: its blocks do not add up to its items" in line

    @pytest.mark.parametrize("dtype", ["|V0", "|S0", "<U0", ">M8[s]", "|V3", "<m8"])
    def test_types_that_numpy_changes_come_back(self, dtype: str, tmp_path: Path) -> None:
        x = np.ndarray((3, 2), dtype)
        if x.nbytes:
            x.view(np.uint8)[...] = 0
        parts = framed.cut(0, x, (0, 3)) if x.nbytes else []
        path = engines.save(
            tmp_path / "a.vdz", {"x": x}, parts, [{"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}}]
        )
        found = engines.by_both(path, tmp_path / "out")
        assert found.status == 0 and np.load(tmp_path / "out" / "x.npy").dtype.itemsize == x.dtype.itemsize

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"shape": [1] * 9}, "array x: 9 axes, expected at most 8"),
            ({"shape": [1 << 40] * 200_000}, "array x: 200000 axes"),
            ({"shape": [4, 1 << 60]}, "beyond the limit of 281474976710656 bytes"),
            ({"shape": "12"}, "other than a name and whole numbers"),
            ({"shape": {"12": 12}}, "other than a name and whole numbers"),
            ({"shape": None}, "other than a name and whole numbers"),
            ({"shape": [True]}, "other than a name and whole numbers"),
            ({"name": None}, "other than a name and whole numbers"),
        ],
    )  # fmt: skip
    def test_shapes_and_names(self, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
        assert told in refusal(written(described(**changes)), tmp_path)

    def test_an_array_that_is_no_object(self, tmp_path: Path) -> None:
        for entry in (5, "x", ["x"], None):
            line = refusal(written(described() | {"arrays": [entry]}), tmp_path)
            assert "an array is not described by an object" in line


class TestCost:
    """Options of the command; the numpy engine keeps what it decodes in memory."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        meta = {"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}}
        return engines.save(tmp_path / "a.vdz", ARRAYS, PARTS, [meta])

    def test_output(self, path: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
        lines = [
            refused(USAGE, "decompress", path, "-o", tmp_path / "out", "--engine", engine, "--max-output", 11)
            for engine in ("torch", "numpy")
        ]
        assert lines[0] == lines[1] and "pass --max-output 12" in lines[0] and f"vaedensity: {path}: " in lines[0]
        assert engines.by_both(path, tmp_path / "out", "--max-output", 12).status == 0

    def test_usual_output(
        self, path: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vaedensity.archive.limits.FREE_OUTPUT", 11)
        monkeypatch.setattr("vaedensity.archive.limits.USUAL_RATIO", 0)
        line = refused(USAGE, "decompress", path, "-o", tmp_path / "out", "--engine", "numpy")
        assert "would become 12, the limit is 11" in line

    def test_memory(self, path: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
        """Of the largest block three times, and here of the arrays too."""
        for engine, needed in (("torch", 3 * 8), ("numpy", 3 * 8 + 12)):
            options = ("-o", tmp_path / "out", "-f", "--engine", engine, "--memory")
            line = refused(USAGE, "decompress", path, *options, needed - 1)
            assert f"decoding takes {needed} bytes of memory, the limit is {needed - 1}" in line
            assert line.endswith(f"pass --memory {needed}")
            assert engines.by(engine, path, tmp_path / "new", "--memory", needed).status == 0

    def test_memory_of_some_items(self, path: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
        for engine in ("torch", "numpy"):
            options = ("-o", tmp_path / "out", "--item", 1, "--engine", engine, "--memory", 23)
            assert "decoding takes 24 bytes" in refused(USAGE, "decompress", path, *options)
        assert engines.by_both(path, tmp_path / "out", "--item", 1, "--memory", 24).status == 0

    def test_room_on_the_disk(
        self, path: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 11})())
        line = refused(FAILURE, "decompress", path, "-o", tmp_path / "out", "--engine", "numpy")
        assert "11 bytes are free" in line and "needs 12; make room" in line

    def test_nothing_is_decoded_before(
        self, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = goldens.with_note("two-valued-v1", tmp_path / "a.vdz")
        for name in ("find_model", "read"):
            monkeypatch.setattr(f"vaedensity.numpy_decoder.archive.{name}", lambda *_, **__: pytest.fail("too early"))
        line = refused(USAGE, "decompress", path, "-o", tmp_path / "out", "--engine", "numpy", "--max-output", 1)
        assert "--max-output 2560" in line
