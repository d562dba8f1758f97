"""Every truncation and every flip of one bit of an archive: refused, or of no consequence.

    python scripts/flip_bits.py [NAME ...] [--engine torch|numpy] [--every N] [--json]

NAME: goldens of tests/golden, by default one of version 1, of version 4 and of version 5. A change is *harmless* where what is decoded is
the same: it touched something that is said for people alone, or the bits of a deflate stream's end that mean nothing. It is *wrong*
where other data come, or another exception than a refusal.
Exit status 1 where any change is wrong.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
DEFAULT = ("two-valued-v1", "sequence-v4", "tree-v5")
Reader = Callable[[Path, Path], dict[str, Any]]


def changes(data: bytes, every: int = 1) -> Iterator[tuple[str, bytes]]:
    """(what, the changed file): cut off after each number of bytes, then with each bit flipped; ``every``: of so many one."""
    for size in range(0, len(data), every):
        yield f"cut off after {size} bytes", data[:size]
    for bit in range(0, 8 * len(data), every):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit % 8} of byte {bit // 8} flipped", bytes(changed)


def torch_reader() -> Reader:
    """Open, metas, decode, check against the metas. Models are loaded once."""
    from vaedensity.api.choose import open_model
    from vaedensity.api.decompress import checked_metadata
    from vaedensity.api.models import model_inside
    from vaedensity.archive.decoding import read_arrays
    from vaedensity.archive.limits import Limits
    from vaedensity.archive.reader import ArchiveFile
    from vaedensity.coding.engine import CodingModel
    from vaedensity.data.restore import check_collection

    known: dict[Path, CodingModel] = {}

    def read(path: Path, model: Path) -> dict[str, Any]:
        with ArchiveFile(path) as archive:
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
    from vaedensity.numpy_decoder.archive import find_model, read
    from vaedensity.numpy_decoder.container import Directory

    from vaedensity.data.restore import check_restore_metadata

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


def flip(name: str, read: Reader, every: int = 1) -> tuple[Counter[str], list[str]]:
    """(counts of what came of the changes of a golden, those that were wrong)."""
    from vaedensity.errors import DamagedArchive, ModelError

    source, model = GOLDEN / f"{name}.vdz", GOLDEN / f"{name}.safetensors"
    expected, data = read(source, model), source.read_bytes()
    counts: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder, f"{name}.vdz")
        for what, changed in changes(data, every):
            counts["tried"] += 1
            path.write_bytes(changed)
            try:
                found = read(path, model)
            except DamagedArchive as error:
                counts["rejected"] += 1
                if "\n" in str(error):
                    wrong.append(f"{what}: {error}")
            except (Exception, ModelError) as error:
                wrong.append(f"{what}: {type(error).__name__}: {error}")
            else:
                if same(found, expected):
                    counts["harmless"] += 1
                else:
                    wrong.append(f"{what}: other data")
    counts["wrong"] = len(wrong)
    return counts, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[name for name in DEFAULT if (GOLDEN / f"{name}.vdz").exists()])
    parser.add_argument("--engine", choices=("torch", "numpy"), default="torch")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    read = torch_reader() if options.engine == "torch" else numpy_reader()
    results, status = {}, 0
    for name in options.names:
        counts, wrong = flip(name, read, options.every)
        results[name] = {key: counts[key] for key in ("tried", "rejected", "harmless", "wrong")}
        if not options.json:
            print(f"{name}: " + ", ".join(f"{n} {key}" for key, n in results[name].items()), flush=True)
        for line in wrong[:20]:
            print(f"{name}: {line}", file=sys.stderr)
        status |= bool(wrong)
    if options.json:
        print(json.dumps({"engine": options.engine, "archives": results}))
    return status


if __name__ == "__main__":
    sys.exit(main())
