"""openvino, through the seam that the driver uses: facts, load, forward, and refusals in OpenVINO's words."""

from __future__ import annotations

import ast
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import parser

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
    for source in Path(actconform_openvino.__file__).parent.glob("*.py"):
        text = source.read_text(encoding="utf-8")
        told: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                told |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines = enumerate(text.splitlines(), start=1)
        written += sum(1 for at, line in lines if line.strip() and not line.strip().startswith("#") and at not in told)
    assert written <= 60
