"""Model files (docs/format.md, "Model file"): safetensors read by hand, the configuration, the network's SHA-256."""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vaedensity.errors import ModelError, first_line

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
INTEGERS = {"I32": "int32", "I16": "int16", "I8": "int8"}
UNITS = (64, 128, 256)
VERSION = 1
WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError, struct.error)
"""What making sense of a file that makes none may raise."""
LONGEST_HEADER, LARGEST = 1 << 22, 1 << 32  # bytes, of the JSON and of the whole file
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Model:
    """A model file's network. ``config``: every field of its kind, ``unit`` being that of coding; ``values``: what two
    levels stand for, or None; ``direct_steps``: of each latent channel of each level; ``tensors``: those named
    integer/..., without that."""

    path: Path
    config: dict[str, Any]
    values: list[int] | None
    direct_steps: list[list[int]]
    tensors: Tensors
    sha256: str

    @property
    def is_series(self) -> bool:
        return bool(self.config["kind"] == "sequence")

    @property
    def item_shape(self) -> tuple[int, int, int]:
        """(C,H,W) of an item."""
        c = self.config
        return (1, 1, c["length"]) if self.is_series else (c["channels"], c["height"], c["width"])


def read_model(path: Path) -> Model:
    """The network of a model file, all of it checked but the bounds of its sums.

    Parameters
    ----------
    path
        A safetensors file, as ``vaedensity.fit`` writes it.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        The file cannot be read, is no model's, or is one of another version.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, path, f"{path}:")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def parse_model(data: bytes, path: Path) -> Model:
    """As :func:`read_model`, of a model file's bytes that the archive ``path`` holds."""
    return _read(BytesIO(data), path, f"{path}: the model inside is")


def _read(file: BinaryIO, path: Path, subject: str) -> Model:
    try:
        tensors, metadata = _safetensors(file)
        record = json.loads(metadata["vaedensity"])
        if reason := _not_readable(record):
            raise ModelError(f"{path}: {reason}")
        given, unit, values, steps = (record[key] for key in ("config", "unit", "values", "direct_steps"))
        bits = record["card"]["integer_bits_per_dim"]
        if type(bits) not in (int, float) or not 0 <= bits <= 64:
            raise ValueError(f"{bits} integer_bits_per_dim on its card, expected 0 to 64")
        config = _series_config(given) if given["kind"] == "sequence" else _image_config(given)
        if type(unit) is not int or unit not in UNITS:
            raise ValueError(f"a unit of {unit}")
        config["unit"] = unit
        if values is not None and (
            config["levels"] != 2
            or len(values) != 2
            or values[0] == values[1]
            or any(type(v) is not int or not 0 <= v <= 255 for v in values)
        ):
            raise ValueError("values must be two different numbers in 0..255")
        _require_steps(steps, [] if config["kind"] == "sequence" else [channels for _, channels in config["latents"]])
        sha256 = _network_sha256(config, values, steps, tensors)
        if record["sha256"] != sha256:
            raise ValueError("its integers do not have the SHA-256 that it names")
        return Model(path, config, values, steps, tensors, sha256)
    except WRONG as error:
        raise ModelError(
            f"{subject} not a vaedensity model ({first_line(error)}); expected a file written by 'vaedensity fit'"
        ) from error


def _not_readable(record: dict[str, Any]) -> str | None:
    """Why a model file with this record cannot be read here, None where it can."""
    if "format" in record:
        return f"model format {record['format']!r:.40} was never released; fit the model anew"
    if record.get("version") != VERSION:
        return f"model version {record.get('version')!r:.40} is not known, expected {VERSION}; update vaedensity"
    return None


def _require_steps(steps: Any, channels: list[int]) -> None:
    """Raise ValueError unless every latent channel has its power of two."""
    powers = [1 << k for k in range(9)]
    if [len(level) for level in steps] != channels or any(type(s) is not int for level in steps for s in level):
        raise ValueError("direct steps do not fit the latents")
    if any(s not in powers for level in steps for s in level):
        raise ValueError("direct steps are not powers of two up to 256")


