"""Ctrl-C that waits for the step in hand to be whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.made = False


@contextmanager
def deferred_interrupt() -> Iterator[StopRequest]:
    """Inside, the first Ctrl-C only sets ``made``; the second raises KeyboardInterrupt as ever.

    Outside of the main thread, or where the signal is ignored or handled by somebody else, nothing changes.
    """
    request = StopRequest()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.made:
            raise KeyboardInterrupt
        request.made = True

    signal.signal(signal.SIGINT, handle)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
