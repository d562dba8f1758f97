"""Archives that say of their arrays what cannot become files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from scripts.nightly.bad.case import DAMAGED, USAGE, Case
from scripts.nightly.fuzzing.parts import Parts, take_apart
from scripts.nightly.fuzzing.tiny import packed, png_comment, tree_arrays, tree_meta

BYTES = {"x": np.arange(12, dtype=np.uint8)}
ESCAPES = {
    "up": "../x",
    "root": "/tmp/x",
    "up-inside": "a/../../x",
    "dots": "..",
    "dot": ".",
    "empty": "",
    "nul": "x\0y",
    "surrogate": "\ud800",
    "long": "a/" * 20_000,
}
"""Names that leave the folder or can be none."""


def noted(arrays: dict[str, np.ndarray], *metas: Any) -> bytes:
    """An archive of ``arrays`` with these restore metadata, whatever they are."""
    parts: Parts = take_apart(packed(arrays))
    return parts.with_record(parts.record | {"restore": list(metas)}).together()


def meta(**changes: Any) -> dict[str, Any]:
    """The metadata of an array x of the file x.npy, changed."""
    return {"kind": "npy", "name": "x.npy", "arrays": {"x": "x"}} | changes


METAS: dict[str, dict[str, Any]] = {
    "kind-unknown": {"kind": "tar"},
    "kind-missing": {"kind": None},
    "npy-of-two": {"arrays": {"x": "x", "y": "y"}},
    "array-not-there": {"arrays": {"y": "y"}},
    "array-left-out": {"kind": "npz", "arrays": {}},
    "original-name-with-nul": {"kind": "npz", "arrays": {"x": "a\0b"}},
    "file-of-none": {"kind": "file", "arrays": {}},
}


def metas() -> Iterator[Case]:
    """Of arrays and files."""
    for name, change in METAS.items():
        yield Case(f"meta-{name}", DAMAGED, noted(BYTES, meta(**change)))
    yield Case(
        "meta-original-names-twice",
        DAMAGED,
        noted(BYTES | {"y": np.ones(2)}, meta(kind="npz", arrays={"x": "a", "y": "a"})),
    )
    yield Case("meta-names-twice", DAMAGED, noted(BYTES | {"y": np.ones(2)}, meta(), meta(arrays={"y": "y"})))
    yield Case(
        "meta-names-inside",
        DAMAGED,
        noted(BYTES | {"y": np.ones(2)}, meta(name="a"), meta(name="a/b", arrays={"y": "y"})),
    )
    yield Case("meta-of-nothing", DAMAGED, noted(BYTES))
    for name, value in ESCAPES.items():
        yield Case(f"name-{name}", DAMAGED, noted(BYTES, meta(name=value)))
    yield Case("file-of-numbers", DAMAGED, noted({"x": np.ones(2)}, meta(kind="file", name="f")))


TREES: dict[str, dict[str, Any]] = {
    "types-missing": {"types": "fdii"},
    "types-unknown": {"types": "fdiix"},
    "entries-no-list": {"entries": "abcde"},
    "entry-twice": {"entries": ["a.txt", "b", "b/c.png", "b/d.bmp", "a.txt"]},
    "entry-in-no-folder": {"entries": ["a.txt", "b", "b/c.png", "b/d.bmp", "z/l"]},
    "entry-in-a-file": {"entries": ["a.txt", "b", "b/c.png", "b/d.bmp", "a.txt/l"]},
    "entry-in-a-link": {"entries": ["a.txt", "b", "b/l", "b/c.png", "b/l/d.bmp"], "types": "fdlii"},
    "entry-up": {"entries": ["..", "b", "b/c.png", "b/d.bmp", "b/l"]},
    "entry-up-inside": {"entries": ["a.txt", "b", "b/c.png", "b/d.bmp", "b/.."]},
    "entry-dot": {"entries": ["a.txt", "b", "b/c.png", "b/d.bmp", "b/."]},
    "entry-empty": {"entries": ["", "b", "b/c.png", "b/d.bmp", "b/l"]},
    "entry-root": {"entries": ["/a.txt", "b", "b/c.png", "b/d.bmp", "b/l"]},
    "entry-nul": {"entries": ["a\0", "b", "b/c.png", "b/d.bmp", "b/l"]},
    "entry-surrogate": {"entries": ["a\ud800", "b", "b/c.png", "b/d.bmp", "b/l"]},
    "entry-long": {"entries": ["a" * 40_000, "b", "b/c.png", "b/d.bmp", "b/l"]},
    "entry-number": {"entries": [1, "b", "b/c.png", "b/d.bmp", "b/l"]},
    "image-of-no-format": {"entries": ["a.txt", "b", "b/c.gif", "b/d.bmp", "b/l"]},
    "image-webp-of-grey": {"entries": ["a.txt", "b", "b/c.webp", "b/d.bmp", "b/l"], "extras": [0, 0], "sizes": [28]},
    "links-missing": {"links": []},
    "link-empty": {"links": [""]},
    "link-nul": {"links": ["a\0"]},
    "sizes-missing": {"sizes": []},
    "size-negative": {"sizes": [-5]},
    "size-too-large": {"sizes": [2**63]},
    "sizes-of-other-bytes": {"sizes": [6]},
    "groups-out-of-reach": {"groups": [0, 1]},
    "groups-of-no-array": {"images": [{"mode": "L"}]},
    "groups-of-no-mode": {"images": [{"array": "grey", "mode": "P"}]},
    "images-of-colour": {"images": [{"array": "grey", "mode": "RGB"}]},
    "images-missing": {"images": []},
    "array-twice": {"bytes": ["pool", "grey"]},
    "array-left-out": {"bytes": [], "sizes": [0], "extras": [0, 0]},
    "extras-of-a-bmp": {"extras": [0, len(png_comment())]},
    "rights-too-many": {"rights": [493] * 7},
    "rights-beyond": {"rights": [4096, 420, 493, 420, 420, 0]},
    "times-missing": {"times": [0]},
    "time-out-of-reach": {"times": [10**9 * 2**63 - 1, 1, 0, 0, 0, 0]},
}


def trees() -> Iterator[Case]:
    """Of folders of anything."""
    own = {name: name for name in tree_arrays()}
    for name, change in TREES.items():
        yield Case(f"tree-{name}", DAMAGED, noted(tree_arrays(), tree_meta(**change) | {"arrays": own}))
    damaged = tree_meta(sizes=[4], extras=[len(png_comment()) + 1, 0]) | {"arrays": own}
    yield Case("tree-extras-damaged", DAMAGED, noted(tree_arrays(), damaged), commands="test")
    for name in ("up", "root", "dots", "empty", "nul", "surrogate", "long"):
        yield Case(f"tree-name-{name}", DAMAGED, noted(tree_arrays(), tree_meta(name=ESCAPES[name]) | {"arrays": own}))
    leading = {
        "root": "/etc/passwd",
        "up": "../../x",
        "beyond-a-link": "c.png/../../../x",
        "many": "../../../../../../x",
    }
    for name, target in leading.items():
        meta = tree_meta(links=[target]) | {"arrays": own}
        yield Case(f"tree-link-{name}", USAGE, noted(tree_arrays(), meta), commands="decompress")
