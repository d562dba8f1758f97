"""Whatever a caller has set in torch: the same archives, which decode to the same items."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import vaedensity as vd
from vaedensity.archive import model_blocks
from vaedensity.coding.engine import CodingModel
from vaedensity.errors import DamagedArchive, VaedensityError
from vaedensity.model import integer_conv

GOLDEN = Path(__file__).parents[1] / "golden"
IMAGES, SERIES = "seven-sub-images", "series"
both_kinds = pytest.mark.parametrize("kind", [IMAGES, SERIES])
Arrays = dict[str, np.ndarray]


def coarse(value: Any) -> Any:
    """With the digits of bfloat16 alone."""
    return value.bfloat16().to(value.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class CoarseFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return coarse(func(*args, **(kwargs or {})))


class CoarseKernels(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return coarse(func(*args, **(kwargs or {})))


@contextmanager
def switched(put: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    put(value)
    try:
        yield
    finally:
        put(before)


@contextmanager
def part_precision(backend: str, work: str) -> Iterator[None]:
    get, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
    with switched(lambda value: put(backend, work, value), "bf16", get(backend, work)):
        yield


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast to bfloat16": partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    "autocast to float16": partial(torch.autocast, "cpu", dtype=torch.float16),
    "autocast for CUDA": partial(switched, partial(torch.set_autocast_enabled, "cuda"), True, False),
    "medium products": partial(switched, torch.set_float32_matmul_precision, "medium", "highest"),
    "TF32": partial(switched, torch._C._set_cublas_allow_tf32, True, False),
    "default float64": partial(switched, torch.set_default_dtype, torch.float64, torch.float32),
    "default bfloat16": partial(switched, torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default device": partial(switched, torch.set_default_device, "meta", None),
    "a device's block": partial(torch.device, "meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": partial(switched, torch.use_deterministic_algorithms, True, False),
    "no oneDNN": partial(switched, torch._C._set_mkldnn_enabled, False, True),
    "deterministic oneDNN": partial(switched, torch._C._set_mkldnn_deterministic, True, False),
    "no NNPACK": partial(switched, torch.backends.nnpack.set_flags, False, True),
    "two threads": partial(switched, torch.set_num_threads, 2, torch.get_num_threads()),
    "no denormals": partial(switched, torch.set_flush_denormal, True, False),
    "anomalies": partial(torch.autograd.set_detect_anomaly, True),
    "a mode of functions": CoarseFunctions,
    "a mode of kernels": CoarseKernels,
}
if hasattr(torch._C, "_set_fp32_precision_setter"):
    STATES |= {
        f"{'.'.join(part)} of bfloat16": partial(part_precision, *part)
        for part in (("mkldnn", "matmul"), ("mkldnn", "conv"))
    }


@pytest.fixture(autouse=True)
def work_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, by workers who have tried no algorithm yet."""
    monkeypatch.setattr(
        model_blocks, "spans", lambda model, count, *sizes: [(i, min(i + 2, count)) for i in range(0, count, 2)]
    )
    monkeypatch.setattr(CodingModel, "chains_at_once", lambda model, way: 1)
    for place in ("writer", "model_blocks"):  # so few items take less without a model
        monkeypatch.setattr(f"vaedensity.archive.{place}.worth_asking", lambda *sizes: False)
    monkeypatch.setattr("vaedensity.api.compress._others", lambda *tried: iter(()))
    monkeypatch.setattr(integer_conv, "_trusted", {})


def arrays_of(kind: str) -> Arrays:
    with np.load(GOLDEN / f"{kind}.npz") as file:
        return {name: array[:4] for name, array in file.items() if array.ndim > 1}


def packed(kind: str, folder: Path, threads: int) -> bytes:
    out = folder / "a.vdz"
    made = vd.compress(arrays_of(kind), out, model=GOLDEN / f"{kind}.safetensors", overwrite=True, threads=threads)
    assert made.model_items >= 4
    return out.read_bytes()


def unpacked(kind: str, path: Path, threads: int, engine: str = "torch") -> Arrays:
    return vd.decompress(path, model=GOLDEN / f"{kind}.safetensors", threads=threads, engine=engine)


_plain: dict[str, bytes] = {}


