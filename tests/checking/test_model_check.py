"""The check of one model: what becomes of it with runtimes that do what runtimes do, and with models of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import ENCODER, FLOW, OVERFLOWING, TOKENS, checked, checked_all, flow, made, numbers, sample_of

ELEMENTWISE = made(
    "(float[n] x) => (float[n] y) { h = Mul (x, w)  r = Relu (h)  y = Add (r, x) }", {"w": np.float32(-2)}
)
X = {"x": np.float32([1.0, 2.5, 0.0, -3.0])}
LAYER_NORM = made(
    "(float[n, 8] x) => (float[n, 8] y) { l = LayerNormalization <axis = -1> (x, scale)  y = Neg (l) }",
    {"scale": np.ones(8, np.float32)},
)
ROWS = {"x": numbers(1, 4, 8, scale=0.01)}


def only(result):
    (runtime,) = result.runtimes
    return runtime


def test_a_runtime_that_is_right_is_explained_at_each_of_its_levels(runtime):
    result = checked(ELEMENTWISE, X, runtime("right"))
    assert result.explained
    right = only(result)
    assert (right.status, right.fault, right.facts["right"]) == ("explained", None, "1.0")
    assert [(level.name, level.marks, len(level.tensors)) for level in right.levels] == [
        ("slow", "all", 3),
        ("fast", "surviving", 2),
    ]
    assert [tensor.segment for tensor in right.levels[1].tensors] == [("Mul:h", "Relu:r"), ("Add:y",)]


def test_outputs_that_change_from_call_to_call_are_named(runtime):
    unsteady = only(checked(ELEMENTWISE, X, runtime("unsteady")))
    assert unsteady.unsteady == ("y",)
    assert unsteady.status == "not explained"


def test_a_runtime_that_changes_its_input_is_not_explained(runtime):
    mutates = only(checked(ELEMENTWISE, X, runtime("mutates")))
    assert mutates.mutated == ("x",)
    assert mutates.status == "not explained"


def test_a_runtime_that_refuses_the_model_is_told_in_its_words_and_another_goes_on(runtime):
    result = checked(ELEMENTWISE, X, runtime("silent"), runtime("no-accelerator"), runtime("right"))
    silent, absent, right = result.runtimes
    assert silent.status == "failed"
    assert "no conversion rule for anything" in silent.reason
    assert absent.status == "unavailable"
    assert "libnone.so.9 is missing" in absent.reason
    assert right.status == "explained"
    assert not result.explained


def test_a_process_that_dies_is_a_failure_of_that_runtime(runtime):
    result = checked(ELEMENTWISE, X, runtime("dies"), runtime("right"))
    died, right = result.runtimes
    assert died.status == "failed"
    assert died.reason.startswith("crash: ")
    assert right.status == "explained"


def test_two_runtimes_that_are_off_alike_leave_it_undetermined(runtime):
    result = checked(LAYER_NORM, ROWS, runtime("epsilon"), runtime("epsilon-too"), runtime("ort-cpu"))
    first, second, right = result.runtimes
    assert [first.fault.blame, second.fault.blame] == ["undetermined", "undetermined"]
    assert any("epsilon-too gives the same there" in sentence for sentence in first.fault.evidence)
    assert right.fault is None


def test_one_runtime_that_is_off_alone_is_to_blame(runtime):
    wrong, right = checked(LAYER_NORM, ROWS, runtime("epsilon"), runtime("ort-cpu")).runtimes
    assert (wrong.fault.blame, wrong.fault.node, wrong.fault.op_type) == (
        "runtime",
        "LayerNormalization:l",
        "LayerNormalization",
    )
    assert "ort-cpu is within every bound" in wrong.fault.evidence
    assert right.status == "explained"


def test_an_overflow_of_the_format_is_the_fault_of_the_graph(runtime):
    result = checked(OVERFLOWING, {"x": np.float16([1, 2, 300, 4])}, runtime("ort-cpu"))
    assert result.graph[0].overflows == "Mul Mul:s gives 90,000, and f16 ends at 65,504"
    answer = only(result)
    (output,) = answer.outputs
    if answer.fault is not None:  # a runtime that computes in float32 escapes it
        assert (answer.fault.blame, answer.fault.node) == ("graph", "Mul:s")
        assert output.overflowed == 1


def test_an_overflow_within_what_a_runtime_fuses_is_the_fault_of_the_graph_too(runtime):
    model = made("(float[n] x) => (float[n] y) { h = Mul (x, x)  y = Mul (h, z) }", {"z": np.float32([0, 1])})
    answer = only(checked(model, {"x": np.float32([2e30, 1])}, runtime("right")))
    assert (answer.fault.blame, answer.fault.node) == ("graph", "Mul:h")
    assert answer.outputs[0].nonfinite == 1


def test_saved_outputs_of_another_model_are_the_fault_of_the_graph(runtime):
    result = checked(ELEMENTWISE, X, runtime("right"), saved={"y": -X["x"]})
    right, saved = result.runtimes
    assert right.status == "explained"
    assert (saved.name, saved.status, saved.fault.blame, saved.fault.node) == (
        "saved outputs",
        "not explained",
        "graph",
        "y",
    )
    assert not result.explained


def test_saved_outputs_that_are_the_models_are_explained(runtime):
    result = checked(ELEMENTWISE, X, runtime("right"), saved={"y": np.float32([1.0, 2.5, 0.0, 3.0])})
    assert result.runtimes[1].status == "explained"
    assert result.explained


def test_a_model_without_float_outputs_is_judged_by_its_decisions(runtime):
    model = made("(float[n, 8] x) => (int64[n] y) { e = Exp (x)  y = ArgMax <axis = 1, keepdims = 0> (e) }")
    answer = only(checked(model, TOKENS, runtime("ort-cpu")))
    assert answer.status == "explained"
    (output,) = answer.outputs
    assert (output.decisions, output.decided_alike) == (6, 6)


def test_a_decision_that_no_rounding_makes_otherwise_is_not_explained(runtime):
    model = made("(float[n, 8] x) => (int64[n] y) { e = Exp (x)  y = ArgMax <axis = 1, keepdims = 0> (e) }")
    right = np.argmax(TOKENS["x"], 1)
    saved = checked(model, TOKENS, runtime("ort-cpu"), saved={"y": (right + 1) % 8}).runtimes[1]
    assert saved.status == "not explained"
    assert (saved.outputs[0].decided_alike, saved.fault.blame) == (0, "graph")


def test_top_1_is_compared_row_by_row(runtime):
    right = checked(ENCODER, TOKENS, runtime("ort-cpu"))
    (output,) = only(right).outputs
    assert (output.decisions, output.decided_alike) == (6, 6)
    wrong = only(checked(ENCODER, TOKENS, runtime("faulty-model@weight-transposed")))
    assert wrong.outputs[0].decided_alike < wrong.outputs[0].decisions == 6


def test_an_operator_that_nobody_here_can_evaluate_takes_the_runtimes_answer_and_is_named(runtime):
    model = made(
        "(float[n, 2] x) => (float[n, 2] y, float[n, 2] z) "
        "{ s = ai.onnx.ml.Scaler <offset = [1.0, 2.0], scale = [3.0, 4.0]> (x)  y = Exp (s)  z = Exp (x) }"
    )
    inputs = {"x": np.float32([[1, 2], [1.5, 2.25]])}
    result = checked(model, inputs, runtime("ort-cpu"))
    assert result.answered == ("Scaler:s",)
    answer = only(result)
    (y, z) = answer.outputs
    assert y.unjudged == "it depends on a node that cannot be evaluated here"
    assert not z.unjudged
    for level in answer.levels:
        assert [each.node for each in level.unjudged] == ["Scaler:s"]
        assert [tensor.node for tensor in level.tensors] == ["Exp:y", "Exp:z"]
    assert answer.status == "explained"


def test_an_operator_that_no_one_knows_is_a_failure_of_the_runtime_and_no_crash_here(runtime):
    model = made("(float[n] x) => (float[n] y, float[n] z) { y = ai.onnx.ml.Nothing (x)  z = Exp (x) }")
    answer = only(checked(model, X, runtime("ort-cpu")))
    assert answer.status == "failed"
    assert "Nothing" in answer.reason


def test_a_fault_that_shows_in_a_later_sample_alone_is_found_there(runtime):
    model = made("(float[n] x) => (float[n] y) { r = Relu (x)  y = Neg (r) }")
    positive, mixed = sample_of({"x": np.float32([1, 2, 3])}), sample_of({"x": np.float32([1, -2, 3])})
    wrong = runtime("faulty-model@relu-leaky")
    assert checked_all(model, [positive], wrong).explained
    answer = only(checked_all(model, [positive, mixed], wrong))
    assert (answer.fault.sample, answer.fault.node, answer.fault.blame) == (1, "Relu:r", "runtime")
    answer = only(checked_all(model, [positive] * 4 + [mixed], wrong))
    assert answer.fault.sample == 4


@pytest.mark.parametrize(("early", "rounds"), [(True, 0), (False, 2)])
def test_models_with_control_flow_are_explained_whatever_way_they_take(runtime, early, rounds):
    result = checked(FLOW, flow(early=early, rounds=rounds), runtime("ort-cpu"))
    assert result.explained, only(result).fault
    assert result.answered == ()


def test_the_operators_of_a_function_are_judged_one_by_one(runtime):
    model = made(
        "(float[n] x) => (float[n] y) { t = local.Twice (x)  y = Exp (t) }",
        more='<domain: "local", opset_import: ["" : 17]> Twice (a) => (b) { c = Tanh (a)  b = Add (c, c) }',
    )
    answer = only(checked(model, X, runtime("ort-cpu")))
    assert answer.status == "explained"
    assert [tensor.op_type for tensor in answer.levels[0].tensors] == ["Tanh", "Add", "Exp"]


def test_an_output_that_a_runtime_does_not_give_is_not_explained(runtime):
    model = made("(float[n] x) => (float[n] y, float[n] h) { h = Mul (x, w)  y = Add (h, x) }", {"w": np.float32(-2)})
    forgets = only(checked(model, X, runtime("forgets")))
    assert [(output.name, output.explained, output.reason) for output in forgets.outputs] == [
        ("y", True, ""),
        ("h", False, "it was not given"),
    ]
    assert (forgets.status, forgets.fault.blame, forgets.fault.node) == ("not explained", "runtime", "Mul:h")


def test_outputs_are_judged_where_no_tensor_survives(runtime):
    survives = only(checked(ELEMENTWISE, X, runtime("nothing-survives")))
    assert [[tensor.tensor for tensor in level.tensors] for level in survives.levels] == [["h", "r", "y"], ["y"]]


def test_a_level_whose_surviving_tensors_are_not_known_is_a_failure_of_that_level(runtime):
    secretive = only(checked(ELEMENTWISE, X, runtime("secretive")))
    assert [(level.marks, len(level.tensors)) for level in secretive.levels] == [
        ("all", 3),
        ("surviving", 0),
    ]
    assert all("what survives is a secret" in level.failure for level in secretive.levels[1:])


def test_a_node_whose_tensor_is_not_shown_is_unjudged_unless_a_later_one_spans_it(runtime):
    model = made("(float[n] x) => (float[n] y) { h = Mul (x, w)  y = Relu (x) }", {"w": np.float32(-2)})
    hidden = only(checked(model, X, runtime("refuses-marks"))).levels[0]
    (unjudged,) = hidden.unjudged
    assert unjudged.node == "Mul:h"
    assert "h cannot be an output here" in unjudged.reason
    spanned = only(checked(ELEMENTWISE, X, runtime("refuses-marks"))).levels[0]
    assert spanned.unjudged == []


def test_where_nothing_can_be_judged_a_runtime_is_not_said_to_be_right(runtime):
    model = made(
        "(float[n, 2] x) => (float[n, 2] y) { y = ai.onnx.ml.Scaler <offset = [1.0, 2.0], scale = [3.0, 4.0]> (x) }"
    )
    answer = only(result := checked(model, {"x": np.float32([[1, 2]])}, runtime("ort-cpu")))
    assert answer.status == "not judged"
    assert "could be judged" in answer.reason
    assert not result.explained


def test_a_fault_in_control_flow_itself_is_the_runtimes(runtime):
    model = made(
        """(bool c, float[n] x) => (float[n] y)
        {
            t = If (c) <then_branch = yes () => (float[n] r) { r = Neg (x) }, else_branch = no () => (float[n] s) { s = Relu (x) }>
            y = Neg (t)
        }"""
    )
    branches = only(checked(model, {"c": np.array(True), **X}, runtime("branches")))
    assert (branches.status, branches.fault.blame) == ("not explained", "runtime")
    assert any("control flow taken apart" in sentence for sentence in branches.fault.evidence)


def test_samples_whose_flat_graphs_are_equal_share_one_file(runtime):
    samples = [sample_of(X), sample_of({"x": np.float32([1])})]
    assert checked_all(ELEMENTWISE, samples, runtime("right")).explained
    assert samples[0].file is samples[1].file


def test_the_worse_of_two_answers_counts(runtime):
    check = only(checked(ELEMENTWISE, X, runtime("late"))).outputs[0]
    assert not check.explained


def test_an_output_of_another_dtype_is_not_explained(runtime):
    (output,) = only(checked(ELEMENTWISE, X, runtime("widens"))).outputs
    assert (output.explained, output.reason) == (False, "it is of float64, and should be of float32")
