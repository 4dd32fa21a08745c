"""What is timed: the same answers as `forward`, from tensors that stay where they are."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from actconform import Artifact, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.onnx.gradient_artifact import vjp_artifact
from actconform.run.layer_values import subgraph_to
from actconform.types.model import LOSS
from actconform_onnxruntime.backend import OrtCpu
from actconform_onnxruntime.program import BoundRun
from actconform_onnxruntime.tensors import from_ort

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks()}
NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def bits(tensors: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in tensors.items()}


def outputs(bound: Any) -> dict[str, Any]:
    assert isinstance(bound, BoundRun)
    return {name: from_ort(value).copy() for name, value in bound.outputs.items()}


def check(artifact: Artifact, inputs: dict[str, Any]) -> BoundRun:
    program = OrtCpu().load(artifact, "f32")
    before, expected = bits(inputs), bits(program.forward(inputs))
    once = program.prepare_call(inputs)
    for _ in range(3):
        once()
        assert bits(outputs(once)) == expected
    assert bits(inputs) == before
    return once  # type: ignore[return-value]


OF_KERNELS = [(name, dtype) for name in ("linear", "relu", "argmax", "softmax", "prelu") for dtype in ("f32", "f16")]


@pytest.mark.parametrize(("name", "dtype"), [*OF_KERNELS, ("linear", "bf16")])
def test_a_bound_run_answers_as_forward_does_again_and_again(name: str, dtype: str) -> None:
    kernel = KERNELS[name]
    draw = np.random.default_rng(7)
    shapes = {"x": (67,) if kernel.form == "unary" else (4, 6), "slope": (6,)}
    check(
        author(kernel, dtype), {name: draw.standard_normal(shapes[name]).astype(NUMPY[dtype]) for name in kernel.inputs}
    )


def test_a_gradient_graph_is_timed_with_its_cotangents_among_the_inputs() -> None:
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(2, 6)
    graph = vjp_artifact(author(KERNELS["glu"], "f32"), KERNELS["glu"])
    once = check(graph, {"x": x, "ct_y": np.ones((2, 3), np.float32)})
    assert outputs(once)["d_x"].shape == x.shape


def test_a_model_is_timed() -> None:
    model = MODELS["mlp-relu"]
    graph = subgraph_to(author_model(model, "f32"), ["y", LOSS])
    draw = np.random.default_rng(1)
    inputs = {}
    for value in onnx.load_model_from_string(graph.model).graph.input:
        shape = [dim.dim_value or 3 for dim in value.type.tensor_type.shape.dim]
        integer = value.type.tensor_type.elem_type == TensorProto.INT64
        inputs[value.name] = np.zeros(shape, np.int64) if integer else draw.standard_normal(shape).astype(np.float32)
    check(graph, inputs)


def artifact(nodes: list[Any], x: list[Any], y: list[Any]) -> Artifact:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n, dims in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Artifact(model.SerializeToString(), opset=20, path="test")


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5)])
def test_an_output_never_shares_the_memory_of_an_input(shape: tuple[int, ...]) -> None:
    dims = [f"d{at}" for at in range(len(shape))]
    x = np.full(shape, 2.0, np.float32)
    once = check(artifact([helper.make_node("Identity", ["x"], ["y"])], dims, dims), {"x": x})
    assert once.outputs["y"].data_ptr() != x.ctypes.data or x.size == 0


def test_inputs_are_read_where_they_lie_and_outputs_stay_in_place() -> None:
    x = np.arange(64, dtype=np.float32)
    once = OrtCpu().load(author(KERNELS["relu"], "f32"), "f32").prepare_call({"x": x})
    place = once.outputs["y"].data_ptr()  # type: ignore[attr-defined]
    x[:] = -x + 1
    once()
    np.testing.assert_array_equal(outputs(once)["y"], np.maximum(x, 0))
    assert once._binding.get_outputs()[0].data_ptr() == place  # type: ignore[attr-defined]


def test_inputs_need_not_be_contiguous_nor_be_kept_by_the_caller() -> None:
    once = (
        OrtCpu()
        .load(author(KERNELS["linear"], "bf16"), "bf16")
        .prepare_call({"x": np.arange(4096).astype(ml_dtypes.bfloat16)[::-2]})
    )
    _ = [np.full(4096, -1.0, np.float32) for _ in range(50)]
    once()
    assert outputs(once)["y"].tobytes() == np.arange(4096).astype(ml_dtypes.bfloat16)[::-2].tobytes()


def test_a_graph_has_no_vjp_of_its_own() -> None:
    x = np.ones(3, np.float32)
    with pytest.raises(Unsupported, match="computes no gradients"):
        OrtCpu().load(author(KERNELS["relu"], "f32"), "f32").prepare_call({"x": x}, {"y": x})()


def test_what_is_bound_for_cuda_lies_on_the_device() -> None:
    """The order of calls on a recorder: transfers before the first run, waiting for the device in every run."""
    said: list[str] = []

    class Value:
        def data_type(self) -> str:
            return "tensor(float)"

    class Binding:
        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                said.append(" ".join([name, *(a for a in arguments if isinstance(a, str))]))
                return [Value()] if name == "get_outputs" else None

            return call

    class OnDevice:
        def io_binding(self) -> Binding:
            return Binding()

        def run_with_iobinding(self, _: Binding) -> None:
            said.append("run")

    once = BoundRun(OnDevice(), {"x": np.ones(3, np.float32)}, ["y"], "cuda")
    run = ["run", "synchronize_outputs"]
    assert said == [
        "bind_ortvalue_input x", "synchronize_inputs", "bind_output y cuda", *run, "get_outputs", "bind_ortvalue_output y"
    ]  # fmt: skip
    said.clear()
    once()
    assert said == run
