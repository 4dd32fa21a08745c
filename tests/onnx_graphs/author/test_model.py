"""The authored graphs of models: valid by onnx's checker, and right in ONNX Runtime, our correctly rounded evaluator and onnx's reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from actconform import Unsupported
from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.layer_kinds import ACTIVATIONS, KINDS
from actconform.catalog.models.zoo import networks
from actconform.onnx.author.exporter import OLDEST_OPSET, OPSET
from actconform.onnx.author.model import author_model
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.gates import inspect_model
from actconform.onnx.nodes import LAYER_GRAPHS, layer_graph
from actconform.oracle.layers.model import values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import Input, Layer, Model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

IMAGE = Input(name="x", shape=(7, 5, 3), draw="normal")
SEQUENCE = Input(name="x", shape=(4, 6), draw="normal")


def described(name: str, x: Input, layers: list[Layer], target: tuple[int, ...], *, training: bool = False) -> Model:
    """Return a model of these layers, of which the last is the output."""
    inputs = [x, Input(name="target", shape=target, draw="normal", role="target")]
    layers = [*layers, layer("loss", "mean-squared-error", layers[-1].name, "target")]
    return describe(name, "a test", inputs, layers, output=layers[-2].name, batch=3, training=training)


# What no built-in network has: strides under "same", other ranks, a wide shift.
ODD = [
    described(
        "strides",
        IMAGE,
        [
            layer("conv", "conv2d", "x", filters=4, size=(3, 2), strides=(2, 3), padding="same"),
            layer("pool", "max-pool", "conv", size=(3, 2), strides=(2, 1), padding="same"),
            layer("up", "up-sampling", "pool", size=(3, 2)),
        ],
        (6, 4, 4),
    ),
    described(
        "strides-valid",
        IMAGE,
        [
            layer("conv", "conv2d", "x", filters=2, size=(2, 3), strides=(2, 1)),
            layer("pool", "max-pool", "conv", size=(2, 2)),
        ],
        (2, 2, 2),
    ),
    described(
        "windows",
        IMAGE,
        [
            layer("conv", "conv2d", "x", filters=6, size=(2, 2), dilations=(2, 3), padding="same"),
            layer("depthwise", "conv2d", "conv", filters=6, size=(3, 3), groups=6),
            layer("up", "conv2d-transpose", "depthwise", filters=4, size=(3, 4), strides=(2, 3), padding="same"),
            layer("gaps", "conv2d-transpose", "up", filters=3, size=(1, 2), strides=(2, 3)),
            layer("pool", "average-pool", "gaps", size=(3, 2), strides=(2, 2), padding="same"),
            layer("resize", "bilinear-resize", "pool", size=(5, 3)),
            layer("mean", "global-average-pool", "resize"),
        ],
        (3,),
    ),
    described("norm-of-sequence", SEQUENCE, [layer("norm", "batch-norm", "x", epsilon=1e-3, momentum=0.9)], (4, 6)),
    described("norm-of-each-row", SEQUENCE, [layer("norm", "layer-norm", "x", epsilon=1e-2)], (4, 6)),
    described(
        "norm-of-sequence-training",
        SEQUENCE,
        [layer("norm", "batch-norm", "x", epsilon=1e-3, momentum=0.9)],
        (4, 6),
        training=True,
    ),
    described(
        "norm-of-rows",
        Input(name="x", shape=(6,), draw="normal"),
        [layer("norm", "batch-norm", "x", epsilon=1e-3, momentum=0.9)],
        (6,),
        training=True,
    ),
    *(
        described(
            f"{kernel}-of-sequence",
            SEQUENCE,
            [layer("activation", "activation", "x", kernel=kernel)],
            (4, 3 if ACTIVATIONS[kernel].output_width == "half" else 6),
        )
        for kernel in sorted(ACTIVATIONS)
    ),
    described(
        "nothing",
        SEQUENCE,
        [layer("same", "affine", "x"), layer("linear", "activation", "same", kernel="linear")],
        (4, 6),
    ),
    described(
        "shift",
        Input(name="x", shape=(6,), draw="normal"),
        [layer("s", "dense", "x", units=5), layer("shifted", "circular-shift", "x", "s")],
        (6,),
    ),
]
MODELS = {model.name: model for model in (*networks(), *ODD) if "@published" not in model.name}

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def tensors_of(model: Model, batch: int) -> dict[str, NDArray[np.float32]]:
    return {**draw_inputs(msgspec.structs.replace(model, batch=batch)), **draw_parameters(model)}


def onnxruntime(model: bytes, tensors: Mapping[str, Any]) -> dict[str, Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(tensors)), strict=True))


def assert_near(model: Model, answers: Mapping[str, Any], truth: Mapping[str, Any], tolerance: float) -> None:
    """Hold every layer's values, "y" and "loss" to the truth, within a part of the largest value of the layer."""
    expected = {f"layer.{name}": value for name, value in truth.items()} | {
        "y": truth[model.output],
        "loss": truth["loss"],
    }
    assert set(answers) == set(expected)
    for name, value in expected.items():
        assert answers[name].shape == value.shape, name
        np.testing.assert_allclose(answers[name], value, rtol=0, atol=tolerance * np.abs(value).max(), err_msg=name)


@each_model
def test_a_graph_passes_the_checker_and_the_gates_in_every_dtype(model: Model) -> None:
    for dtype in ("f32", "f16", "bf16"):
        artifact = author_model(model, dtype)
        onnx.checker.check_model(artifact.model, full_check=True)
        assert inspect_model(artifact, model, dtype, constants=False) == []


