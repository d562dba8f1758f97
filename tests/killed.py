"""Work in a process that is killed by it."""

import os
import signal
from collections.abc import Callable


def killed(work: Callable[[], object]) -> None:
    """Do ``work`` in a process of its own, which must be killed by it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
