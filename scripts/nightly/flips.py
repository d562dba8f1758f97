"""Every truncation and every flip of one bit of the golden archives: rejected, or of no consequence.

A change is *harmless* where what is decoded is the same: it touched something that is said for people alone, or bits at
a deflate stream's end that mean nothing. It is *wrong* where other data come, or another exception than DamagedArchive.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

from scripts.nightly import GOLDEN, Outcome
from vaedensity.errors import DamagedArchive

LARGEST = 4000  # bytes of an archive that is changed
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


def torch_reader() -> Reader:
    """The usual reader: open, check the restore metadata, decode, check the arrays. Models are loaded once."""
    from vaedensity.api.decompress import checked_metadata
    from vaedensity.api.models import model_inside, open_model
    from vaedensity.archive.decoding import read_arrays
    from vaedensity.archive.limits import Limits
    from vaedensity.archive.reader import Archive
    from vaedensity.coding.quantise import CodingModel
    from vaedensity.data.restore import check_collection

    known: dict[Path, CodingModel] = {}

    def read(path: Path, model: Path) -> dict[str, Any]:
        with Archive(path) as archive:
            if archive.meta.get("collections"):  # goldens of early versions restore nothing
                checked_metadata(archive)
            Limits().check(archive)
            for index in range(len(archive.blocks)):  # what decoding would come to, before the model takes its time
                archive.payload(index)
            network = None
            if archive.model is not None:
                if archive.model_array is None and model not in known:
                    known[model] = open_model(str(model))
                network = known[model] if archive.model_array is None else model_inside(archive)
            arrays = read_arrays(archive, network)
            for meta in archive.meta.get("collections") or []:
                check_collection(meta, arrays)
            return arrays

    return read


def numpy_reader() -> Reader:
    """The second reader, without torch."""
    from vaedensity.data.restore import check_restore_metadata
    from vaedensity.numpy_decoder.archive import find_model, read
    from vaedensity.numpy_decoder.container import Directory

    def read_all(path: Path, model: Path) -> dict[str, Any]:
        with open(path, "rb") as file:
            directory = Directory(file, path)
            if metas := directory.meta.get("collections"):
                check_restore_metadata(metas, [array.name for array in directory.restored])
            for block in directory.blocks:
                directory.payload(block)
            return read(directory, find_model(directory, None if directory.inside else str(model)))

    return read_all


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


def flip(names: Iterable[str], readers: Iterable[Reader], seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Changes of goldens in random order, until all were tried or the time is up: (counts, those that were wrong)."""
    end, counts, complaints = time.monotonic() + seconds, Counter[str](), []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path, cases = Path(folder, "changed.vdz"), []
        for name, read in product(names, readers):
            source, model = GOLDEN / f"{name}.vdz", GOLDEN / f"{name}.safetensors"
            data, expected = source.read_bytes(), read(source, model)
            cases += [(name, data, model, read, expected, change) for change in changes(data)]
        random.Random(seed).shuffle(cases)
        for name, data, model, read, expected, change in cases:
            if time.monotonic() > end:
                break
            path.write_bytes(changed(data, change))
            what, wrong = judge(path, model, read, expected)
            counts[what] += 1
            if wrong:
                complaints.append(f"{name}, {read.__qualname__.partition('.')[0]}, {change}: {wrong}")
    return counts, complaints


def check(seconds: float, seed: int) -> Outcome:
    """Changes of every golden, read by both readers."""
    names = sorted(path.stem for path in GOLDEN.glob("*.vdz") if path.stat().st_size <= LARGEST)
    counts, complaints = flip(names, [torch_reader(), numpy_reader()], seconds, seed)
    return Outcome(counts.total(), complaints)