@each_model
def test_the_opset_makes_no_difference_to_what_is_computed(model: Model) -> None:
    proto = onnx.load_from_string(author_model(model, "f32").model)
    tensors = tensors_of(model, 3)
    read = {value.name for value in proto.graph.input}
    answers = []
    for opset in (proto.opset_import[0].version, OPSET):
        proto.opset_import[0].version = opset
        answers.append(ReferenceEvaluator(proto).run(None, {n: a for n, a in tensors.items() if n in read}))
    for lowest, newest in zip(*answers, strict=True):
        np.testing.assert_array_equal(lowest, newest)


@each_model
def test_a_graph_has_the_models_tensors_and_standard_operators_alone(model: Model) -> None:
    artifact = author_model(model, "f32")
    proto = onnx.load_from_string(artifact.model)
    named = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.input}
    assert list(named) == [one.name for one in (*model.inputs, *model.parameters)]
    for one in model.inputs:
        assert [dim.dim_param or dim.dim_value for dim in named[one.name]] == ["b", *one.shape]
    for parameter in model.parameters:
        assert [dim.dim_value for dim in named[parameter.name]] == list(parameter.shape)
    outputs = [value.name for value in proto.graph.output]
    assert outputs == ["y", "loss", *(f"layer.{one.name}" for one in model.layers)]
    shapes = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.output}
    for name, shape in model.shapes.items():
        assert [dim.dim_value for dim in shapes[f"layer.{name}"]] == ([] if name == "loss" else [0, *shape])
    ((domain, opset),) = ((entry.domain, entry.version) for entry in proto.opset_import)
    assert domain == ""
    assert OLDEST_OPSET <= opset <= OPSET
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions
    assert artifact.path.startswith("composition: ")
    assert set(artifact.path.removeprefix("composition: ").split(", ")) == {node.op_type for node in proto.graph.node}


@pytest.mark.parametrize("batch", [1, 7])
@each_model
def test_onnx_runtime_computes_the_truth_at_any_batch(model: Model, batch: int) -> None:
    tensors = tensors_of(model, batch)
    answers = onnxruntime(author_model(model, "f32").model, tensors)
    # two rows or fewer make variances small, and what is divided by their roots worse
    assert_near(model, answers, values(model, tensors), 1e-5)


@pytest.mark.parametrize("batch", [1, 7])
@each_model
def test_the_graph_itself_is_right(model: Model, batch: int) -> None:
    """Nothing rounded between nodes: what is left are constants of float32, epsilons and scales."""
    tensors = tensors_of(model, batch)
    answers = CorrectlyRoundedEvaluator(author_model(model, "f32").model, rounding=False).forward(tensors)
    assert_near(model, answers, values(model, tensors), 2e-7)


@each_model
def test_both_witnesses_evaluate_the_graph(model: Model) -> None:
    tensors, artifact = tensors_of(model, 3), author_model(model, "f32")
    truth = values(model, tensors)
    assert_near(model, CorrectlyRoundedEvaluator(artifact.model).forward(tensors), truth, 2e-6)
    assert_near(model, reference(artifact.model)(tensors), truth, 1e-5)


def test_every_kind_of_layer_has_a_graph_that_some_model_writes() -> None:
    assert set(LAYER_GRAPHS) == set(KINDS)
    written = {one.kind for model in MODELS.values() for one in model.layers}
    assert set(KINDS) == written


def test_allocation_takes_slots_of_equal_use_in_order_and_usages_of_zero() -> None:
    model = described("slots", Input(name="x", shape=(5,), draw="unit"), [layer("allocation", "allocation", "x")], (5,))
    x = np.array([[0.5, 0.0, 0.5, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0], [0.25, 0.25, 0.25, 0.25, 0.25]], np.float32)
    y = onnxruntime(author_model(model, "f32").model, {"x": x, "target": x})["y"]
    np.testing.assert_allclose(y[0], [0, 1, 0, 0, 0])
    np.testing.assert_allclose(y[1], 0)
    np.testing.assert_allclose(y[2], 0.75 * 0.25 ** np.arange(5), rtol=1e-6)


def test_losses_of_probabilities_are_finite_where_a_head_is_certain() -> None:
    x = Input(name="x", shape=(2,), draw="normal")
    for loss in ("binary-cross-entropy", "categorical-cross-entropy"):
        target = Input(name="target", shape=(2,), draw="one-hot", role="target")
        layers = [layer("head", "activation", "x", kernel="softmax"), layer("loss", loss, "head", "target")]
        model = describe(loss, "a test", [x, target], layers, output="head", batch=1)
        tensors = {"x": np.array([[200.0, 0.0]], np.float32), "target": np.array([[0.0, 1.0]], np.float32)}
        answers = onnxruntime(author_model(model, "f32").model, tensors)
        assert_near(model, answers, values(model, tensors), 1e-3)


def test_the_same_model_gives_the_same_bytes() -> None:
    model = MODELS["dnc-memory"]
    assert author_model(model, "f16") == author_model(model, "f16")


def test_what_has_no_graph_is_unsupported_by_layer() -> None:
    model = MODELS["linear-stack"]
    strange = msgspec.structs.replace(model.layers[0], kind="bilinear")
    with pytest.raises(Unsupported, match=r"layer dense1: no authored graph for kind bilinear: .*\.layer_graph"):
        author_model(msgspec.structs.replace(model, layers=(strange, *model.layers[1:])), "f32")


def test_two_graphs_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="two graphs for layers of kind 'dense'"):
        layer_graph("dense")(lambda g, at: g.Identity(at.inputs[0]))
