"""data/: every byte of an array or image file is accounted for, or goes byte for byte, or the file is refused."""

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import COLOUR, GREY, encoded, grow, webp

from vaedensity.data import tiff
from vaedensity.data.folder import load_folder
from vaedensity.data.image_files import image_bytes, read_image
from vaedensity.data.load import load, load_array
from vaedensity.errors import UsageError

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
        member.comment = b"see the metas"
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


REMARK = npy(X).replace(b", }  ", b", }#h", 1)
MORE = {
    "three arrays": ("a.npy", npy(X, X, Y)),
    "bytes after the array": ("a.npy", npy(X) + b"\0"),
    "a file after the array": ("a.npy", npy(X) + b"metas of the experiment\n"),
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


# Images


def stack_of(first: bytes, more: bytes) -> bytes:
    """A TIFF file whose pixels are followed by those of others, of which no tag speaks, as ImageJ writes stacks."""
    assert first[:8] == b"II*\0\10\0\0\0"  # the pixels come last
    return first + more


def frames(form: str, **options: object) -> bytes:
    f, images = io.BytesIO(), [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    images[0].save(f, form, save_all=True, append_images=images[1:], **options)
    return f.getvalue()


PNM = encoded(GREY, "PPM")
SEVERAL = {
    "frames.png": frames("PNG"),
    "pages.tif": frames("TIFF"),
    "frames.webp": frames("WEBP", lossless=True),
    "two.png": encoded(GREY, "PNG") * 2,
    "after.png": encoded(GREY, "PNG") + b"\0",
    "two.pgm": PNM + PNM,
    "after.ppm": encoded(COLOUR, "PPM") + b"x",
    "two.pbm": b"P4 8 1 \xaa" * 2,
    "text.pgm": b"P2 2 1 255 7 8 9",
    "after.webp": webp(COLOUR) + b"more",
    "stack.tif": stack_of(encoded(GREY, "TIFF"), GREY.tobytes()),
    "zeros.tif": stack_of(encoded(GREY, "TIFF"), bytes(GREY.size)),
    "stack.tiff": stack_of(encoded(GREY, "TIFF"), b"\1"),
    "pictures.jpg": frames("MPO"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_image_files_that_hold_more_than_one_image_are_neither_fitted_nor_taken_for_one(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match=name):
        load_folder(grow(tmp_path / "p", {name: SEVERAL[name]}))
    suffix = Path(name).suffix
    if suffix not in (".jpg", ".pbm"):  # which are bytes in archives, always
        assert read_image(SEVERAL[name], suffix) is None


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.bmp", "a.pgm", "a.ppm", "a.tif", "a.webp", "a.jpg", "b.pgm", "a.pbm", "b.pbm", "c.tif", "d.tif"],
)
def test_image_files_of_one_image_are_read(tmp_path: Path, name: str) -> None:
    data = {
        "a.png": encoded(GREY, "PNG"),
        "a.bmp": encoded(GREY, "BMP"),
        "a.pgm": PNM,
        "a.ppm": encoded(COLOUR, "PPM"),
        "a.tif": encoded(GREY, "TIFF"),
        "a.webp": webp(COLOUR),
        "a.jpg": encoded(COLOUR, "JPEG"),
        "b.pgm": b"P2 # made by hand\n2 1 255 7 # seven\n8",
        "a.pbm": b"P4 8 1 \xaa",
        "b.pbm": b"P1\n2 2\n01 10\n",
        "c.tif": encoded(COLOUR, "TIFF", compression="tiff_lzw", tiffinfo={270: "odd"}),
        "d.tif": encoded(GREY, "TIFF") + bytes(9),  # padding
    }[name]
    found = load_folder(grow(tmp_path / "p", {name: data}))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(found.arrays["images"][0], np.asarray(image).astype(np.uint8))


def test_tiff_files_come_back_without_bytes_of_nothing() -> None:
    """So that what was restored can be taken for an image again."""
    first = read_image(encoded(GREY, "TIFF", tiffinfo={270: "what it shows"}, dpi=(300, 300)), ".tif")
    assert first is not None and first.extras
    for pixels, mode in ((GREY, "L"), (COLOUR, "RGB"), ((GREY > 99).astype(np.uint8), "1")):
        back = image_bytes(pixels, mode, ".tif", first.extras)
        assert tiff.bytes_of_nothing(back) == 0
        again = read_image(back, ".tif")
        assert again is not None and again.extras == first.extras and np.array_equal(again.pixels, pixels)


def test_compressed_pixels_with_more_behind_them_are_no_image() -> None:
    """zlib's stream in a PNG file may be followed by other bytes, within its chunk."""
    plain = encoded(GREY, "PNG")
    at = plain.index(b"IDAT")
    size = int.from_bytes(plain[at - 4 : at], "big")
    body = b"IDAT" + plain[at + 4 : at + 4 + size] + b"hidden"
    hidden = (
        plain[: at - 4]
        + struct.pack(">I", size + 6)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + plain[at + 8 + size :]
    )
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(hidden))), GREY)
    assert read_image(plain, ".png") is not None and read_image(hidden, ".png") is None
