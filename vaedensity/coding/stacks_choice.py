"""Which stacks to code with: compiled ones where numba is installed, else constriction's. Their words are the same.

The environment variable VAEDENSITY_ENGINE, ``compiled`` or ``constriction``, decides where it is set.
"""

import os
from functools import lru_cache

from vaedensity.coding.ans import Stacks
from vaedensity.errors import UsageError

VARIABLE = "VAEDENSITY_ENGINE"
ENGINES = ("compiled", "constriction")


@lru_cache(maxsize=1)
def fastest_stacks() -> type[Stacks]:
    """The fastest stacks that this machine has, or those asked for. Raises UsageError."""
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", *ENGINES):
        raise UsageError(f"{VARIABLE}={wish}: expected {' or '.join(ENGINES)}")
    if wish == "constriction":
        return Stacks
    try:
        from vaedensity.coding import kernels  # noqa: F401
    except (ImportError, RuntimeError) as error:  # the second where numba finds no folder to keep compiled code in
        if wish == "compiled":
            why = "numba is not installed; pip install numba" if isinstance(error, ImportError) else error
            raise UsageError(f"{VARIABLE}=compiled: {why}") from error
        return Stacks
    from vaedensity.coding.compiled import CompiledStacks

    return CompiledStacks
