"""What torch's programs get ready to be timed is what forward and vjp compute; it goes to the device that it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from actconform import Kernel, Program, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform_torch import TorchBackend
from actconform_torch import torch_module as module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform import Model

    Arrays = dict[str, NDArray[Any]]

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}
DTYPES: dict[str, Any] = {"f32": np.float32, "bf16": ml_dtypes.bfloat16}
ONE = {"loss": np.ones((), np.float32)}


class Elsewhere(TorchBackend):
    """On "meta", a device that computes shapes alone: a tensor that stayed on the CPU would not go together with the others."""

    device = "meta"


def drawn(kernel: Kernel, dtype: str = "f32") -> Arrays:
    rng = np.random.default_rng(50)
    shape = (7, 6, 4) if kernel.axis == 1 else (5, 40)
    return {
        name: rng.uniform(-4, 4, shape if name == "x" else 40).astype(DTYPES[dtype], order="C")
        for name in kernel.inputs
    }


def numbers(model: Model) -> Arrays:
    return {name: array.astype(np.float32) for name, array in {**draw_inputs(model), **draw_parameters(model)}.items()}


def check(program: Program, inputs: Arrays, wanted: Any, cotangents: Any = None) -> None:
    """What is computed, twice, is `wanted`, bit for bit and as tensors; what was given is as before."""
    torch = module.import_torch()
    given = {**inputs, **(cotangents or {})}
    before = {name: array.tobytes() for name, array in given.items()}
    once: Any = program.prepare_call(inputs, cotangents)
    for _ in range(2):
        outputs = once()
        assert list(outputs) == list(wanted)
        assert all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in outputs.values())
        for name, array in wanted.items():
            got = module.array_of(outputs[name], {})
            assert (got.dtype, got.shape) == (array.dtype, array.shape), name
            assert got.tobytes() == np.ascontiguousarray(array).tobytes(), name
    assert {name: array.tobytes() for name, array in given.items()} == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_kernel_is_ready_as_it_is_called(kernel: Kernel, dtype: str) -> None:
    inputs, program = drawn(kernel, dtype), TorchBackend().build(kernel, dtype)
    y = program.forward(inputs)
    check(program, inputs, y)
    cotangents = {"y": np.ones_like(y["y"])}
    if kernel.differentiable:
        check(program, inputs, program.vjp(inputs, cotangents), cotangents)
    else:
        with pytest.raises(Unsupported, match="has no gradient, by declaration"):
            program.prepare_call(inputs, cotangents)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_is_ready_as_it_is_called(model: Model) -> None:
    inputs, program = numbers(model), TorchBackend().build_model(model, "f32")
    check(program, inputs, program.forward(inputs))
    check(program, inputs, program.vjp(inputs, ONE), ONE)


@pytest.fixture
def synchronized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often the device was waited for."""
    seen: list[str] = []
    monkeypatch.setattr(module.import_torch().cuda, "synchronize", lambda: seen.append("waited"))
    return seen


def check_elsewhere(program: Program, inputs: Arrays, cotangents: Any, synchronized: list[str]) -> None:
    once: Any = program.prepare_call(inputs, cotangents)
    synchronized.clear()
    outputs = once()
    assert {tensor.device.type for tensor in outputs.values()} == {"meta"}
    assert synchronized == ["waited"]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_all_of_a_kernel_is_computed_on_its_device(kernel: Kernel, synchronized: list[str]) -> None:
    inputs, program = drawn(kernel), Elsewhere().build(kernel, "f32")
    check_elsewhere(program, inputs, None, synchronized)
    if kernel.differentiable:
        y = TorchBackend().build(kernel, "f32").forward(inputs)["y"]
        check_elsewhere(program, inputs, {"y": np.ones_like(y)}, synchronized)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_all_of_a_model_is_computed_on_its_device(model: Model, synchronized: list[str]) -> None:
    inputs, program = numbers(model), Elsewhere().build_model(model, "f32")
    check_elsewhere(program, inputs, None, synchronized)
    check_elsewhere(program, inputs, ONE, synchronized)
