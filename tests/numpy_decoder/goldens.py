"""The golden archives, as the tests of the second reader need them."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np

from vaedensity.numpy_decoder.varints import get_varint

FOLDER = Path(__file__).parent.parent / "golden"
NAMES = sorted(path.stem for path in FOLDER.glob("*.vdz"))
EARLY = [name for name in NAMES if int(name[-1]) < 5]  # of the layout before frames


def archive(name: str) -> Path:
    return FOLDER / f"{name}.vdz"


def model(name: str) -> Path:
    return FOLDER / f"{name}.safetensors"


def arrays(name: str) -> dict[str, np.ndarray]:
    """What the archive must decode to."""
    with np.load(FOLDER / f"{name}.npz") as f:
        return {key: f[key] for key in f.files}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    """Whether names, types, shapes and bytes are the same."""
    facts = [{n: (a.dtype.str, a.shape, a.tobytes()) for n, a in every.items()} for every in (found, expected)]
    return facts[0] == facts[1]


def with_note(name: str, target: Path) -> Path:
    """A golden's blocks in an archive ``target`` that restores its arrays as golden.npz; goldens restore nothing."""
    own = {key: key for key in arrays(name)}
    return with_record(name, target, meta={"collections": [{"kind": "npz", "name": "golden.npz", "arrays": own}]})


def with_record(name: str, target: Path, **changes: object) -> Path:
    """A golden in ``target``, fields of its record replaced."""
    whole = archive(name).read_bytes()
    length, size = struct.unpack("<QI", whole[-24:-12])
    data = zlib.decompress(whole[12 + length : 12 + length + size])
    count, at = get_varint(data, 0)
    record, index = json.loads(data[at : at + count]) | changes, data[at + count :]
    text = json.dumps(record).encode()
    assert 128 <= len(text) < 1 << 14
    directory = zlib.compress(bytes([len(text) & 127 | 128, len(text) >> 7]) + text + index)
    tail = struct.pack("<QII", length, len(directory), zlib.crc32(whole[:12] + directory))
    target.write_bytes(whole[: 12 + length] + directory + tail + whole[-8:])
    return target
