"""What a run uses of the process it runs in, and leaves as it was: torch's common generators and Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch


@contextmanager
def own_randomness() -> Iterator[None]:
    """What is drawn inside leaves torch's common generators as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed what draws without a generator of its own, on the processor and on ``device``."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@dataclass
class StopRequest:
    """Whether Ctrl-C was pressed."""

    made: bool = False


@contextmanager
def deferred_interrupt() -> Iterator[StopRequest]:
    """Let the step in hand be finished: inside, the first Ctrl-C only sets ``made``; the second raises as ever.

    Outside of the main thread, and where somebody else handles or ignores the signal, nothing changes.
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
