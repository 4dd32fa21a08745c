"""tract, through the seam that the driver uses: facts, load, forward, and refusals in tract's words."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

import actconform_tract
from actconform import Artifact, Program, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.oracle.layers.model import values
from actconform.run.layer_values import subgraph_to
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform_tract import Tract, words

pytest.importorskip("tract")

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}


@pytest.mark.parametrize("name", ["mlp-softmax", "autoencoder-relu"])
def test_outputs_have_the_names_of_the_graph_not_of_its_nodes(name: str) -> None:
    model = MODELS[name]
    tensors = {n: array.astype(np.float32) for n, array in {**draw_inputs(model), **draw_parameters(model)}.items()}
    layers = values(model, tensors)
    artifact = subgraph_to(author_model(model, "f32"), ["loss", "y"])
    outputs = Tract().load(artifact, "f32").forward(tensors)
    assert set(outputs) == {"loss", "y"}
    np.testing.assert_allclose(outputs["y"], layers[model.output], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["loss"], layers["loss"], rtol=1e-4, atol=1e-4)


def test_an_answer_stays_and_strided_frozen_arrays_are_taken() -> None:
    program = Tract().load(author(KERNELS["relu"], "f32"), "f32")
    x = np.array([3.0, -1.0, 2.0, 5.0], np.float32)[::-2]
    x.setflags(write=False)
    first = program.forward({"x": x})["y"]
    program.forward({"x": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(first, [5.0, 0.0])


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_a_graph_of_rank_1_takes_no_other_rank_but_any_length(shape: tuple[int, ...]) -> None:
    program = Tract().load(author(KERNELS["relu"], "f32"), "f32")
    x = np.full(shape, -1, np.float32)
    if len(shape) == 1:
        np.testing.assert_array_equal(program.forward({"x": x})["y"], np.zeros(shape, np.float32))
    else:
        with pytest.raises(Unsupported):
            program.forward({"x": x})


def test_inputs_go_in_by_name_whatever_their_order() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n] a, float[n] b) => (float[n] y) { y = Sub(a, b) }'
    program = Tract().load(Artifact(parser.parse_model(text).SerializeToString(), 17, "tests"), "f32")
    tensors = {"b": np.full(2, 5, np.float32), "a": np.full(2, 7, np.float32)}
    np.testing.assert_array_equal(program.forward(tensors)["y"], [2.0, 2.0])


def test_facts_are_words() -> None:
    facts = Tract().facts()
    assert facts["tract"].count(".") == 2
    assert facts["subnormals"] in ("kept", "flushed")
    assert all(type(word) is str and word for word in facts.values())


def test_a_refusal_is_in_tracts_words_without_its_stack() -> None:
    with pytest.raises(Unsupported) as refusal:
        Tract().load(author(KERNELS["relu"], "bf16"), "bf16")
    assert str(refusal.value) == "Unknown DatumType Bfloat16"
    assert words(RuntimeError("")) == "no reason given"


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize(("layout", "batch_axis"), [(0, 1), (1, 0)])
def test_a_recurrent_layer_whose_batch_is_open_is_refused_before_tract_aborts(
    operator: str, gates: int, layout: int, batch_axis: int
) -> None:
    def load(open_axis: int) -> Program:
        shape = [5, 4]
        dims = ["open" if axis == open_axis else str(size) for axis, size in enumerate(shape)]
        weights = [
            f"float[1, {gates * 2}, {size}] {name} = {{{', '.join(['0.1'] * gates * 2 * size)}}}"
            for name, size in (("w", 3), ("r", 2))
        ]
        node = f"y = {operator} <hidden_size = 2, layout = {layout}> (x, w, r)"
        text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[{dims[0]}, {dims[1]}, 3] x) => (float[d, e, f, 2] y) <{", ".join(weights)}> {{ {node} }}'
        return Tract().load(Artifact(parser.parse_model(text).SerializeToString(), 17, "tests"), "f32")

    with pytest.raises(Unsupported, match=f"tract aborts .* at {operator} 'y': its batch is left open"):
        load(batch_axis)
    y = load(1 - batch_axis).forward({"x": np.zeros((5, 4, 3), np.float32)})["y"]
    assert y.shape == ((5, 1, 4, 2) if layout == 0 else (5, 4, 1, 2))


def test_float16_goes_in_and_comes_out() -> None:
    x = np.array([-2, 0.5, 65504], np.float16)
    y = Tract().load(author(KERNELS["relu"], "f16"), "f16").forward({"x": x})["y"]
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_the_runtime_is_at_most_eighty_lines_of_code() -> None:
    text = Path(actconform_tract.__file__).read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    code = [line for at, line in lines if line.strip() and not line.strip().startswith("#") and at not in docstrings]
    assert len(code) <= 80