def _safetensors(file: BinaryIO) -> tuple[Tensors, dict[str, str]]:
    """(tensors named integer/..., without that, the metadata) of a safetensors file; all of it is accounted for."""
    whole = file.seek(0, 2)
    if whole > LARGEST:
        raise ValueError(f"{whole} bytes are beyond the limit of {LARGEST}")
    file.seek(0)
    (size,) = struct.unpack("<Q", file.read(8))
    if size > whole - 8:
        raise ValueError("the header is cut off")
    if size > LONGEST_HEADER:
        raise ValueError(f"a header of {size} bytes is beyond the limit of {LONGEST_HEADER}")
    header, body = json.loads(file.read(size).decode()), memoryview(file.read())
    metadata = header.pop("__metadata__")
    tensors: Tensors = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda pair: tuple(pair[1]["data_offsets"])):
        kind, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if any(type(n) is not int or n < 0 for n in (*shape, begin, stop)):
            raise ValueError(f"tensor {name} is described by other than whole numbers")
        if begin != end or stop - begin != SIZES[kind] * math.prod(shape) or stop > len(body):
            raise ValueError(f"tensor {name} does not lie where it should")
        end = stop
        if name.startswith("integer/"):
            dtype = np.dtype(INTEGERS[kind]).newbyteorder("<")
            tensors[name.removeprefix("integer/")] = np.frombuffer(body[begin:stop], dtype).reshape(shape)
        elif not name.startswith("float/"):
            raise ValueError(f"tensor {name} is not expected")
    if end != len(body):
        raise ValueError("bytes follow the last tensor")
    return tensors, metadata


def _network_sha256(config: dict[str, Any], values: Any, steps: Any, tensors: Tensors) -> str:
    """SHA-256 of all that decides coded bits (docs/format.md, "Network SHA-256")."""
    facts = {"config": config, "direct_steps": steps, "values": values}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\ninteger/{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _whole(config: dict[str, Any], limits: dict[str, tuple[int, int]]) -> None:
    for name, (low, high) in limits.items():
        if type(config[name]) is not int or not low <= config[name] <= high:
            raise ValueError(f"{name} {config[name]!r}, expected {low} to {high}")


def _numbers(values: Any, low: int, high: int, most: int) -> bool:
    return len(values) <= most and all(type(v) is int and low <= v <= high for v in values)


def _image_config(given: dict[str, Any]) -> dict[str, Any]:
    """A configuration of images, every field there and within its limits. Raises ValueError or KeyError."""
    config = dict(given)
    limits = {"height": (1, 512), "width": (1, 512), "channels": (1, 3), "levels": (2, 256), "blocks": (0, 16)}
    limits |= {"sub_image_blocks": (0, 16), "components": (1, 32), "unit": (64, 256), "neighbours": (0, 8)}
    _whole(config, limits)
    latents, widths = config["latents"], config["widths"]
    n = len(latents)
    if config["kind"] != "image" or set(config) != {*limits, "kind", "latents", "widths", "sub_images", "likelihood"}:
        raise ValueError("fields of the configuration are missing or left over")
    if config["channels"] == 2 or config["unit"] not in UNITS or type(config["sub_images"]) is not int:
        raise ValueError("channels, unit or sub-images are not as they should be")
    if not 1 <= n <= 6 or len(widths) != n or not _numbers(widths, 1, 512, 6):
        raise ValueError("latents and widths do not fit")
    factors = [f for f, _ in latents]
    if (
        factors != [1 << (n - i) for i in range(n)]
        or not _numbers(factors, 2, 64, 6)
        or not _numbers([c for _, c in latents], 1, 64, 6)
    ):
        raise ValueError(f"latents {latents} are not as they should be")
    if config["sub_images"] not in (4, 7) or (config["sub_images"] == 7 and n < 2):
        raise ValueError(f"{config['sub_images']} sub-images of {n} levels of latents")
    if config["likelihood"] not in ("mixture", "categorical"):
        raise ValueError(f"a likelihood {config['likelihood']!r}")
    if config["likelihood"] == "categorical" and config["neighbours"]:
        raise ValueError("a categorical likelihood with neighbours")
    return config


def _series_config(given: dict[str, Any]) -> dict[str, Any]:
    """A configuration of series (docs/format.md, "Series"). Raises ValueError or KeyError."""
    limits = {"length": (1, 65536), "levels": (2, 256), "variables": (1, 256), "categories": (2, 32)}
    limits |= {"width": (1, 1024), "encoder_width": (1, 1024), "context_bits": (2, 20), "dropout_percent": (0, 99)}
    limits |= {"context_width": (1, 1024), "unit": (64, 256)}
    _whole(given, limits)
    contexts = given["contexts"]
    if set(given) != {*limits, "kind", "dilations", "noise", "contexts"} or given["kind"] != "sequence":
        raise ValueError("fields of the configuration are missing or left over")
    if not given["dilations"] or not _numbers(given["dilations"], 1, 512, 64):
        raise ValueError(f"dilations {given['dilations']} are not as they should be")
    if not _numbers(contexts, 2, 16, 15) or contexts != sorted(set(contexts)) or given["unit"] not in UNITS:
        raise ValueError("contexts or unit are not as they should be")
    if given["noise"] not in ("gumbel", "exponential", "normal", "uniform") or given["context_width"] > given["width"]:
        raise ValueError("noise or width of contexts are not as they should be")
    return dict(given)
