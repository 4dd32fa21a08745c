"""The graph of a step: against the definition of the optimizers and the float64 gradients, and what it refuses."""

from __future__ import annotations

import doctest
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from actconform.catalog.models.feedforward import image_cnn, mlp
from actconform.errors import UnsupportedOperator, UsageError
from actconform.onnx import model_of_state, step_graph, train_step, training_state
from actconform.onnx.author.model import author_model
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import io_names, standard_opset
from actconform.onnx.step_graph import training_graph
from actconform.oracle.training.optimizers import updated
from actconform.oracle.training.trajectory import after_step, initial_slots, passed_through
from actconform.testdata.training_tasks import training_task
from actconform.types.model import LOSS
from actconform.types.training import Experiment, Forms, Optimizer
from actconform.types.training_run import NEXT, RATE, STEP

if TYPE_CHECKING:
    from actconform.types.model import Model

OPTIMIZERS = {
    "sgd": Optimizer(kind="sgd", learning_rate=0.05),
    "momentum": Optimizer(kind="sgd", learning_rate=0.05, momentum=0.9),
    "nesterov": Optimizer(kind="sgd", learning_rate=0.05, momentum=0.9, nesterov=True),
    "adam": Optimizer(kind="adam", learning_rate=0.01),
    "adamw": Optimizer(kind="adamw", learning_rate=0.01, weight_decay=0.1),
    "rmsprop": Optimizer(kind="rmsprop", learning_rate=0.01, beta2=0.9),
    "decayed": Optimizer(kind="adam", learning_rate=0.1, decay=0.5, decay_steps=2),
}
# The graph's constants are float32, and of near-equal terms those in 1 - beta are exact.
CLOSE = {"rtol": 2e-6, "atol": 2e-7}


def experiment(model: Model, data: str, optimizer: Optimizer, evaluation: Model | None = None) -> Experiment:
    small = msgspec.structs.replace(model, batch=8)
    return Experiment(
        name="small",
        source="tests",
        model=small,
        evaluation=evaluation or small,
        data=data,
        examples=32,
        validation=8,
        batch=8,
        epochs=1,
        optimizer=optimizer,
    )


def expect_steps_of_the_truth(trained: Experiment, graph: bytes, steps: int) -> None:
    """Each step in float64 from one state, rounded to float32, gives the state, the loss and the gradients of the definition."""
    task = training_task(trained)
    program, (names, _) = CorrectlyRoundedEvaluator(graph, rounding=False), io_names(graph)
    state = {**task.state, **initial_slots(trained)}
    for number in range(steps):
        state = {name: np.asarray(array, np.float32) for name, array in state.items()}
        tensors = {**task.batch(number), **state, **counted(number + 1, trained.optimizer)}
        outputs = program.forward({name: tensors[name] for name in names})
        truth = passed_through(trained.model, {**task.batch(number), **state})
        following = after_step(trained, Forms(), number + 1, state, truth)
        np.testing.assert_allclose(outputs[LOSS], truth.loss, **CLOSE)
        for name in trained.differentiable:
            np.testing.assert_allclose(outputs[f"d_{name}"], truth.gradients[f"d_{name}"], err_msg=name, **CLOSE)
        for name, array in following.items():
            np.testing.assert_allclose(outputs[NEXT + name], array, err_msg=f"{name}, step {number + 1}", **CLOSE)
        state = following


