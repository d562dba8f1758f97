"""Float arithmetic that does not depend on what the caller has set: the one place that touches torch's switches.

Some switches belong to a thread: autocast, inference mode, modes that intercept every call, function transforms. Others
belong to the process: reduced precision of float32, and NNPACK, whose Winograd kernels round. All are put back when a
block ends.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import _disable_current_modes

from vaedensity.machine import choose_threads

AUTOCAST = ("cpu", "cuda")
PRECISIONS = [("generic", "all"), ("mkldnn", "all"), ("cuda", "all")] + [
    (backend, work) for backend in ("mkldnn", "cuda") for work in ("matmul", "conv", "rnn")
]
"""Switches of torch 2.9 and later. One that is "none" follows its backend's, which follows the generic one."""
FULL = ("none", "ieee")

_lock = threading.Lock()
_inside = 0
_switches = ExitStack()


@contextmanager
def fresh_thread() -> Iterator[None]:
    """Torch as a new thread finds it, whatever the caller has switched on.

    No autocast, no inference mode, no modes that intercept calls, no default device, no function transforms; gradients
    are on.

    >>> with torch.inference_mode(), fresh_thread():
    ...     torch.is_inference_mode_enabled()
    False
    """
    with ExitStack() as stack:
        stack.enter_context(temporarily_clear_interpreter_stack())
        stack.enter_context(_disable_current_modes())
        for _ in range(torch._C._len_torch_function_stack()):
            stack.enter_context(_pop_mode_temporarily())  # disabling them all breaks imports that torch does late
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """:func:`fresh_thread`, and float32 products that are never computed in fewer bits (TF32, bfloat16, NNPACK).

    Several threads may be inside at once: the first sets the process's switches, the last puts them back.

    >>> torch.set_float32_matmul_precision("high")
    >>> with full_precision():
    ...     torch.get_float32_matmul_precision()
    'highest'
    >>> torch.get_float32_matmul_precision()
    'high'
    >>> torch.set_float32_matmul_precision("highest")
    """
    global _inside
    with fresh_thread():
        with _lock:
            if not _inside:
                _set_switches()
            _inside += 1
        try:
            yield
        finally:
            with _lock:
                _inside -= 1
                if not _inside:
                    _switches.close()


@contextmanager
def torch_threads(wish: int | None = None) -> Iterator[None]:
    """Torch's operations use as many threads as :func:`~vaedensity.machine.choose_threads` makes of ``wish``."""
    before, count = torch.get_num_threads(), choose_threads(wish)
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _set_switches() -> None:
    """Set the process's switches; closing ``_switches`` puts them back in the opposite order."""
    with ExitStack() as undo:
        set_nnpack = torch.backends.nnpack.set_flags
        undo.callback(set_nnpack, *set_nnpack(False))  # type: ignore[no-untyped-call] # torch has no types for it
        older = list(_older_switches())
        get = getattr(torch._C, "_get_fp32_precision_getter", None)
        for name in PRECISIONS if get else []:
            undo.callback(_put, name, before := get(*name))  # type: ignore[misc]
            if name[1] == "all" and before not in FULL:
                _put(name, "none")  # its parts now show what they are themselves
        for put, before, wanted in older:
            undo.callback(put, before)
            put(wanted)
        for name in PRECISIONS if get else []:
            if get(*name) not in FULL:  # type: ignore[misc]
                _put(name, "ieee")
        _switches.push(undo.pop_all())


def _older_switches() -> Iterator[tuple[Any, Any, Any]]:
    """(setter, value now, full precision) of the older switches that are set to less. Torch refuses to read them where
    only the newer ones were used."""
    pairs = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        (torch._C._get_cudnn_allow_tf32, torch._C._set_cudnn_allow_tf32, False),
    ]
    for get, put, wanted in pairs:
        with suppress(RuntimeError):
            if (before := get()) != wanted:
                yield put, before, wanted


def _put(name: tuple[str, str], value: str) -> None:
    if torch._C._get_fp32_precision_getter(*name) != value:
        torch._C._set_fp32_precision_setter(*name, value)
