"""openvino, through the seam that the driver uses: facts, load, forward, and refusals in OpenVINO's words."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper, parser

import actconform_openvino
from actconform import Artifact, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.machine.onednn import onednn_capability
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.oracle.layers.model import values
from actconform.run.layer_values import subgraph_to
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform_openvino import OpenVino, words

pytest.importorskip("openvino")

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}


@pytest.mark.parametrize("name", ["mlp-softmax", "image-cnn-sigmoid", "attention-block"])
def test_outputs_that_are_one_tensor_keep_their_own_names(name: str) -> None:
    model = MODELS[name]
    whole = author_model(model, "f32")
    tensors = {n: array.astype(np.float32) for n, array in {**draw_inputs(model), **draw_parameters(model)}.items()}
    layers = values(model, tensors)
    truth = {"y": layers[model.output], "loss": layers["loss"]}
    for artifact, wanted in (
        (subgraph_to(whole, ["y", "loss"]), truth),  # y is an Identity of the last layer
        (whole, truth | {f"layer.{layer}": value for layer, value in layers.items()}),
    ):
        found = OpenVino().load(artifact, "f32").forward(tensors)
        assert set(found) == set(wanted)
        for output, value in wanted.items():
            np.testing.assert_allclose(found[output], value, rtol=1e-4, atol=1e-4, err_msg=output)


def test_bf16_bits_survive_the_round_trip() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    x = bits.view(ml_dtypes.bfloat16)
    y = OpenVino().load(author(KERNELS["linear"], "bf16"), "bf16").forward({"x": x})["y"]
    numbers = ~np.isnan(x.astype(np.float32))
    np.testing.assert_array_equal(y.view(np.uint16)[numbers], bits[numbers])
    assert np.isnan(y[~numbers].astype(np.float32)).all()


def test_threads_that_call_at_once_do_not_hinder_each_other() -> None:
    program = OpenVino().load(author(KERNELS["relu"], "f32"), "f32")
    arrays = [np.full(1 << 18, value, np.float32) for value in range(4)]

    def called(x: np.ndarray) -> bool:
        return all(np.array_equal(program.forward({"x": x})["y"], x) for _ in range(50))

    with ThreadPoolExecutor(len(arrays)) as pool:
        assert all(pool.map(called, arrays))


def test_an_input_that_no_node_reads_is_left_out_and_one_that_the_graph_lacks_is_refused() -> None:
    graph = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[2] x, float step) => (float[2] y) { y = Relu(x) }'
    )
    program = OpenVino().load(Artifact(graph.SerializeToString(), 18, "tests"), "f32")
    inputs = {"x": np.array([-1, 2], np.float32), "step": np.float32(3)}
    np.testing.assert_array_equal(program.forward(inputs)["y"], [0, 2])
    with pytest.raises(RuntimeError, match="of another graph"):
        program.forward({**inputs, "of another graph": inputs["x"]})


def test_what_comes_back_stays_and_strided_frozen_arrays_are_taken() -> None:
    program = OpenVino().load(author(KERNELS["relu"], "f32"), "f32")
    x = np.array([3.0, -1.0, 2.0, 5.0], np.float32)[::-2]
    x.setflags(write=False)
    first = program.forward({"x": x})["y"]
    program.forward({"x": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(first, [5.0, 0.0])


def test_facts_state_the_precision_that_is_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTCONFORM_THREADS", "2")
    facts = OpenVino().facts()
    assert (facts["precision_hint"], facts["execution_mode"], facts["threads"]) == ("f32", "ACCURACY", "2")
    assert facts["cpu_capability"] == onednn_capability()
    assert "FP32" in facts["capabilities"].split()
    assert facts["subnormals"] in ("kept", "flushed")
    assert facts["openvino"].count(".") == 2
    assert all(type(word) is str for word in facts.values())


def graph(body: str) -> Artifact:
    text = f'<ir_version: 10, opset_import: ["" : 20]> g (float[a,b] x) => (float[c] y) {{ {body} }}'
    return Artifact(parser.parse_model(text).SerializeToString(), 20, "test")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y = Det(x)", "No conversion rule found for operations: Det-20"),
        ("y = SequenceAt(x, x)", "SequenceAt-20 with a message: SequenceAt: 'position' input must be a scalar"),
    ],
)
def test_a_refusal_is_in_openvinos_words_without_places_in_its_source(body: str, said: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        OpenVino().load(graph(body), "f32")
    assert str(refusal.value) == said


def test_a_message_without_words_is_still_a_reason() -> None:
    assert words(RuntimeError("Exception from src/inference/src/cpp/core.cpp:105:\n\n")) == "no reason given"


def test_a_runtime_is_at_most_sixty_lines_of_code() -> None:
    written = 0
    optional = {"surviving_tensors", "reproduction"}
    for source in Path(actconform_openvino.__file__).parent.glob("*.py"):
        if source.stem in ("compiled", "standalone"):  # what is optional
            continue
        text = source.read_text(encoding="utf-8")
        told: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ) or (isinstance(node, ast.FunctionDef) and node.name in optional):
                told |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines = enumerate(text.splitlines(), start=1)
        written += sum(1 for at, line in lines if line.strip() and not line.strip().startswith("#") and at not in told)
    assert written <= 60


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_small_formats_go_in_and_come_out_by_their_bits(dtype: type) -> None:
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [helper.make_tensor_value_info(name, element_type, ["n"]) for name in "xy"]
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["wide"], ["y"], to=element_type),
    ]
    graph = helper.make_graph(nodes, "casts", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    x = np.array([1.5, -2, 3, 0], dtype)
    y = OpenVino().load(Artifact(model.SerializeToString(), 19, "tests"), "f32").forward({"x": x})["y"]
    assert y.dtype == x.dtype
    assert y.tobytes() == x.tobytes()


SWISH = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 8] x) => (float[2, 8] y) <float third = {0.1666667}, float three = {3}> {
        a, b = Split<axis = 1>(x)  j = Concat<axis = 1>(b, a)  p = MatMul(j, w)  t = Add(p, three)  h = Clip(t, zero, six)
        m = Mul(p, h)  s = Mul(m, third)  v, i = TopK<axis = 1>(s, k)  y = Softmax<axis = 1>(v) }"""


