"""Every truncation and every flip of one bit of the golden archives: rejected, or of no consequence.

A change is *harmless* where what is decoded is the same: it touched something that is said for people alone, or bits at
a deflate stream's end that mean nothing. It is *wrong* where other data come, or another exception than DamagedArchive.
"""

import random
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from scripts.nightly import GOLDEN, Outcome
from vaedensity.api.decompress import checked_metadata
from vaedensity.api.models import model_for
from vaedensity.archive.decoding import read_arrays
from vaedensity.archive.engine import ENGINES, Decoder
from vaedensity.archive.limits import Limits
from vaedensity.archive.reader import ArchiveFile
from vaedensity.data.restore import check_collection
from vaedensity.errors import DamagedArchive

LARGEST, LEAST = 4000, 100  # bytes of an archive that is changed; changes that are always tried
Reader = Callable[[Path, Path], dict[str, Any]]
Change = tuple[str, int]


def changes(data: bytes) -> list[Change]:
    """Cut off after each number of bytes; each bit flipped."""
    return [("cut", size) for size in range(len(data))] + [("flip", bit) for bit in range(8 * len(data))]


def changed(data: bytes, change: Change) -> bytes:
    """``data`` after this change."""
    what, at = change
    if what == "cut":
        return data[:at]
    out = bytearray(data)
    out[at // 8] ^= 1 << at % 8
    return bytes(out)


def reader(engine: str) -> Reader:
    """Open, check the restore metadata, decode, check the arrays. Models are loaded once."""
    known: dict[Path, Decoder] = {}

    def read(path: Path, model: Path) -> dict[str, Any]:
        with ArchiveFile(path) as archive:
            metas = checked_metadata(archive) if archive.restore else []  # most goldens restore nothing
            Limits().check(archive)
            for place in range(len(archive.blocks)):  # what decoding would come to, before the model takes its time
                archive.payload(place)
            decoder = None
            if archive.model is not None and archive.model_array is None:
                decoder = known.get(model) or known.setdefault(model, model_for(archive, model, engine))
            elif archive.model is not None:
                decoder = model_for(archive, None, engine)
            arrays = read_arrays(archive, decoder)
            for meta in metas:
                check_collection(meta, arrays)
            return arrays

    return read


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether names, types, shapes and bytes are the same."""
    facts = [{n: (a.dtype.str, a.shape, a.tobytes()) for n, a in each.items()} for each in (found, expected)]
    return facts[0] == facts[1]


def judge(path: Path, model: Path, read: Reader, expected: dict[str, Any]) -> tuple[str, str]:
    """("rejected", "harmless" or "wrong", and what is wrong) of a changed file."""
    try:
        found = read(path, model)
    except DamagedArchive as error:
        return ("wrong", f"two lines: {error}") if "\n" in str(error) else ("rejected", "")
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    return ("harmless", "") if same(found, expected) else ("wrong", "other data")


def check(seconds: float, seed: int) -> Outcome:
    """Changes of all goldens, read with both engines, in random order until all were tried or the time is up."""
    end, count, complaints, cases = time.monotonic() + seconds, 0, [], []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder, "changed.vdz")
        for source, engine in product(sorted(GOLDEN.glob("*.vdz")), ENGINES):
            data, model = source.read_bytes(), source.with_suffix(".safetensors")
            if len(data) <= LARGEST:
                read = reader(engine)
                expected = read(source, model)
                cases += [(f"{source.stem}, {engine}", data, model, read, expected, change) for change in changes(data)]
        random.Random(seed).shuffle(cases)
        for name, data, model, read, expected, change in cases:
            if count >= LEAST and time.monotonic() > end:
                break
            path.write_bytes(changed(data, change))
            what, wrong = judge(path, model, read, expected)
            count += 1
            if what == "wrong":
                complaints.append(f"{name}, {change}: {wrong}")
    return Outcome(count, complaints)