def counted(step: int, optimizer: Optimizer) -> dict[str, Any]:
    return {STEP: np.asarray(step, np.int64), RATE: np.asarray(optimizer.rate(step), np.float32)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_steps_are_those_of_the_definition(optimizer: Optimizer) -> None:
    trained = experiment(mlp("softplus", published=False), "noise", optimizer)
    graph = training_graph(author_model(trained.model, "f32").model, trained)
    expect_steps_of_the_truth(trained, graph, steps=4)


def test_running_statistics_follow_the_batches() -> None:
    model, inference = (image_cnn("sigmoid", published=False, training=training) for training in (True, False))
    trained = experiment(model, "images", OPTIMIZERS["adam"], inference)
    forward = author_model(trained.model, "f32").model
    expect_steps_of_the_truth(trained, training_graph(forward, trained), steps=3)
    without = onnx.load_from_string(forward)
    for node in without.graph.node:
        if node.op_type == "BatchNormalization":
            decompose(without, node)
    onnx.checker.check_model(without)
    expect_steps_of_the_truth(trained, training_graph(without.SerializeToString(), trained), steps=3)


def decompose(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Leave normalization by the batch to operators that give no running statistics, as some exporters do."""
    assert standard_opset(model) < 18, "axes are an attribute"
    x, gamma, beta, *_ = node.input
    (y, *_), at, epsilon = node.output, node.name, next(a.f for a in node.attribute if a.name == "epsilon")
    by_channel, small = f"{at}/by_channel", f"{at}/epsilon"
    for name, value in ((by_channel, np.array([1, -1, 1, 1])), (small, np.float32(epsilon))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    parts = [
        ("ReduceMean", [x], "mean"),
        ("Sub", [x, f"{at}/mean"], "error"),
        ("Mul", [f"{at}/error", f"{at}/error"], "square"),
        ("ReduceMean", [f"{at}/square"], "variance"),
        ("Add", [f"{at}/variance", small], "above"),
        ("Sqrt", [f"{at}/above"], "root"),
        ("Div", [f"{at}/error", f"{at}/root"], "standard"),
        ("Reshape", [gamma, by_channel], "gamma"),
        ("Reshape", [beta, by_channel], "beta"),
        ("Mul", [f"{at}/standard", f"{at}/gamma"], "scaled"),
        ("Add", [f"{at}/scaled", f"{at}/beta"], "y"),
    ]
    nodes = [
        helper.make_node(
            operator,
            read,
            [y if result == "y" else f"{at}/{result}"],
            **({"axes": [0, 2, 3]} if operator == "ReduceMean" else {}),
        )
        for operator, read, result in parts
    ]
    place = list(model.graph.node).index(node)
    every = [*model.graph.node[:place], *nodes, *model.graph.node[place + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(every)


def test_a_parameter_that_the_graph_does_not_read_has_gradient_zero_and_decays() -> None:
    trained = experiment(mlp("relu", published=False), "noise", OPTIMIZERS["adamw"])
    forward = onnx.load_from_string(author_model(trained.model, "f32").model)
    read = [value for value in forward.graph.input if value.name != "head.bias"]
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "head.bias")
    del forward.graph.input[:]
    forward.graph.input.extend(read)
    forward.graph.initializer.append(zero)
    forward.graph.initializer[-1].name = "zero"
    for node in forward.graph.node:
        node.input[:] = ["zero" if name == "head.bias" else name for name in node.input]
    graph = training_graph(forward.SerializeToString(), trained)
    task = training_task(trained)
    state = {**task.state, **{name: np.float32(array) for name, array in initial_slots(trained).items()}}
    state["head.bias"] = np.ones(1, np.float32)
    tensors = {**task.batch(0), **state, **counted(1, trained.optimizer)}
    outputs = CorrectlyRoundedEvaluator(graph).forward({name: tensors[name] for name in io_names(graph)[0]})
    assert outputs["d_head.bias"] == 0.0
    assert outputs["next/head.bias"] == np.float32(1.0 - 0.01 * 0.1)


numbers = st.floats(2.0**-10, 2.0, width=32)
shares = st.floats(0.0, 0.9990234375, width=32)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["sgd", "adam", "adamw", "rmsprop"]),
    rate=numbers,
    momentum=shares,
    nesterov=st.booleans(),
    beta1=shares,
    beta2=shares,
    epsilon=st.floats(2.0**-30, 1.0, width=32),
    weight_decay=shares,
    step=st.integers(1, 10_000),
    seed=st.integers(0, 99),
)
def test_every_hyperparameter_enters_as_in_the_definition(step: int, seed: int, rate: float, **numbers: Any) -> None:
    if numbers["kind"] != "sgd":
        numbers |= {"momentum": 0.0, "nesterov": False}
    optimizer = Optimizer(learning_rate=rate, **numbers)
    rng = np.random.default_rng(seed)
    w, x, target = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 2), (4, 3), (4, 2)))
    graph = train_step(linear(w), loss="mean-squared-error", optimizer=optimizer)
    slots = {slot: np.abs(rng.normal(size=w.shape)).astype(np.float32) for slot in optimizer.slots}
    state = {"w": w, **{f"w/{slot}": array for slot, array in slots.items()}}
    outputs = CorrectlyRoundedEvaluator(graph.SerializeToString(), rounding=False).forward(
        {"x": x, "target": target, **state, **counted(step, optimizer)}
    )
    error = x.astype(np.float64) @ w - target
    wide = {slot: array.astype(np.float64) for slot, array in slots.items()}
    after, kept = updated(optimizer, Forms(), step, w.astype(np.float64), x.T @ error / 4.0, wide)
    np.testing.assert_allclose(outputs["next/w"], after, rtol=1e-5, atol=1e-6)
    for slot, array in kept.items():
        np.testing.assert_allclose(outputs[f"next/w/{slot}"], array, rtol=1e-5, atol=1e-6)


def linear(w: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None = None) -> onnx.ModelProto:
    """Return y = x W (+ b)."""
    parts = [helper.make_node("MatMul", ["x", "w"], ["y" if bias is None else "product"])]
    weights = [numpy_helper.from_array(w, "w")]
    if bias is not None:
        parts.append(helper.make_node("Add", ["product", "bias"], ["y"]))
        weights.append(numpy_helper.from_array(bias, "bias"))
    return model_of(parts, weights, [w.shape[0]], [w.shape[1]])


def model_of(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], x: list[int], y: list[int], opset: int = 20
) -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", *shape]) for name, shape in (("x", x), ("y", y))
    ]
    graph = helper.make_graph(nodes, "model", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def test_the_reference_evaluator_learns_a_line() -> None:
    """State goes out and in again, unrounded by us; at the end the weights are those of the line."""
    optimizer = Optimizer(kind="adam", learning_rate=0.05)
    rng = np.random.default_rng(0)
    x, true = rng.normal(size=(32, 3)).astype(np.float32), rng.normal(size=(3, 1)).astype(np.float32)
    model = linear(np.zeros((3, 1), np.float32), np.zeros(1, np.float32))
    step = train_step(model, loss="mean-squared-error", optimizer=optimizer)
    state, losses, program = training_state(model, step), [], ReferenceEvaluator(step)
    names = [value.name for value in step.graph.output]
    assert names == [LOSS, *(NEXT + name for name in state)]
    for number in range(1, 301):
        results = program.run(None, {"x": x, "target": x @ true + 2.0, **state, **counted(number, optimizer)})
        outputs = dict(zip(names, results, strict=True))
        losses.append(float(outputs[LOSS]))
        state = {name: outputs[NEXT + name] for name in state}
    assert losses[-1] < 1e-3 * losses[0]
    trained = model_of_state(model, state)
    (y,) = ReferenceEvaluator(trained).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ true + 2.0, atol=0.05)
    assert not numpy_helper.to_array(model.graph.initializer[0]).any(), "the model given is as it was"


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        ("mean-squared-error", lambda y, t: ((y - t) ** 2).mean()),
        ("mean-absolute-error", lambda y, t: np.abs(y - t).mean()),
        ("binary-cross-entropy", lambda y, t: -(t * np.log(y) + (1 - t) * np.log(1 - y)).mean()),
        ("binary-cross-entropy-from-logits", lambda y, t: (np.log1p(np.exp(y)) - t * y).mean()),
        ("categorical-cross-entropy", lambda y, t: -(t * np.log(y / y.sum(-1, keepdims=True))).sum(-1).mean()),
        (
            "categorical-cross-entropy-from-logits",
            lambda y, t: -(t * np.log(np.exp(y) / np.exp(y).sum(-1, keepdims=True))).sum(-1).mean(),
        ),
    ],
)
@pytest.mark.parametrize("opset", [11, 20])
def test_losses_and_their_gradients_are_those_of_their_formulas(loss: str, of: Any, opset: int) -> None:
    """At an opset before those whose operators the losses are written in, too."""
    rng = np.random.default_rng(1)
    w = rng.uniform(0.1, 0.3, (2, 3)).astype(np.float32)
    weights = [numpy_helper.from_array(w, "w")]
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], weights, [2], [3], opset)
    rule = Optimizer(kind="sgd", learning_rate=1.0)
    step = train_step(model, loss=loss, optimizer=rule, gradients=True)
    x, target = rng.uniform(0.2, 1.0, (4, 2)).astype(np.float32), np.eye(3, dtype=np.float32)[[0, 2, 1, 1]]
    outputs = CorrectlyRoundedEvaluator(step.SerializeToString(), rounding=False).forward(
        {"x": x, "target": target, "w": w, **counted(1, rule)}
    )
    wide = w.astype(np.float64)
    np.testing.assert_allclose(outputs[LOSS], of(x @ wide, target), rtol=1e-6)
    for place in np.ndindex(w.shape):
        moved = [
            wide + side * 1e-6 * (np.arange(6).reshape(2, 3) == np.ravel_multi_index(place, w.shape))
            for side in (1, -1)
        ]
        slope = (of(x @ moved[0], target) - of(x @ moved[1], target)) / 2e-6
        np.testing.assert_allclose(outputs["d_w"][place], slope, rtol=1e-4, atol=1e-7)


def many_floats() -> onnx.ModelProto:
    """Weights among initializers of floats that are none: an epsilon, a mask of infinities, running statistics, what nothing reads."""
    nodes = [
        helper.make_node("BatchNormalization", ["x", "gamma", "beta", "mean", "variance"], ["normal"]),
        helper.make_node("Add", ["normal", "epsilon"], ["above"]),
        helper.make_node("Add", ["above", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["share"]),
        helper.make_node("MatMul", ["share", "w"], ["y"]),
    ]
    ones, mask = np.ones(3, np.float32), np.array([0.0, -np.inf, 0.0], np.float32)
    weights = {"gamma": ones, "beta": ones, "mean": ones, "variance": ones, "epsilon": np.float32(1e-3), "mask": mask}
    weights |= {"w": np.ones((3, 2), np.float32), "unread": ones}
    return model_of(nodes, [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()], [3], [2])


def trained_names(step: onnx.ModelProto) -> list[str]:
    return [value.name.removeprefix(NEXT) for value in step.graph.output if value.name.startswith(NEXT)]


def test_what_is_trained_by_default_are_weights_with_a_gradient_path() -> None:
    rule = Optimizer(kind="sgd", learning_rate=0.1)
    step = train_step(many_floats(), loss="mean-squared-error", optimizer=rule)
    assert trained_names(step) == ["gamma", "beta", "w"]
    chosen = train_step(many_floats(), loss="mean-squared-error", optimizer=rule, parameters=["w", "epsilon"])
    assert trained_names(chosen) == ["w", "epsilon"]
    held = {tensor.name for tensor in chosen.graph.initializer}
    assert {"gamma", "mean", "mask"} <= held
    assert held.isdisjoint({"w", "epsilon", "unread"})


@pytest.mark.parametrize(
    ("operator", "weights"), [("Add", ["w", "number"]), ("PRelu", ["w", "number"]), ("Mul", ["w"])]
)
def test_a_single_number_is_trained_where_weights_are_read(operator: str, weights: list[str]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node(operator, ["product", "number"], ["y"]),
    ]
    arrays = {"w": np.ones((3, 1), np.float32), "number": np.ones((1, 1), np.float32)}
    model = model_of(nodes, [numpy_helper.from_array(array, name) for name, array in arrays.items()], [3], [1])
    step = train_step(model, loss="mean-squared-error", optimizer=Optimizer(kind="sgd", learning_rate=0.1))
    assert trained_names(step) == weights


def test_a_large_weight_that_is_not_trained_stays_a_constant() -> None:
    first, second = np.ones((3, 2000), np.float32), np.ones((2000, 1), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["y"]),
    ]
    weights = [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")]
    rule = Optimizer(kind="sgd", learning_rate=0.1)
    step = train_step(
        model_of(nodes, weights, [3], [1]), loss="mean-squared-error", optimizer=rule, parameters=["second"]
    )
    assert [value.name for value in step.graph.input] == ["x", "target", "second", STEP, RATE]
    (constant,) = (tensor for tensor in step.graph.initializer if tensor.name == "first")
    np.testing.assert_array_equal(numpy_helper.to_array(constant), first)


@pytest.mark.parametrize("names", [["running_mean", "running_variance"], ["", ""]])
def test_a_normalization_in_training_mode_gives_its_running_statistics(names: list[str]) -> None:
    model = many_floats()
    (node, *_) = model.graph.node
    node.attribute.append(helper.make_attribute("training_mode", 1))
    node.output.extend(names)
    step = train_step(model, loss="mean-squared-error", optimizer=Optimizer(kind="sgd", learning_rate=0.1))
    assert trained_names(step) == ["gamma", "beta", "w", "mean", "variance"]
    state, x = training_state(model, step), np.arange(12, dtype=np.float32).reshape(4, 3)
    outputs = CorrectlyRoundedEvaluator(step.SerializeToString()).forward(
        {
            "x": x,
            "target": np.zeros((4, 2), np.float32),
            **state,
            **counted(1, Optimizer(kind="sgd", learning_rate=0.1)),
        }
    )
    np.testing.assert_allclose(outputs["next/mean"], 0.9 + 0.1 * x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(outputs["next/variance"], 0.9 + 0.1 * x.var(axis=0), rtol=1e-6)


def two_outputs() -> onnx.ModelProto:
    model = linear(np.ones((3, 2), np.float32))
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["b", 2]))
    return model


def quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], name="dequantize"),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    held = {"q": np.ones((3, 2), np.int8), "scale": np.float32(0.1)}
    return model_of(nodes, [numpy_helper.from_array(np.asarray(a), name) for name, a in held.items()], [3], [2])


def without_weights() -> onnx.ModelProto:
    return model_of([helper.make_node("Relu", ["x"], ["y"])], [], [3], [3])


def renamed_target() -> onnx.ModelProto:
    model = linear(np.ones((3, 2), np.float32))
    model.graph.input[0].name = model.graph.node[0].input[0] = "target"
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (two_outputs, {"loss": "mean-squared-eror"}, "no loss 'mean-squared-eror'; did you mean mean-squared-error"),
        (two_outputs, {}, "2 outputs, y, z: choose which one has a loss with output="),
        (two_outputs, {"output": "zz"}, "no output 'zz'; did you mean z"),
        (two_outputs, {"output": "z", "parameters": ["ww"]}, "no initializer 'ww'; did you mean w"),
        (two_outputs, {"output": "z", "parameters": []}, "parameters is empty"),
        (many_floats, {"parameters": ["w", "unread"]}, "no gradient path leads from 'unread' to output 'y'"),
        (quantized, {}, r"the model is quantized: node dequantize \(DequantizeLinear\)"),
        (without_weights, {}, "nothing to train"),
        (renamed_target, {}, "a tensor 'target'"),
        (two_outputs, {"output": "z", "optimizer": Optimizer(kind="adam", learning_rate=-1.0)}, "learning_rate = -1"),
        (two_outputs, {"output": "z", "optimizer": Optimizer(kind="adam", learning_rate=1.0, beta2=1.0)}, "beta2 = 1"),
        (
            two_outputs,
            {"output": "z", "optimizer": Optimizer(kind="adam", learning_rate=1.0, momentum=0.5)},
            "momentum",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_to_do(model: Any, options: dict[str, Any], message: str) -> None:
    arguments = {"loss": "mean-squared-error", "optimizer": Optimizer(kind="sgd", learning_rate=0.1), **options}
    with pytest.raises(UsageError, match=message):
        train_step(model(), **arguments)


def test_an_operator_without_a_gradient_is_named() -> None:
    model = linear(np.ones((3, 2), np.float32))
    model.graph.node[0].output[0] = "product"
    model.graph.node.append(helper.make_node("Volume", ["product"], ["y"], domain="strange"))
    model.opset_import.append(helper.make_opsetid("strange", 1))
    with pytest.raises(UnsupportedOperator, match="Volume"):
        train_step(model, loss="mean-squared-error", optimizer=Optimizer(kind="sgd", learning_rate=0.1))


def test_a_state_of_another_model_is_refused() -> None:
    model, rule = linear(np.ones((3, 2), np.float32)), Optimizer(kind="sgd", learning_rate=0.1)
    step = train_step(model, loss="mean-squared-error", optimizer=rule)
    with pytest.raises(UsageError, match="shape"):
        training_state(linear(np.ones((3, 4), np.float32)), step)
    with pytest.raises(UsageError, match="no initializer"):
        training_state(without_weights(), step)
    with pytest.raises(UsageError, match="shape"):
        model_of_state(model, {"w": np.ones((3, 4), np.float32)})


def test_the_example_runs_as_written() -> None:
    assert doctest.testmod(step_graph) == doctest.TestResults(failed=0, attempted=11)
