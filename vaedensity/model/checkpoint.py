"""Model files: safetensors with a JSON record inside, never a pickle.

Tensors ``float/<parameter>`` are the trained weights that score; ``integer/<layer>/weight``, ``bias`` and ``shift`` and
``integer/start`` are the network that codes. The file is untrusted input: names, shapes, dtypes and finiteness are
checked on reading, the exactness bounds when the integer network is built.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vaedensity.arithmetic import fresh_thread
from vaedensity.data.atomic import atomic_file
from vaedensity.errors import ModelError, first_line
from vaedensity.model.config import with_unit
from vaedensity.model.integer_conv import IntegerKernel
from vaedensity.model.kinds import Config, Network, config_from_json, outline, untrained
from vaedensity.model.released import KEY, VERSION, not_readable, read_record

MAX_FILE_BYTES = 1 << 32


@dataclass(frozen=True)
class ModelFile:
    """A model file's checked contents.

    Attributes
    ----------
    values : list of int or None
        What the two levels of two-valued data stand for.
    card : dict
        Name, training and measured rates.
    weights : dict of Tensor
        The real weights by parameter; empty where the file holds integers alone.
    kernels, start, unit, direct_steps
        The integer network: kernels by layer, what the stream begins with, the unit of activations, and the step
        sizes of latents that are coded directly.
    file_sha256 : str
        Of the file's bytes. A model is known by :attr:`sha256` instead.
    """

    path: Path
    config: Config
    values: list[int] | None
    card: dict[str, Any]
    weights: dict[str, Tensor]
    kernels: dict[str, IntegerKernel]
    start: Tensor
    unit: int
    direct_steps: list[list[int]]
    file_sha256: str
    file_bytes: int

    @fresh_thread()
    def float_model(self) -> Network:
        """The trained network in real arithmetic, in evaluation mode.

        Of a file without real weights it has the numbers that the integers stand for. Raises ModelError where the
        weights do not fit the configuration.
        """
        if not self.weights:
            return self._from_integers()
        wanted = dict(outline(self.config).named_parameters())
        if set(wanted) != set(self.weights):
            raise ModelError(f"{self.path}: its weights do not fit its configuration; fit again")
        for name, p in wanted.items():
            if p.shape != self.weights[name].shape:
                raise ModelError(
                    f"{self.path}: weight {name} has shape {tuple(self.weights[name].shape)}, expected {tuple(p.shape)}"
                )
        model = untrained(self.config)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(self.weights[name])
        return model.eval()

    def _from_integers(self) -> Network:
        shell = outline(self.coding_config)
        layers = shell.integer_convs()
        if set(layers) != set(self.kernels) or any(
            self.kernels[name].weight.shape != layer.weight.shape or self.kernels[name].bias.shape != layer.bias.shape
            for name, layer in layers.items()
        ):
            raise ModelError(f"{self.path}: its weights do not fit its configuration; fit again")
        if self.start.shape != shell.start.shape:
            raise ModelError(f"{self.path}: its start map does not fit its configuration; fit again")
        model = untrained(self.coding_config)
        for name, layer in model.integer_convs().items():
            layer.load_real(self.kernels[name])
        with torch.no_grad():
            model.start.copy_(self.start.double() / model.start_unit)
        return model.eval()

    @property
    def coding_config(self) -> Config:
        """The configuration of the integer network."""
        return with_unit(self.config, self.unit)

    @cached_property
    def sha256(self) -> str:
        """What a model is known by: SHA-256 of everything that decides coded bits (:func:`network_sha256`).

        It is the same of a file without real weights or with another card.
        """
        return network_sha256(self.coding_config, self.values, self.direct_steps, self.kernels, self.start)


def network_sha256(
    config: Config,
    values: list[int] | None,
    direct_steps: list[list[int]],
    kernels: dict[str, IntegerKernel],
    start: Tensor,
) -> str:
    """SHA-256 of the integers, configuration and value map in a canonical order (docs/format.md, "Model file")."""
    digest = hashlib.sha256()
    facts = {"config": config.to_json(), "values": values, "direct_steps": direct_steps}
    digest.update(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name, tensor in sorted(_integer_tensors(kernels, start).items()):
        array = tensor.numpy()
        array = array.astype(array.dtype.newbyteorder("<"))
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def _integer_tensors(kernels: dict[str, IntegerKernel], start: Tensor) -> dict[str, Tensor]:
    tensors = {"integer/start": start.to(torch.int32)}
    for name, kernel in kernels.items():
        tensors[f"integer/{name}/weight"] = kernel.weight
        tensors[f"integer/{name}/bias"] = kernel.bias
        tensors[f"integer/{name}/shift"] = kernel.shift
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def save_model(
    path: Path,
    model: Network,
    values: list[int] | None,
    card: dict[str, Any],
    kernels: dict[str, IntegerKernel],
    start: Tensor,
    unit: int,
    direct_steps: list[list[int]],
    *,
    overwrite: bool,
) -> None:
    """Write the model file ``path``, whole or not at all. Equal inputs give equal bytes.

    Parameters
    ----------
    model : HierarchicalVAE or SequenceVAE
        Its real weights are stored unless it scores with the numbers that its integers stand for.
    values, card, kernels, start, unit, direct_steps
        As in :class:`ModelFile`; the last four come from ``vaedensity.coding.quantise.quantise``.
    overwrite : bool
        Whether to replace a file.

    Raises
    ------
    VaedensityError
        Where the file cannot be written, or exists and shall not be replaced.
    """
    tensors = _integer_tensors(kernels, start)
    if model.stores_floats:
        tensors |= {f"float/{name}": p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    sha256 = network_sha256(with_unit(model.config, unit), values, direct_steps, kernels, start)
    data = _file(tensors, model.config, values, card, unit, direct_steps, sha256)
    with atomic_file(path, overwrite) as f:
        f.write(data)


def _file(
    tensors: dict[str, Tensor],
    config: Config,
    values: list[int] | None,
    card: dict[str, Any],
    unit: int,
    direct_steps: list[list[int]],
    sha256: str,
) -> bytes:
    record = {
        "version": VERSION,
        "config": config.to_json(),
        "values": values,
        "card": card,
        "unit": unit,
        "direct_steps": direct_steps,
        "sha256": sha256,
    }
    return save(tensors, metadata={KEY: json.dumps(record, sort_keys=True)})


def slim_model(file: ModelFile) -> bytes:
    """The part of a model file that decoding needs, itself a model file, of an even number of bytes: no real weights,
    of the card only what must be there."""
    tensors = _integer_tensors(file.kernels, file.start)
    card: dict[str, Any] = {key: file.card[key] for key in ("name", "integer_bits_per_dim") if key in file.card}
    data = _file(tensors, file.config, file.values, card, file.unit, file.direct_steps, file.sha256)
    if len(data) % 2:
        end = 8 + int.from_bytes(data[:8], "little")
        data = (end - 7).to_bytes(8, "little") + data[8:end] + b" " + data[end:]
    return data


def load_model(path: Path) -> ModelFile:
    """Read and check the model file ``path``. Of a released model, ``vaedensity.model.released.resolve`` gives it.

    Raises
    ------
    ModelError
        Where it is missing, damaged, or of a version that is not known here; in one line.

    Examples
    --------
    >>> from vaedensity.model.released import resolve
    >>> file = load_model(resolve("digits"))
    >>> file.config.item_shape, file.config.levels
    ((1, 8, 8), 17)
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; 'vaedensity models' lists the released ones")
    try:
        with open(path, "rb") as f:
            size = f.seek(0, 2)
            if size > MAX_FILE_BYTES:
                raise ModelError(f"{path}: {size} bytes are beyond the limit of {MAX_FILE_BYTES}")
            f.seek(0)
            return parse_model(f.read(), path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


@fresh_thread()
def parse_model(data: bytes, path: Path) -> ModelFile:
    """Check a model file's bytes; ``path`` is for messages. Raises ModelError with one line."""
    try:
        record = read_record(BytesIO(data))
        tensors = _tensors_of(data)
        if reason := not_readable(record):
            raise ModelError(f"{path}: {reason}")
        config = config_from_json(record["config"])
        weights, kernels, start = _sort_tensors(tensors)
        values, steps, unit = record["values"], record["direct_steps"], record["unit"]
        if values is not None and (
            config.levels != 2
            or len(values) != 2
            or any(type(v) is not int or not 0 <= v <= 255 for v in values)
            or values[0] == values[1]
        ):
            raise ValueError("values must be two different numbers in 0..255")
        if not isinstance(record["card"], dict):
            raise ValueError("the card is not a record")
        with_unit(config, unit)
        if not isinstance(steps, list) or any(not isinstance(level, list) for level in steps):
            raise ValueError("the direct steps are no lists")
        if any(type(step) is not int for level in steps for step in level):
            raise ValueError("the direct steps are not whole numbers")
        digest = hashlib.sha256(data).hexdigest()
        file = ModelFile(path, config, values, record["card"], weights, kernels, start, unit, steps, digest, len(data))
        if record["sha256"] != file.sha256:
            raise ValueError("its integers do not have the SHA-256 that it names")
        return file
    except ModelError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise ModelError(
            f"{path}: not a vaedensity model ({first_line(error)}); expected a file written by 'vaedensity fit'"
        ) from error


def _tensors_of(data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, RuntimeError, OverflowError) as error:  # whose words vary
        raise ValueError("its tensors cannot be read") from error


def _sort_tensors(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, IntegerKernel], Tensor]:
    weights, parts = {}, {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind == "float":
            if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"weight {name} holds NaN, infinities or other than float32")
            weights[name] = tensor
        elif kind == "integer":
            parts[name] = tensor
        else:
            raise ValueError(f"tensor {key} is not expected")
    dtypes = {"weight": (torch.int16, torch.int8), "bias": (torch.int32,), "shift": (torch.int8,)}
    if "start" not in parts:
        raise ValueError("integer tensors are missing or left over")
    start = parts.pop("start")
    kernels = {}
    for layer in {name.rpartition("/")[0] for name in parts}:
        if any(f"{layer}/{piece}" not in parts for piece in dtypes):
            raise ValueError("integer tensors are missing or left over")
        pieces = [parts[f"{layer}/{piece}"] for piece in dtypes]
        if (
            any(t.dtype not in expected for t, expected in zip(pieces, dtypes.values()))
            or [t.ndim for t in pieces] != [4, 1, 1]
            or any(t.numel() == 0 for t in pieces)
        ):
            raise ValueError(f"integer layer {layer} has other dtypes or dimensions than expected")
        kernels[layer] = IntegerKernel(*pieces)
    if start.dtype != torch.int32 or start.numel() == 0 or 3 * len(kernels) != len(parts):
        raise ValueError("integer tensors are missing or left over")
    return weights, kernels, start
