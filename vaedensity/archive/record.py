"""The record: the JSON in an archive's header, every field of it checked (docs/format.md, "Header and record")."""

import json
import math
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vaedensity import items
from vaedensity.coding.plan import MOST_PARTICLES
from vaedensity.errors import DamagedArchive

DEFLATE_BEST = 1032  # no deflate stream is longer than this many times its input
DEEPEST = 32  # lists and objects in each other: an archive has 8
MOST_ARRAYS = 1 << 20
MOST_BRACKETS = 1 << 24  # of a record's text: each list and object takes tens of bytes of memory
MOST_BYTES = 1 << 48  # of an array
DTYPE_KINDS = "biufcSUmMV"
PLAIN_DTYPE = re.compile(r"[<>|][biufcSUmMV][0-9]{1,12}(\[[0-9]{0,10}[A-Za-z]{1,2}\])?")
MODEL_DTYPE = "<i2"
PROBE = re.compile("[0-9a-f]{16}")
FEATURES: frozenset[str] = frozenset()
"""Names that a record may require and this reader knows."""


def crc32(*parts: bytes) -> int:
    """CRC-32 of ``parts``, one after the other."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum


def inflate(packed: bytes, most: int) -> bytes:
    """What the zlib stream ``packed`` holds, at most ``most`` bytes. Raises ValueError."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(packed, min(most, DEFLATE_BEST * len(packed) + 1024))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflater.eof or inflater.unused_data:
        raise ValueError("a compressed stream does not end where its bytes end")
    return data


def parse_record(text: bytes, name: str) -> dict[str, Any]:
    """The record of the archive ``name``: a JSON object in UTF-8. Raises ValueError, or DamagedArchive where it
    requires a feature that is not known here."""
    if text.count(b"[") + text.count(b"{") > MOST_BRACKETS:
        raise ValueError("the record has too many lists and objects")
    try:
        record = json.loads(text.decode())
    except RecursionError as error:
        raise ValueError("the record is nested too deep") from error
    if not isinstance(record, dict):
        raise ValueError("the record is no object")
    _require_shallow(record)
    requires = record.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(feature, str) for feature in requires):
        raise ValueError("what it requires is no list of names")
    if unknown := sorted(set(requires) - FEATURES):
        said = ", ".join(ascii(feature[:60]) for feature in unknown[:4])
        raise DamagedArchive(f"{name}: needs {said}, which this version of vaedensity does not know; update it")
    return record


def _require_shallow(record: dict[str, Any]) -> None:
    """Raise ValueError where what follows, which walks the record by calls in each other, could run out of depth."""
    level: list[Any] = [record]
    for _ in range(DEEPEST):
        parts = (part.values() if isinstance(part, dict) else part for part in level)
        level = [value for values in parts for value in values if isinstance(value, (dict, list))]
        if not level:
            return
    raise ValueError("the record is nested too deep")


@dataclass(frozen=True)
class NamedModel:
    """What a record says of its model: SHA-256 of its integers, its name, the probe of the machine that wrote the
    archive, and how many particles coupled blocks have."""

    sha256: str
    name: str
    probe: str
    particles: int = 1


@dataclass(frozen=True)
class Record:
    """A checked record. ``restore``: how arrays become files, checked elsewhere; ``model_array``: the array that holds
    the model, if one does."""

    arrays: "list[StoredArray]"
    restore: list[Any]
    model: NamedModel | None
    model_array: "StoredArray | None"