def check(kind: str, folder: Path, run: Callable[[Callable[[], Any]], Any]) -> None:
    if kind not in _plain:
        _plain[kind] = packed(kind, folder, 1)
    plain, arrays, name = folder / "plain.vdz", arrays_of(kind), next(iter(arrays_of(kind)))
    plain.write_bytes(_plain[kind])
    assert run(lambda: packed(kind, folder, 2)) == _plain[kind]
    assert np.array_equal(run(lambda: unpacked(kind, plain, 2))[name], arrays[name])
    with vd.Archive(plain, name, model=GOLDEN / f"{kind}.safetensors") as items:
        assert np.array_equal(run(lambda: items[1]), arrays[name][1])
        assert np.array_equal(items[3], arrays[name][3])


PRODUCTS = (
    "autocast to bfloat16",
    "medium products",
    "default bfloat16",
    "inference mode",
    "a mode of functions",
    "mkldnn.matmul of bfloat16",
)


@pytest.mark.parametrize(
    ("kind", "state"), [(IMAGES, s) for s in STATES] + [(SERIES, s) for s in PRODUCTS if s in STATES]
)
def test_archives_are_the_same(state: str, kind: str, tmp_path: Path) -> None:
    def run(work: Callable[[], Any]) -> Any:
        with STATES[state]():
            return work()

    check(kind, tmp_path, run)


@pytest.mark.parametrize("transform", [torch.vmap, lambda f: torch.func.grad(lambda x: f(x).sum())])
def test_archives_are_the_same_within_function_transforms(transform: Any, tmp_path: Path) -> None:
    def run(work: Callable[[], Any]) -> Any:
        found = []
        transform(lambda x: (found.append(work()), x)[1])(torch.ones(2))
        return found[0]

    check(IMAGES, tmp_path, run)


@pytest.fixture
def coarse_modules() -> Iterator[None]:
    """Every module's results are altered: what no switch undoes."""
    hook = torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: coarse(output))
    yield
    hook.remove()


@both_kinds
def test_a_machine_that_computes_otherwise_writes_nothing(kind: str, coarse_modules: None, tmp_path: Path) -> None:
    with pytest.raises(
        VaedensityError, match=r"torch computes the integers of the model .* wrongly; nothing was written"
    ):
        packed(kind, tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


@both_kinds
def test_a_machine_that_computes_otherwise_reads_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(kind, tmp_path, 1)
    request.getfixturevalue("coarse_modules")
    monkeypatch.setattr(CodingModel, "decode", lambda *given: pytest.fail("a block was read"))
    with pytest.raises(VaedensityError, match="this machine computes the model's integers differently") as told:
        unpacked(kind, tmp_path / "a.vdz", 1)
    assert not isinstance(told.value, DamagedArchive)
    with pytest.raises(VaedensityError, match="this machine computes the model's integers differently"):
        vd.Archive(tmp_path / "a.vdz", next(iter(arrays_of(kind))), model=GOLDEN / f"{kind}.safetensors")[0]


@both_kinds
def test_the_numpy_engine_notices_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaedensity.numpy_decoder.layers import Layer

    packed(kind, tmp_path, 1)
    arrays = arrays_of(kind)
    back = unpacked(kind, tmp_path / "a.vdz", 1, "numpy")
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    product = Layer.product

    def coarsely(layer: Layer, columns: np.ndarray) -> np.ndarray:
        return product(layer, (np.ascontiguousarray(columns).view(np.uint32) & 0xFFFF0000).view(np.float32))

    monkeypatch.setattr(Layer, "product", coarsely)
    with pytest.raises(VaedensityError, match="this machine computes the model's integers differently"):
        unpacked(kind, tmp_path / "a.vdz", 1, "numpy")


@pytest.mark.parametrize("state", STATES)
def test_scores_are_the_same(state: str) -> None:
    x = arrays_of(IMAGES)["images"]
    plain = vd.score(GOLDEN / f"{IMAGES}.safetensors", x, samples=3).log_prob_nats
    with STATES[state]():
        found = vd.score(GOLDEN / f"{IMAGES}.safetensors", x, samples=3).log_prob_nats
    assert np.allclose(found, plain, rtol=0, atol=1e-4)  # another library adds in another order


@pytest.mark.parametrize(
    "state", ["inference mode", "no gradients", "autocast to bfloat16", "default float64", "default device"]
)
def test_fits_are_the_same(state: str, tmp_path: Path) -> None:
    x = arrays_of(IMAGES)["images"]
    how = {"preset": "tiny", "steps": 2, "device": "cpu"}
    vd.fit(x, tmp_path / "plain.safetensors", **how)
    with STATES[state]():
        vd.fit(x, tmp_path / "found.safetensors", **how)
    plain, found = (vd.load_model(tmp_path / f"{name}.safetensors") for name in ("plain", "found"))
    assert found.sha256 == plain.sha256
