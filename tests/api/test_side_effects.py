"""A call leaves the caller's process as it found it, and keeps to what the caller has set."""

import gc
import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaedensity as vd
from vaedensity import workers
from vaedensity.archive import model_blocks
from vaedensity.coding import engine
from vaedensity.coding.engine import CodingModel
from vaedensity.workers import Ticker, can_fork, side_by_side

MODEL = Path(__file__).parents[1] / "golden" / "grey.safetensors"
TORCH = [
    torch.get_num_threads,
    torch.get_num_interop_threads,
    torch.get_default_dtype,
    torch.get_default_device,
    torch.get_float32_matmul_precision,
    torch.is_grad_enabled,
    torch.is_inference_mode_enabled,
    torch.is_anomaly_enabled,
    torch.are_deterministic_algorithms_enabled,
    torch._C._get_nnpack_enabled,
    torch._C._get_mkldnn_enabled,
    torch._C._get_mkldnn_deterministic,
    torch._C._get_cudnn_allow_tf32,
    torch._C._get_cudnn_benchmark,
    torch._C._get_cudnn_deterministic,
    torch._C._get_cublas_allow_tf32,
    lambda: torch.is_autocast_enabled("cpu"),
    lambda: torch.get_rng_state().tolist(),
]
PROCESS: list[Callable[[], Any]] = [
    *TORCH,
    lambda: [repr(part) for part in np.random.get_state()],
    random.getstate,
    lambda: dict(os.environ),
    os.getcwd,
    lambda: [signal.getsignal(number) for number in signal.valid_signals()],
    lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    lambda: list(warnings.filters),
    lambda: (logging.root.manager.disable, logging.root.level, list(logging.root.handlers)),
    lambda: (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
    lambda: (sys.getrecursionlimit(), sys.excepthook, sys.stdout, sys.stderr, sys.getswitchinterval()),
    lambda: multiprocessing.get_start_method(allow_none=True),
    multiprocessing.active_children,
    threading.enumerate,
    lambda: locale.setlocale(locale.LC_ALL),
    np.geterr,
    np.get_printoptions,
    lambda: Image.MAX_IMAGE_PIXELS,
    lambda: Path("/proc/self/status").read_text().partition("Umask:")[2].split()[0],
    lambda: len(os.listdir("/proc/self/fd")),
]


def state() -> list[Any]:
    return [look() for look in PROCESS]


@pytest.fixture
def x() -> np.ndarray:
    with np.load(MODEL.with_suffix(".npz")) as file:
        return file["images"][:40]


@pytest.fixture
def two_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work for two, both ways."""
    monkeypatch.setattr(
        model_blocks, "spans", lambda model, count, *sizes: [(i, min(i + 9, count)) for i in range(0, count, 9)]
    )
    monkeypatch.setattr(CodingModel, "chains_at_once", lambda model, way: 2)
    for place in ("writer", "model_blocks"):  # so few items take less without a model
        monkeypatch.setattr(f"vaedensity.archive.{place}.worth_asking", lambda *sizes: False)
    monkeypatch.setattr("vaedensity.api.compress._others", lambda *tried: iter(()))


@pytest.fixture
def archive(x: np.ndarray, two_jobs: None, tmp_path: Path) -> Path:
    assert vd.compress({"x": x}, tmp_path / "a.vdz", model=MODEL).model_items == len(x)
    return tmp_path / "a.vdz"


FIT = {"preset": "tiny", "steps": 2, "device": "cpu"}
CALLS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "compress": lambda x, archive: vd.compress({"x": x}, archive.with_name("b.vdz"), model=MODEL, threads=2),
    "compress without a model": lambda x, archive: vd.compress({"x": x}, archive.with_name("b.vdz"), threads=2),
    "decompress": lambda x, archive: vd.decompress(archive, model=MODEL, threads=2),
    "item": lambda x, archive: vd.Archive(archive, model=MODEL)[3],
    "slice": lambda x, archive: vd.Archive(archive, model=MODEL)[3:30],
    "load_model": lambda x, archive: vd.load_model(MODEL),
    "score": lambda x, archive: vd.score(MODEL, x, samples=2, threads=2),
    "self_test": lambda x, archive: vd.self_test(MODEL, vd.ImportanceSampling(2), 2, threads=2),
    "fit": lambda x, archive: vd.fit(x, archive.with_name("m.safetensors"), threads=2, **FIT),
}


def detector(x: np.ndarray, archive: Path) -> None:
    fitted = vd.VAEDensity(preset="tiny", steps=2, device="cpu", samples=2, threads=2).fit(x)
    fitted.predict(x)
    fitted.sample(2)
    fitted.save(archive.with_name("d.safetensors"))
    vd.VAEDensity.load(archive.with_name("d.safetensors")).score_samples(x)


CALLS["VAEDensity"] = detector


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("call", CALLS)
def test_calls_leave_the_process_as_it_was(call: str, x: np.ndarray, archive: Path) -> None:
    CALLS[call](x, archive)  # what is imported and compiled on first use stays
    for path in archive.parent.iterdir():
        if path != archive:
            path.unlink()
    gc.collect()
    before = state()
    CALLS[call](x, archive)
    gc.collect()
    for look, was, found in zip(PROCESS, before, state(), strict=True):
        assert found == was, look


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("call", ["compress", "decompress", "score", "fit"])
def test_failures_leave_the_process_as_it_was(
    call: str, x: np.ndarray, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise ZeroDivisionError

    for place in ("model.hierarchical.HierarchicalVAE.encode", "coding.engine.decode_chains"):
        monkeypatch.setattr(f"vaedensity.{place}", fail)
    gc.collect()
    before = state()
    with pytest.raises(ZeroDivisionError):
        CALLS[call](x, archive)
    gc.collect()
    assert state() == before


def test_the_callers_number_of_threads_is_kept(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as many as there are cores: who sets one thread has his reasons."""
    monkeypatch.setattr("vaedensity.machine.usable_cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    before, seen = torch.get_num_threads(), set()
    decode = engine.decode_chains
    monkeypatch.setattr(workers, "in_processes", lambda *given: pytest.fail("forked"))
    monkeypatch.setattr(
        engine,
        "decode_chains",
        lambda *given: (seen.add((torch.get_num_threads(), threading.active_count())), decode(*given))[1],
    )
    torch.set_num_threads(1)
    try:
        vd.decompress(archive, model=MODEL)
    finally:
        torch.set_num_threads(before)
    assert seen == {(1, 2)}


@pytest.fixture
def another_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.skipif(not can_fork(), reason="this system does not fork")
def test_nothing_is_forked_beside_the_callers_threads(another_thread: None) -> None:
    def work(n: int) -> int:
        time.sleep(0.01)
        return os.getpid()

    assert set(side_by_side(work, range(4), Ticker(lambda n: None), 2)) == {os.getpid()}


@pytest.mark.skipif(not can_fork(), reason="this system does not fork")
def test_nothing_is_forked_within_a_thread() -> None:
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.extend(side_by_side(lambda n: os.getpid(), range(4), Ticker(lambda n: None), 2))
    )
    thread.start()
    thread.join()
    assert set(found) == {os.getpid()}


def test_threads_of_one_caller_do_not_disturb_each_other(x: np.ndarray, archive: Path) -> None:
    """The first to end puts nothing back that others still need."""
    before, found = [look() for look in TORCH], []

    def work() -> None:
        found.append(np.array_equal(vd.decompress(archive, model=MODEL)["x"], x))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3 and [look() for look in TORCH] == before