@pytest.mark.parametrize("names", ["none", "the same", "with commas"])
def test_marks_on_what_survives_change_no_bit(names: str) -> None:
    rng = np.random.default_rng(3)
    model = parser.parse_model(SWISH)
    constants = {"w": rng.normal(size=(8, 8)), "zero": np.array(0), "six": np.array(6)}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([8]), "k"))
    for number, node in enumerate(model.graph.node):
        node.name = {"none": "", "the same": "node", "with commas": f"{number},y"}[names]
    x = rng.normal(size=(2, 8)).astype(np.float32)
    artifact = Artifact(model.SerializeToString(), 17, "tests")
    survivors = OpenVino().surviving_tensors(artifact, "f32")
    tensors = [output for node in model.graph.node for output in node.output]
    assert [name for name in tensors if name in survivors] == list(survivors)
    assert {"a", "b", "v", "i", "y"} <= set(survivors), "all outputs of a node with several"
    assert {"t", "h", "m"}.isdisjoint(survivors), "x * relu6(x + 3) / 6 is one operation"
    plain = OpenVino().load(artifact, "f32").forward({"x": x})["y"]
    model.graph.output.extend(ValueInfoProto(name=name) for name in survivors if name != "y")
    marked = OpenVino().load(Artifact(model.SerializeToString(), 17, "tests"), "f32").forward({"x": x})
    assert marked["y"].tobytes() == plain.tobytes()
    np.testing.assert_array_equal(marked["b"], x[:, 4:])
    np.testing.assert_array_equal(np.take_along_axis(marked["s"], marked["i"], axis=1), marked["v"])


def test_what_survives_of_a_graph_that_is_refused_is_refused_so() -> None:
    model = parser.parse_model(SWISH.replace("Softmax", "Softmaxx"))
    with pytest.raises(Unsupported):
        OpenVino().surviving_tensors(Artifact(model.SerializeToString(), 17, "tests"), "f32")


def test_what_is_folded_to_a_constant_does_not_survive() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y) <float[4] a = {1, 2, 3, 4}> { c = Mul(a, a)  d = Exp(c)  e = Cos(x)  y = Mul(e, d) }""")
    artifact = Artifact(model.SerializeToString(), 17, "tests")
    assert OpenVino().surviving_tensors(artifact, "f32") == ("e", "y")
