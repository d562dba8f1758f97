"""data/: arrays in .npy and .npz files; a file that holds more than arrays goes byte for byte, or is rejected."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaedensity.data.array_files import load_npy, load_npz, save_npz
from vaedensity.data.collection import Collection
from vaedensity.data.load import load, load_array, main_array
from vaedensity.data.restore_metadata import safe_name
from vaedensity.errors import UsageError

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
X, Y = np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.arange(4.0)


def npy(*arrays: np.ndarray) -> bytes:
    f = io.BytesIO()
    for array in arrays:
        np.save(f, array)
    return f.getvalue()


def npz(*members: tuple[str, bytes], **attributes: bytes) -> bytes:
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            z.writestr(zipfile.ZipInfo(name), data)
        z.comment = attributes.get("comment", b"")
    return f.getvalue()


def remarked() -> bytes:
    """A member with a comment of its own."""
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as z:
        member = zipfile.ZipInfo("x.npy")
        member.comment = b"see the notes"
        z.writestr(member, npy(X))
    return f.getvalue()


def forgotten() -> bytes:
    """A member that the directory no longer lists, as programs leave it that delete one."""
    whole, other = npz(("x.npy", npy(X)), ("y.npy", npy(Y))), npz(("x.npy", npy(X)))
    with zipfile.ZipFile(io.BytesIO(whole)) as z, zipfile.ZipFile(io.BytesIO(other)) as alone:
        members, directory = whole[: z.start_dir], bytearray(other[alone.start_dir :])
    directory[-6:-2] = len(members).to_bytes(4, "little")  # where the directory begins
    return members + bytes(directory)


def piped() -> bytes:
    """As written to a pipe: sizes follow the members."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    f = Pipe()
    with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in (("x.npy", npy(X)), ("y.npy", npy(Y))):
            z.writestr(name, data)
    return f.getvalue()


def saved(save: Callable[..., None]) -> bytes:
    f = io.BytesIO()
    save(f, x=X, y=Y)
    return f.getvalue()


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
    assert safe_name(found.meta["name"]).parts == (found.meta["name"],)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.npy", b""),
        ("random.npy", bytes(range(200))),
        ("cut.npy", npy(GREY)[:100]),
        ("short.npy", npy(GREY)[:-1]),
        ("header.npy", npy(GREY)[:40] + b"'" + npy(GREY)[41:]),
        ("huge.npy", npy(GREY).replace(b"(6, 5, 7)", b"(9" + b"9" * 30 + b",)")),
        ("zip.npy", npz(("x", npy(GREY)))),
        ("empty.npz", b""),
        ("single.npz", npy(GREY)),
        ("random.npz", bytes(range(200))),
        ("nothing.npz", npz()),
        ("cut.npz", npz(("x.npy", npy(GREY)[:-9]))),
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
        return str(main_array(Collection("f.npz", arrays, {})))

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


