"""Both engines of ``decompress`` behind one call, within the same limits. Only what an engine needs is imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaedensity.archive.limits import Limits
    from vaedensity.numpy_decoder.container import Directory
    from vaedensity.numpy_decoder.record import Entry

ENGINES = ("torch", "numpy")


def restore_all(
    engine: str, source: Path, goal: Path, model: str | None, limits: "Limits", *, threads: int | None, **how: Any
) -> dict[str, Any]:
    """Everything in the archive ``source``. ``how``: what both engines take by the same names."""
    if engine == "torch":
        from vaedensity.api.decompress import decompress

        return decompress(source, goal, model, threads=threads, limits=limits, **how)
    from vaedensity.numpy_decoder.archive import decompress as plain_decompress

    def approve(directory: "Directory") -> None:
        limits.check_sizes(source, directory.nbytes, directory.largest_block(), goal, in_memory=True)

    return plain_decompress(source, goal, model, approve=approve, **how)


def restore_items(
    engine: str,
    source: Path,
    goal: Path,
    wanted: Sequence[str],
    ranges: Sequence[str],
    model: str | None,
    limits: "Limits",
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Some items of the archive ``source``."""
    if engine == "torch":
        from vaedensity.api.some_items import decompress_items

        return decompress_items(source, goal, wanted, ranges, model, overwrite=overwrite, limits=limits)
    from vaedensity.numpy_decoder.some_items import decompress_items as plain_decompress_items

    def approve(directory: "Directory", array: "Entry") -> None:
        limits.check_block(source, directory.largest_block([array]))

    return plain_decompress_items(source, goal, wanted, ranges, model, overwrite=overwrite, approve=approve)
