"""Which stacks to code with: compiled ones where numba is installed, else constriction's. Their words are the same."""

from functools import lru_cache

from vaedensity.coding.ans import Stacks


@lru_cache(maxsize=1)
def fastest_stacks() -> type[Stacks]:
    """The fastest stacks that this machine has."""
    try:
        import numba  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        return Stacks
    from vaedensity.coding.compiled import CompiledStacks

    return CompiledStacks
