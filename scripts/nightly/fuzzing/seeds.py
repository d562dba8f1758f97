"""Where the fuzzer begins: goldens, and small archives of every kind there is."""

import struct
import tempfile
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from scripts.nightly import GOLDEN
from scripts.nightly.fuzzing.parts import Part, take_apart
from scripts.nightly.fuzzing.tiny import (
    COLOURS,
    IMAGES,
    SERIES,
    TWO,
    model_bytes,
    packed,
    pictures,
    series,
    tree_arrays,
    tree_meta,
)
from vaedensity.archive import fallback
from vaedensity.archive.block import Codec, Kind
from vaedensity.archive.repair import repair

LARGEST = 6000  # bytes of a seed: larger ones are slow


def mixed() -> dict[str, np.ndarray]:
    """Arrays of many types and shapes, some empty."""
    return {
        "a": np.arange(7, dtype="<i2"),
        "b": np.zeros((0, 3), ">f8"),
        "scalar": np.array(2.5),
        "text": np.array(["ein", "zwei"]),
        "flags": np.array([[True, False]]),
        "when": np.array(["2020-01-01"], "M8[s]"),
        "nothing": np.zeros(3, "V0"),
        "complex": np.array([1j, 2], "<c16"),
    }


def with_codecs() -> bytes:
    """An array in four blocks of the four fallback codecs."""
    whole = np.arange(40, dtype="<u4")
    parts = take_apart(packed({"x": whole}))
    parts.parts = []
    for codec, packing in enumerate(
        (bytes, fallback.deflate, fallback._lzma, lambda raw: fallback._lzma(fallback.to_planes(raw, 4)))
    ):
        raw = whole[10 * codec : 10 * codec + 10].tobytes()
        parts.parts.append(Part(0, 10 * codec, 10, codec, packing(raw), zlib.crc32(raw)))
    return parts.together()


def archives() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of archives of every kind of restore metadata, of blocks, and repaired."""
    bytes_ = {"bytes": np.frombuffer(b"some bytes of files", np.uint8)}
    images = {"images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)}
    tree = {
        "kind": "tree",
        "name": "t",
        "entries": [],
        "types": "",
        "bytes": [],
        "images": [],
        "sizes": [],
        "links": [],
    }
    one_file = tree_meta(entries=["a"], types="f", images=[], extras=[], links=[], rights=[448, 511], times=[0, 0])
    plain: dict[str, tuple[dict[str, np.ndarray], list[dict[str, Any]]]] = {
        "npy": ({"x": np.arange(12).reshape(4, 3)}, [{"kind": "npy", "name": "x.npy"}]),
        "npz": (mixed(), []),
        "file": (bytes_, [{"kind": "file", "name": "f"}]),
        "tree": (tree_arrays(), [tree_meta()]),
        "tree-bytes": ({"pool": tree_arrays()["pool"][:5]}, [one_file]),
        "tree-none": ({}, [tree]),
        "nothing": ({}, [{"kind": "npz", "name": "x"}]),
        "empty": ({"x": np.zeros(0, "u1")}, [{"kind": "npy", "name": "x.npy"}]),
        "two": (
            images | bytes_,
            [
                {"kind": "npy", "name": "p.npy", "arrays": {"images": "images"}},
                {"kind": "file", "name": "f", "arrays": {"bytes": "bytes"}},
            ],
        ),
    }
    made = {name: packed(arrays, *metas) for name, (arrays, metas) in plain.items()}
    made["codecs"] = with_codecs()
    yield from made.items()
    yield from with_models()
    for name in ("codecs", "npz", "two", "file", "tree"):
        if (data := repaired(made[name])) is not None:
            yield f"{name}-repaired", data


def with_models() -> Iterator[tuple[str, bytes]]:
    """Archives of blocks that a model codes, which is inside."""
    for name, config in (("images", IMAGES), ("colours", COLOURS)):
        model = model_bytes(config)
        for coupled, ends_first in product((False, True), repeat=2):
            arrays = {"x": pictures(config, 5), "n": np.arange(3)}
            codec = Codec(Kind.MODEL, coupled, ends_first)
            yield f"{name}-{codec.byte}", packed(arrays, model=model, codec=codec, particles=1 + coupled)
    two = pictures(IMAGES, 5) % 2 * np.uint8(255)
    yield "two-valued", packed({"x": two}, model=model_bytes(TWO, [0, 255]))
    yield "series", packed({"x": series(SERIES, 5)}, model=model_bytes(SERIES))


def repaired(data: bytes) -> bytes | None:
    """An archive a block of which was lost, repaired."""
    parts = take_apart(data)
    if not parts.parts:
        return None
    parts.parts[0].said["checksum"] = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.vdz")
        path.write_bytes(parts.together())
        repair(path, Path(folder, "y.vdz"))
        return Path(folder, "y.vdz").read_bytes()


def models() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of model files."""
    for name, config, values in (("images", IMAGES, None), ("colours", COLOURS, None), ("two", TWO, [0, 255])):
        yield name, model_bytes(config, values)
    yield "floats", model_bytes(IMAGES, slim=False)
    yield "series", model_bytes(SERIES)


def restorable(data: bytes) -> bytes:
    """An archive that restores nothing, as goldens do, made to restore all its arrays; others as they are."""
    try:
        parts = take_apart(data)
        record = parts.record
        if record["restore"] != []:
            return data
        own = {entry["name"]: entry["name"] for entry in record["arrays"] if entry["name"] != inside(record)}
        return parts.with_record(record | {"restore": [{"kind": "npz", "name": "all.npz", "arrays": own}]}).together()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error, zlib.error):
        return data


def inside(record: Any) -> Any:
    """The name of the array that holds the model, if one does."""
    return (record.get("model") or {}).get("array")


def write_seeds(folder: Path, corpus: Path) -> None:
    """All seeds as files."""
    folder.mkdir(parents=True)
    for name, data in archives():
        (folder / f"made-{name}.vdz").write_bytes(data)
    for name, data in models():
        (folder / f"made-{name}.safetensors").write_bytes(data)
    for path in [*sorted(GOLDEN.glob("*.vdz")), *(sorted(corpus.iterdir()) if corpus.is_dir() else [])]:
        if path.suffix in (".vdz", ".safetensors") and path.stat().st_size <= LARGEST:
            (folder / path.name).write_bytes(restorable(path.read_bytes()))
    smallest = min(GOLDEN.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    (folder / smallest.name).write_bytes(smallest.read_bytes())