REMARK = npy(X).replace(b", }  ", b", }#h", 1)
MORE = {
    "three arrays": ("a.npy", npy(X, X, Y)),
    "bytes after the array": ("a.npy", npy(X) + b"\0"),
    "a file after the array": ("a.npy", npy(X) + b"notes of the experiment\n"),
    "an array after an empty one": ("a.npy", npy(np.zeros((0, 3)), X)),
    "a remark in the header": ("a.npy", REMARK),
    "records": ("a.npy", npy(np.zeros(3, [("a", "u1"), ("b", "f4")]))),
    "nine axes": ("a.npy", npy(np.zeros((1,) * 9))),
    "one name twice": ("a.npz", npz(("x.npy", npy(X)), ("x.npy", npy(Y)))),
    "names that become one": ("a.npz", npz(("x", npy(X)), ("x.npy", npy(Y)))),
    "a text among arrays": ("a.npz", npz(("x.npy", npy(X)), ("readme.txt", b"hello"))),
    "an array without the suffix": ("a.npz", npz(("x", npy(X)))),
    "a folder": ("a.npz", npz(("d/", b""), ("x.npy", npy(X)))),
    "three arrays in a member": ("a.npz", npz(("x.npy", npy(X, Y, X)))),
    "bytes after a member's array": ("a.npz", npz(("x.npy", npy(X) + b"\1"))),
    "a comment": ("a.npz", npz(("x.npy", npy(X)), comment=b"made on Monday")),
    "a member's comment": ("a.npz", remarked()),
    "bytes before": ("a.npz", b"#!/bin/sh\n" + npz(("x.npy", npy(X)))),
    "bytes after": ("a.npz", npz(("x.npy", npy(X))) + b"more"),
    "two files": ("a.npz", npz(("x.npy", npy(X))) + npz(("y.npy", npy(Y)))),
    "a member not listed": ("a.npz", forgotten()),
}
ALONE = {
    "npy": ("a.npy", npy(X)),
    "fortran": ("a.npy", npy(np.asfortranarray(np.ones((3, 4))))),
    "no axes": ("a.npy", npy(np.array(3.5))),
    "no items": ("a.npy", npy(np.zeros((0, 4)))),
    "eight axes": ("a.npy", npy(np.zeros((1,) * 8))),
    "savez": ("a.npz", saved(np.savez)),
    "savez_compressed": ("a.npz", saved(np.savez_compressed)),
    "piped": ("a.npz", piped()),
}


@pytest.mark.parametrize("name", MORE)
def test_array_files_that_hold_more_are_kept_byte_for_byte_and_not_fitted(tmp_path: Path, name: str) -> None:
    file, data = MORE[name]
    (tmp_path / file).write_bytes(data)
    kept = load(str(tmp_path / file))
    assert kept.meta == {"kind": "file", "name": file} and np.asarray(kept.arrays["bytes"]).tobytes() == data
    assert file in kept.remark and kept.remark.endswith("; kept byte for byte")
    with pytest.raises(UsageError, match=file):
        load_array(str(tmp_path / file))


@pytest.mark.parametrize("name", ALONE)
def test_array_files_that_hold_nothing_else_are_arrays(tmp_path: Path, name: str) -> None:
    file, data = ALONE[name]
    (tmp_path / file).write_bytes(data)
    found = load(str(tmp_path / file))
    assert found.meta["kind"] == file[-3:] and not found.remark


def test_one_member_is_read_where_others_are_odd_and_refused_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(
        npz(("x.npy", npy(X)), ("y.npy", npy(Y)), ("y.npy", npy(Y)), ("z.npy", npy(Y, Y)), ("t.txt", b"hi"))
    )
    assert np.array_equal(load(f"{path}:x").arrays["x"], X)
    for member, word in (("y", "2 times"), ("z", "more bytes"), ("t.txt", "0 times")):
        for read in (load, load_array):
            with pytest.raises(UsageError, match=word):
                read(f"{path}:{member}")


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.lists(st.sampled_from([X, Y, np.zeros(0), np.array(7)]), min_size=1, max_size=4),
    names=st.lists(st.sampled_from(["a.npy", "b.npy", "b", "b.txt", "c/", "\u00fc.npy"]), min_size=1, max_size=4),
    before=st.binary(max_size=3),
    after=st.binary(max_size=3),
    comment=st.binary(max_size=3),
)
def test_whatever_a_zip_file_holds_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    arrays: list[np.ndarray],
    names: list[str],
    before: bytes,
    after: bytes,
    comment: bytes,
) -> None:
    path = tmp_path_factory.mktemp("zip") / "a.npz"
    path.write_bytes(before + npz(*((name, npy(*arrays)) for name in names), comment=comment) + after)
    found = load(str(path))
    if found.meta["kind"] == "file":
        assert np.asarray(found.arrays["bytes"]).tobytes() == path.read_bytes()
    else:
        assert len(arrays) == 1 and len(set(names)) == len(names) and not before + after + comment
        assert [f"{name}.npy" for name in found.arrays] == names
        assert all(np.array_equal(array, arrays[0]) for array in found.arrays.values())