@dataclass(eq=False)
class StoredArray:
    """One array as the record describes it. ``blocks``: the places of its own in the archive; ``item_shape``: (C,H,W)
    where it has a ``layout``."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    layout: str | None
    nbytes: int
    item_shape: tuple[int, ...] = ()
    blocks: list[int] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Items: entries along the first axis; a scalar is one."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of an item."""
        return self.nbytes // self.rows if self.rows else 0

    @staticmethod
    def parse(entry: Any) -> "StoredArray":
        """Raises ValueError."""
        if not isinstance(entry, dict):
            raise ValueError("an array is described by other than a name and whole numbers")
        name, shape, layout = entry.get("name"), entry.get("shape"), entry.get("layout")
        if (
            not isinstance(name, str)
            or not isinstance(shape, list)
            or len(shape) > items.MOST_AXES
            or any(type(n) is not int or n < 0 for n in shape)
        ):
            raise ValueError("an array is described by other than a name and whole numbers")
        dtype = _plain_dtype(name, entry.get("dtype"))
        # What takes no bytes counts as if it took one: numpy refuses such shapes too, or loops over them.
        extent = max(1, dtype.itemsize) * math.prod(max(1, n) for n in shape)
        if extent > MOST_BYTES:
            raise ValueError(f"array {name}: shape {shape} is beyond the limit of {MOST_BYTES} bytes")
        array = StoredArray(name, dtype, tuple(shape), layout, extent if all(shape) and dtype.itemsize else 0)
        if layout is not None:
            array.item_shape = _item_shape(array)
        return array


def _item_shape(array: StoredArray) -> tuple[int, ...]:
    """(C,H,W) of the items of an array with a layout. Raises ValueError."""
    one = np.broadcast_to(np.uint8(0), (1, *array.shape[1:]) if array.dtype.itemsize == 1 else (0,))
    found = items.series_layout(one) if array.layout == "NT" else items.layout_of(one)
    if array.layout not in items.LAYOUTS or found != array.layout or array.dtype.kind not in "bu":
        raise ValueError(f"array {array.name}: layout {array.layout!r:.40} does not fit")
    return tuple(items.to_items(one, array.layout).shape[1:])


def _plain_dtype(name: str, text: Any) -> np.dtype[Any]:
    """The type that ``text`` names: no fields, no objects, no way to write it but one. Raises ValueError."""
    if isinstance(text, str) and PLAIN_DTYPE.fullmatch(text):
        try:
            dtype = np.dtype(text)
        except (TypeError, ValueError, OverflowError, SyntaxError):
            dtype = None
        if dtype is not None and dtype.str == text and dtype.kind in DTYPE_KINDS and dtype.names is None:
            return dtype
    said = text[:40] if isinstance(text, str) else f"a {type(text).__name__}"
    raise ValueError(f"array {name}: dtype {said} is not plain")


def described(record: dict[str, Any]) -> list[Any]:
    """What a record says of its arrays. Raises ValueError."""
    arrays = record.get("arrays")
    if not isinstance(arrays, list) or len(arrays) > MOST_ARRAYS:
        raise ValueError(f"no list of arrays, or of more than {MOST_ARRAYS}")
    return arrays


def check_record(record: dict[str, Any]) -> Record:
    """``record``, every field checked but those of the restore metadata. Raises ValueError."""
    arrays = [StoredArray.parse(entry) for entry in described(record)]
    named = {array.name: array for array in arrays}
    if len(named) != len(arrays):
        raise ValueError("two arrays have one name")
    restore = record.get("restore")
    if not isinstance(restore, list):
        raise ValueError("the restore metadata are no list")
    entry = record.get("model")
    if entry is None:
        return Record(arrays, restore, None, None)
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("sha256", "name", "probe")):
        raise ValueError("the model is not named")
    model = NamedModel(entry["sha256"], entry["name"], entry["probe"], entry.get("particles", 1))
    if type(model.particles) is not int or not 1 <= model.particles <= MOST_PARTICLES:
        raise ValueError(f"{model.particles!r:.40} particles, expected 1 to {MOST_PARTICLES}")
    if not PROBE.fullmatch(model.probe):
        raise ValueError("the probe is not 16 hexadecimal digits")
    if "array" not in entry:
        return Record(arrays, restore, model, None)
    inside = named.get(entry["array"]) if isinstance(entry["array"], str) else None
    if inside is None:
        raise ValueError("the model is in an array that is not described")
    if inside.dtype.str != MODEL_DTYPE or len(inside.shape) != 1 or inside.layout is not None:
        raise ValueError(f"array {inside.name} cannot hold a model")
    return Record(arrays, restore, model, inside)
