"""ort-cpu, through the seam that the driver uses: facts, supports, load, forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from actconform import Artifact, Case, Kernel, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.machine.cpu import cpu_capability
from actconform.onnx.author.exporter import author
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS
from actconform_onnxruntime import session
from actconform_onnxruntime.backend import OrtCpu, OrtCuda
from actconform_onnxruntime.session import words

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def inputs_of(kernel: Kernel, width: int, dtype: str) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(width)
    shape = (width,) if kernel.form == "unary" else (2, width, 3) if kernel.axis == 1 else (3, 2 * width)
    inputs = {"x": (2.0 * draw.standard_normal(shape)).astype(NUMPY[dtype])}
    if "slope" in kernel.inputs:
        inputs["slope"] = draw.standard_normal(shape[-1:]).astype(NUMPY[dtype])
    return inputs


def truth_of(kernel: Kernel, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    if kernel.form == "unary":
        return FORMULAS[kernel.name].value(wide["x"], kernel.parameters)
    return ROW_FORMULAS[kernel.name].value(wide, kernel)


def test_bf16_travels_bit_for_bit() -> None:
    every = np.arange(2**16, dtype=np.uint16)
    program = OrtCpu().load(author(KERNELS["linear"], "bf16"), "bf16")
    y = program.forward({"x": every.view(ml_dtypes.bfloat16)})["y"]
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y.view(np.uint16), every)
    assert program.forward({"x": np.empty(0, ml_dtypes.bfloat16)})["y"].shape == (0,)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_float8_goes_in_and_comes_out_by_its_bits(dtype: str) -> None:
    numbers = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, dtype))
    numbers = numbers[np.isfinite(numbers.astype(np.float32))]
    element_type = helper.np_dtype_to_tensor_dtype(numbers.dtype)
    ends = [helper.make_tensor_value_info(name, element_type, None) for name in "xyz"]
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Cast", ["wide"], ["y"], to=element_type),
        helper.make_node("Identity", ["x"], ["z"]),
    ]
    graph = helper.make_graph(nodes, "casts", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    program = OrtCpu().load(Artifact(model.SerializeToString(), 19, "tests"), "f32")
    for x in (numbers, numbers[:0], numbers[0]):
        for output in program.forward({"x": x}).values():
            assert output.dtype == numbers.dtype
            assert output.shape == x.shape
            assert output.tobytes() == x.tobytes()


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_an_answer_is_memory_of_its_own(dtype: str) -> None:
    program = OrtCpu().load(author(KERNELS["linear"], dtype), dtype)
    x = np.arange(8).astype(NUMPY[dtype])
    first = program.forward({"x": x})["y"]
    first[:] = -1
    np.testing.assert_array_equal(x, np.arange(8).astype(NUMPY[dtype]))
    np.testing.assert_array_equal(program.forward({"x": x})["y"], x)
    program.close()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_inputs_need_not_be_contiguous(dtype: str) -> None:
    program = OrtCpu().load(author(KERNELS["linear"], dtype), dtype)
    x = np.arange(16).astype(NUMPY[dtype])[::-2]
    np.testing.assert_array_equal(program.forward({"x": x})["y"], x)


def test_a_name_that_the_graph_lacks_is_an_error_not_a_guess() -> None:
    program = OrtCpu().load(author(KERNELS["prelu"], "f32"), "f32")
    with pytest.raises(ValueError, match="slope"):
        program.forward({"x": np.zeros((2, 3), np.float32)})


def model(operator: str, opset: int, domain: str = "") -> bytes:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    nodes = [helper.make_node(operator, ["x"], ["y"], domain=domain)]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("elsewhere", 1)]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:])
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


@pytest.mark.parametrize(
    ("operator", "opset", "domain", "word"),
    [("Relu", 9999, "", "opset"), ("Rellu", 24, "", "Rellu"), ("Relu", 24, "elsewhere", "elsewhere")],
)
def test_a_refused_graph_is_unsupported_in_the_runtimes_words(
    operator: str, opset: int, domain: str, word: str
) -> None:
    with pytest.raises(Unsupported, match=word) as refusal:
        OrtCpu().load(Artifact(model=model(operator, opset, domain), opset=opset, path="test"), "f32")
    assert "ONNXRuntimeError" not in str(refusal.value)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : No implementation for Elu(22) node with name 'Elu_0'",
            "NOT_IMPLEMENTED: No implementation for Elu(22)",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /src/core/graph/model.cc:181 Model(Options&) Unsupported IR version: 12\n",
            "FAIL: Unsupported IR version: 12",
        ),
        (
            "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. Type Error: Type 'tensor(float16)'",
            "INVALID_GRAPH: Type Error: Type 'tensor(float16)'",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /src/memcpy.cc:253 bool A::B(Node&) const !x.empty() was false. Provider type is not set",
            "FAIL: Provider type is not set",
        ),
    ],
)
def test_words_are_a_line_without_noise(raised: str, told: str) -> None:
    assert words(RuntimeError(raised)) == told


IR = "model.cc:180 Model(const ModelOptions&) Unsupported model IR version: 12, max supported IR version: 10"
OPSETS = "model_load_utils.h:46 void ValidateOpset(int) ONNX Runtime only *guarantees* support for ... Opset 24 is under development. Current official support for domain ai.onnx is till opset 21."


@pytest.mark.parametrize(
    ("error", "said", "limit"),
    [("InvalidArgument", IR, "IR version 10"), ("Fail", IR, "IR version 10"), ("Fail", OPSETS, "opset 21")],
)
def test_a_graph_that_is_too_new_is_unsupported_and_by_what_is_said(
    error: str, said: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    def refusing(*_: Any, **__: Any) -> None:
        raise getattr(state, error)(f"[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/{said}")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refusing)
    graph = "the graph is of opset 24 (newest operator: Swish-24) and IR version 12"
    with pytest.raises(Unsupported) as refusal:
        OrtCpu().load(author(KERNELS["silu"], "f32"), "f32")
    assert str(refusal.value) == f"{graph}; onnxruntime {onnxruntime.__version__} takes {limit} at most"


def test_another_invalid_argument_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    def refusing(*_: Any, **__: Any) -> None:
        raise InvalidArgument("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : no such provider")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refusing)
    with pytest.raises(InvalidArgument):
        OrtCpu().load(author(KERNELS["silu"], "f32"), "f32")


def test_a_release_that_takes_no_bfloat16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.delattr(onnxruntime.OrtValue, "ortvalue_from_numpy_with_onnx_type")
    program = OrtCpu().load(author(KERNELS["linear"], "bf16"), "bf16")
    with pytest.raises(Unsupported, match=r"takes no bfloat16 from Python: take 1\.20 or newer"):
        program.forward({"x": np.ones(3, ml_dtypes.bfloat16)})


def test_a_graph_that_is_refused_only_when_it_runs_is_unsupported_too() -> None:
    shape = (1, 1, 2, 2, 2, 2)
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1, 2, 2])
    graph = helper.make_graph([pool], "four", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    program = OrtCpu().load(Artifact(model, opset=20, path="by hand"), "f32")
    with pytest.raises(Unsupported, match=r"INVALID_ARGUMENT: .*Unsupported pooling size"):
        program.forward({"x": np.ones(shape, np.float32)})
    with pytest.raises(Exception, match="missing from input feed") as error:  # a wrong name is no refusal
        program.forward({"z": np.ones(shape, np.float32)})
    assert not isinstance(error.value, Unsupported)


def test_what_a_run_calls_not_supported_is_a_refusal() -> None:
    """Dilation with padding that ONNX Runtime is to find itself."""
    shapes = {"x": [1, 1, 5, 5], "w": [1, 1, 2, 2], "y": None}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    conv = helper.make_node("Conv", ["x", "w"], ["y"], dilations=[2, 2], auto_pad="SAME_UPPER")
    graph = helper.make_graph([conv], "dilated", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    program = OrtCpu().load(Artifact(model, opset=20, path="by hand"), "f32")
    with pytest.raises(Unsupported, match=r"INVALID_ARGUMENT: .*Dilation not supported"):
        program.forward({"x": np.ones((1, 1, 5, 5), np.float32), "w": np.ones((1, 1, 2, 2), np.float32)})


def test_a_damaged_model_is_an_error_not_a_refusal() -> None:
    with pytest.raises(Exception, match=r"(?i)protobuf") as error:
        OrtCpu().load(Artifact(model=b"\xff\xff damaged", opset=24, path="test"), "f32")
    assert not isinstance(error.value, Unsupported)


def test_onnxruntimes_own_retreat_to_another_provider_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked: dict[str, Any] = {}
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *args, **kwargs: asked.update(kwargs) or make(*args, **kwargs)
    )
    OrtCpu().load(author(KERNELS["relu"], "f32"), "f32")
    assert asked == {"providers": ["CPUExecutionProvider"], "enable_fallback": 0}


LEVELS = ["", *OrtCpu.levels, *(f"without {name}" for name in OrtCpu.optimizers)]


@pytest.mark.parametrize("name", ["gelu-erf", "log-sigmoid", "softmax"])
def test_every_level_gives_an_answer_near_the_truth(name: str) -> None:
    kernel = KERNELS[name]
    inputs = inputs_of(kernel, 17, "f32")
    artifact = author(kernel, "f32")
    for level in LEVELS:
        y = OrtCpu().load(artifact, "f32", level).forward(inputs)["y"]
        np.testing.assert_allclose(y, truth_of(kernel, inputs), rtol=1e-5, atol=1e-5, err_msg=level)


def test_the_level_reaches_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen: list[tuple[str, Any]] = []
    make = onnxruntime.InferenceSession

    def spy(model: bytes, chosen: Any, **kwargs: Any) -> Any:
        seen.append((chosen.graph_optimization_level.name, kwargs.get("disabled_optimizers")))
        return make(model, chosen, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    for level in ("", *OrtCpu.levels, "without ConstantFolding"):
        OrtCpu().load(author(KERNELS["relu"], "f32"), "f32", level)
    default = onnxruntime.SessionOptions().graph_optimization_level.name
    assert seen[0] == (default, None)
    assert seen[1] == ("ORT_DISABLE_ALL", None)
    assert [name for name, _ in seen[1:-1]] == [f"ORT_{name}" for name in session.LEVELS.values()]
    assert seen[-1] == (default, ["ConstantFolding"])


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(KeyError, match="most"):
        OrtCpu().load(author(KERNELS["relu"], "f32"), "f32", "most")


def folded() -> bytes:
    """Return the graph of x + (2 + 3): a constant is folded in it."""
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    two, three = (onnx.numpy_helper.from_array(np.float32(value), name) for value, name in ((2, "a"), (3, "b")))
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    graph = helper.make_graph(nodes, "folded", ends[:1], ends[1:], initializer=[two, three])
    opsets = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def test_without_an_optimizer_its_rewriting_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, written = session.options, tmp_path / "optimized.onnx"

    def writing() -> Any:
        chosen = plain()
        chosen.optimized_model_filepath = str(written)
        return chosen

    monkeypatch.setattr(session, "options", writing)
    nodes = {}
    for level in ("", "disabled", "without ConstantFolding"):
        program = OrtCpu().load(Artifact(model=folded(), opset=20, path="test"), "f32", level)
        np.testing.assert_array_equal(program.forward({"x": np.float32([1.0])})["y"], np.float32([6.0]))
        nodes[level] = len(onnx.load(written).graph.node)
    assert nodes == {"": 1, "disabled": 2, "without ConstantFolding": 2}


def test_implementation_tells_the_path_and_what_the_runtime_made_of_it() -> None:
    backend = OrtCpu()
    assert backend.load(author(KERNELS["relu"], "f32"), "f32").implementation == "operator: Relu"
    expanded = backend.load(author(KERNELS["mish"], "f32"), "f32").implementation
    assert expanded.startswith("operator: Mish")


@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_both_aspects_are_taken_as_both_are_graphs(aspect: Literal["value", "gradient"]) -> None:
    for backend in (OrtCpu(), OrtCuda()):
        assert backend.supports(Case("relu", aspect, "f32", "authored+ort-cpu")).yes


def test_facts_say_what_may_explain_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setenv("ACTCONFORM_THREADS", "2")
    facts = OrtCpu().facts()
    assert facts["onnxruntime"] == onnxruntime.__version__
    assert facts["threads"] == "2"
    assert facts["device"] == "cpu"
    assert facts["optimization"] == "all"
    assert facts["subnormals"] in {"kept", "flushed"}
    assert facts["cpu_capability"] == cpu_capability()
    assert all(isinstance(value, str) and value for value in facts.values())
